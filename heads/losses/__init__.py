"""Losses: pure functions of tensors, without weights, reduced to a scalar; each says over what it averages."""
