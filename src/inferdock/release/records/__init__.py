"""What a release leaves behind and is told by: its journal, its lease, commands and notes; in files or in a cluster."""
