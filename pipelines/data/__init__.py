"""Stores and a manifest -> the batches and sweeps of a run."""
