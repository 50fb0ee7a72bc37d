"""The plan's steps and success criteria as checks of a running target, of this checkout, or of a cluster."""
