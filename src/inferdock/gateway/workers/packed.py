"""Settings on their way to a worker, without the library that checks them.

The parent has validated them; a worker only reads them, so it gets plain values and saves itself the import of
pydantic: 8 MB and 200 ms of its start (docs/decisions/0011-workers.md). The parent's half, which has to know a
settings group when it sees one, is :func:`inferdock.app.workers.pack`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

GROUP, MAPPING, SEQUENCE, PATH = "group", "mapping", "sequence", "path"


def unpack(packed: Any) -> Any:
    """Groups become objects with attributes, everything else is what it was (sequences are tuples)."""
    if not isinstance(packed, list | tuple):
        return packed
    kind, content = packed
    if kind == PATH:
        return Path(content)
    if kind == SEQUENCE:
        return tuple(unpack(item) for item in content)
    values = {key: unpack(value) for key, value in content.items()}
    return SimpleNamespace(**values) if kind == GROUP else values
