"""One API key: who holds it, what it may do, and how its text looks. Pure values; the secret itself is never kept."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import string
from dataclasses import dataclass, field
from typing import Final

MAX_KEYS: Final = 10_000
"""Keys that one file may ever hold, revoked ones included: it bounds the counters that workers share."""

KEY_TEXT: Final = re.compile(rb"idk_([0-9a-z]{8})_[0-9A-Za-z]{43}")
"""``idk_<id>_<secret>``; the id is public, the secret is 256 random bits in base 62."""

_ID_LETTERS = string.digits + string.ascii_lowercase
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What the gateway knows of a key.

    Attributes:
        id: public name in lists and logs.
        name: what people call it.
        digest: SHA-256 of the whole key text.
        created_at, expires_at, revoked_at: seconds since 1970; infinity when it never expires, None when not revoked.
        models: names that it may ask for; empty for all.
        requests_per_minute, tokens_per_minute, concurrent_streams: limits; None for no limit.
        priority: higher goes first where requests queue.
        admin: may use the console: see how the platform is, and steer releases.
        tenant: whom the use is booked to; several keys may share one.
        slot: place of its counters; no other key of the file ever gets it.
        limited: any of the three limits is set.
    """

    id: str
    name: str
    digest: bytes = field(repr=False)
    created_at: float
    slot: int
    expires_at: float = math.inf
    revoked_at: float | None = None
    models: frozenset[str] = frozenset()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_streams: int | None = None
    priority: int = 0
    admin: bool = False
    tenant: str = ""
    limited: bool = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.slot < MAX_KEYS:
            raise ValueError(f"slot {self.slot} is outside of 0 to {MAX_KEYS - 1}")
        limits = (self.requests_per_minute, self.tokens_per_minute, self.concurrent_streams)
        object.__setattr__(self, "limited", any(limit is not None for limit in limits))

    def may_use(self, model: str) -> bool:
        """Whether the key may ask for this model."""
        return not self.models or model in self.models

    def state(self, now: float) -> str:
        """``live``, ``expired`` or ``revoked``, at ``now`` in seconds since 1970."""
        if self.revoked_at is not None:
            return "revoked"
        return "live" if now < self.expires_at else "expired"


ANONYMOUS: Final = Key(id="", name="anonymous", digest=b"", created_at=0.0, slot=0)
"""Who everybody is while keys are not checked: all models, no limits."""


def new_id() -> str:
    """A public id of 8 letters and digits; about one pair in 2.8e12 is equal, so the file checks."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(8))


def new_text(key_id: str) -> str:
    """A fresh key text for this id, with 256 bits from the system's random source."""
    number = secrets.randbits(256)
    digits = []
    for _ in range(43):  # 62**43 > 2**256
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return f"idk_{key_id}_{''.join(digits)}"


def digest_of(text: bytes) -> bytes:
    """SHA-256 of a key text. Not a slow hash: there is nothing to guess in 256 random bits."""
    return hashlib.sha256(text).digest()
