"""Finished runs and clips, whose labels nobody needs to know -> predictions, embeddings or clusters of the clips."""
