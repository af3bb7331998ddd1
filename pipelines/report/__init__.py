"""Result rows, runs, stores and media -> one HTML page."""
