"""API keys: what one is, and the file that keeps them. Called by ``cli`` (makes keys) and ``gateway`` (checks them)."""
