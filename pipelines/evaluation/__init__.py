"""Runs and test labels -> result rows."""
