"""The tasks that a net can have."""
