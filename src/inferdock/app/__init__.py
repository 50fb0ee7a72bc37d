"""Composition root: turns settings into running objects. No logic and no globals here."""
