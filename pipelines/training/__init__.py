"""Batches -> trained heads: a folder per run, with its configuration, log, weights and outputs."""
