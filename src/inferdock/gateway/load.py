"""What a process holds right now, on a board that outlives it: if it dies, its parent reads there what was lost."""

from __future__ import annotations

from typing import Final

CONNECTIONS: Final = 0
"""Column: open client connections."""
IN_FLIGHT: Final = 1
"""Column: requests that have not ended."""
SHADOWS: Final = 2
"""Column: copies of requests that are under way."""
LOAD_COLUMNS: Final = 8
