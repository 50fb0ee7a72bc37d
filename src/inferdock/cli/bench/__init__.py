"""``inferdock bench``."""
