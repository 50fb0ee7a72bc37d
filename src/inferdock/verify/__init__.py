"""Checks of a running target against what the platform promises: each runs something, or says what it needs."""
