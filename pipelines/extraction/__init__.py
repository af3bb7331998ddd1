"""A manifest and its media -> one feature store per extractor."""
