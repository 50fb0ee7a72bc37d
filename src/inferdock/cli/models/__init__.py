"""``inferdock model``: the registry at the command line."""
