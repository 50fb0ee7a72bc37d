"""A gateway of several processes: a parent that watches and tells (``parent``), workers that serve (``worker``)."""
