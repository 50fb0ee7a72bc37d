"""Releases: a plan as data, a journalled runner that applies it, gates that may stop it, drivers for platforms."""
