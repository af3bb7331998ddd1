"""An experiment's name, folders and options, as Python values -> outcomes, results, tables: a function per command."""
