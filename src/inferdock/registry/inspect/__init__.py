"""Reads a model folder without loading it: which files, what model, and whether it may be pushed."""
