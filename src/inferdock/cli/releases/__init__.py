"""``inferdock release``: versions go live, and back, at the command line."""
