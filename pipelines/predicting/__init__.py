"""Finished runs, and clips with or without labels -> predictions, embeddings or clusters of the clips."""
