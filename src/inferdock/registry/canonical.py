"""One spelling of a JSON value, so that equal values have equal bytes and one digest.

Keys sorted by code point, no white space, UTF-8 without escapes that JSON does not demand, integers only. On such
values it agrees with the JSON Canonicalization Scheme (RFC 8785), but for keys beyond Unicode's basic plane.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """The canonical bytes of a value made of dicts with text keys, lists, texts, integers, booleans and None.

    Raises:
        TypeError: it holds something else, for instance a float, which has no one spelling.
    """
    _refuse_floats(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 of :func:`canonical`, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _refuse_floats(value: Any) -> None:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys must be texts")
        for part in value.values():
            _refuse_floats(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _refuse_floats(part)
    elif not (value is None or isinstance(value, str | int)):
        raise TypeError(f"{type(value).__name__} has no canonical form")
