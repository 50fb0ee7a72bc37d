"""Composition root: turns :class:`Settings` into running objects. No logic, no globals, nothing built at import."""
