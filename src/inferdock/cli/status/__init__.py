"""``inferdock status``."""
