"""The keys and fields that gateways share in Redis. Keys hold hex digests, never a tenant, a model or a text.

::

    <namespace>:e:<key>             one entry, sealed; expires with it
    <namespace>:log                 stream of what happened: inserts, removals, flushes
    <namespace>:epochs              hash of flushes: tag of a scope to its number
    <namespace>:l:<key>             who leads the generation of an answer: its token; expires with the lease
    <namespace>:w:<key>:<token>     somebody follows that generation
    <namespace>:f:<key>:<token>     stream of what it has produced
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TYPE: Final = b"t"
ORIGIN: Final = b"o"
KEY: Final = b"k"
BODY: Final = b"b"
TAG: Final = b"s"
NUMBER: Final = b"n"

INSERTED: Final = b"i"
REMOVED: Final = b"r"
FLUSHED: Final = b"f"

ENTRY_CONTEXT: Final = b"entry/1:"
INSERT_CONTEXT: Final = b"insert/1:"
FLIGHT_CONTEXT: Final = b"flight/1:"


@dataclass(frozen=True, slots=True)
class Names:
    """Redis keys below one namespace."""

    namespace: str

    @property
    def log(self) -> str:
        return f"{self.namespace}:log"

    @property
    def epochs(self) -> str:
        return f"{self.namespace}:epochs"

    def entry(self, key: bytes) -> str:
        return f"{self.namespace}:e:{key.hex()}"

    def lease(self, key: bytes) -> str:
        return f"{self.namespace}:l:{key.hex()}"

    def wanted(self, key: bytes, token: str) -> str:
        return f"{self.namespace}:w:{key.hex()}:{token}"

    def flight(self, key: bytes, token: str) -> str:
        return f"{self.namespace}:f:{key.hex()}:{token}"


def fields_of(flat: list[bytes]) -> dict[bytes, bytes]:
    """A reply of names and values in turn, as a dictionary."""
    return dict(zip(flat[::2], flat[1::2], strict=False))
