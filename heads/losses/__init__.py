"""Losses: pure functions of tensors, without weights, reduced to a scalar; each docstring defines the average."""
