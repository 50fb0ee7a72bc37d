"""Flushes as numbers: an entry is valid only while its epoch is the present one. Pure; nothing is searched or deleted.

Each scope has a number, the moment of its last flush in milliseconds since 1970, or one more than the highest number
known. The epoch of an entry is the highest number of its scopes when its answer was *begun*: so an answer that was
under way during a flush is never served, and a flush is a matter of microseconds.

Numbers only rise. What Redis says is merged, the higher number counting; losing its data revives nothing, because every
gateway gives its numbers back, and where none is left the number of all is set to the present time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from inferdock.cache.entry import Entry
from inferdock.cache.store import EVERYTHING, Scope

MAX_AHEAD_MS: Final = 24 * 3600 * 1000
"""Numbers further in the future than this are nobody's: they would let no later flush rise above them."""

_TAG: Final = re.compile(r"g|[mt]:[0-9a-f]{32}")
_MAX_REMEMBERED: Final = 10_000


class Epochs:
    """The numbers of one gateway process.

    Args:
        clock: seconds since 1970.
        max_scopes: numbers kept; when there are more, one flush of all takes their place.
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, max_scopes: int = 10_000) -> None:
        self.max_scopes = max_scopes
        self._clock = clock
        self._values: dict[str, int] = {}
        self._highest = 0
        self._unspread: set[str] = set()
        self._tokens: dict[tuple[str, str], str] = {}

    def of(self, tenant: str, model: str) -> str:
        """The present epoch of a tenant's entries for a model."""
        token = self._tokens.get((tenant, model))
        return self._token(tenant, model) if token is None else token

    def holds(self, entry: Entry) -> bool:
        """Whether an entry is of the present epoch."""
        return entry.epoch == self.of(entry.tenant, entry.model)

    def bump(self, scope: Scope) -> int:
        """Make all that was begun before now void; returns the scope's new number."""
        value = max(int(self._clock() * 1000), self._highest + 1)
        self._unspread.add(scope.tag)
        self._raise(scope.tag, value)
        return value

    def merge(self, values: Mapping[str, int]) -> list[str]:
        """Take over what Redis says; returns the tags that have risen. What is no tag or number is left out."""
        risen = []
        limit = int(self._clock() * 1000) + MAX_AHEAD_MS
        for tag, value in values.items():
            if not _TAG.fullmatch(tag) or not 0 < value <= limit:
                continue
            if value >= self._values.get(tag, 0):
                self._unspread.discard(tag)
            if value > self._values.get(tag, 0):
                self._raise(tag, value)
                risen.append(tag)
        return risen

    def all(self) -> dict[str, int]:
        """Every number, by tag."""
        return dict(self._values)

    def unspread(self) -> dict[str, int]:
        """Numbers that were raised here and that Redis has not confirmed."""
        return {tag: self._values[tag] for tag in self._unspread}

    def _raise(self, tag: str, value: int) -> None:
        self._values[tag] = value
        self._highest = max(self._highest, value)
        self._tokens.clear()
        whole = EVERYTHING.tag
        if tag == whole:
            # Lower numbers decide nothing any more.
            self._values = {name: other for name, other in self._values.items() if other > value or name == whole}
            self._unspread &= self._values.keys()
        elif len(self._values) > self.max_scopes:
            self.bump(EVERYTHING)

    def _token(self, tenant: str, model: str) -> str:
        scopes = [EVERYTHING]
        if model:
            scopes.append(Scope("model", model))
        if tenant:
            scopes.append(Scope("tenant", tenant))
        token = str(max(self._values.get(scope.tag, 0) for scope in scopes))
        if len(self._tokens) >= _MAX_REMEMBERED:
            self._tokens.clear()
        self._tokens[tenant, model] = token
        return token
