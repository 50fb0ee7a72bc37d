"""The events of a model's history: what was pushed, which alias was moved, what was deleted; by whom, when and why.

Each event names the digest of the one before, so that none can be changed or left out unnoticed (`ledger.fold`).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferdock.domain.errors import ConfigError, IntegrityError
from inferdock.registry.canonical import canonical
from inferdock.registry.manifest import Line, Moment, Sha256, sha256_of
from inferdock.registry.names import Version, check_alias, check_name

MAX_EVENT_BYTES: Final = 64 * 1024
NO_EVENT: Final = "0" * 64
"""What the first event of a history names as the one before."""


class Push(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="action", tag="push"):
    """A version came to be.

    Attributes:
        version: its number.
        revision: digest of its content.
        manifest_sha256: digest of the exact bytes of its ``MANIFEST.json``.
        size_bytes, files: of all its files.
        signed_by: fingerprints of the keys that signed it at the push.
    """

    version: str
    revision: Sha256
    manifest_sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=0)]
    files: Annotated[int, Meta(ge=1)]
    signed_by: tuple[Line, ...] = ()


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One alias now means another version.

    Attributes:
        alias: its name.
        before, after: versions; None where it meant, or means, none.
    """

    alias: str
    before: str | None
    after: str | None


class Alias(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="action", tag="alias"):
    """Aliases were moved, all at once."""

    moves: Annotated[tuple[Move, ...], Meta(min_length=1, max_length=16)]


class Delete(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="action", tag="delete"):
    """A version is gone; its number does not come back with other bytes."""

    version: str
    revision: Sha256


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a model's history.

    Attributes:
        name: the model.
        seq: 1 for the first, then one more each time.
        time: when, by the clock of whoever did it, but never before the event before.
        actor: who.
        reason: why, "" where nobody said.
        previous: SHA-256 of the canonical bytes of the event before.
        change: what.
    """

    name: str
    seq: Annotated[int, Meta(ge=1, le=10**10 - 1)]
    time: Moment
    actor: Line
    reason: Line
    previous: Sha256
    change: Push | Alias | Delete


_DECODER: Final = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """The canonical bytes of an event."""
    return canonical(msgspec.to_builtins(event))


def digest_of(event: Event) -> str:
    """What the next event names as ``previous``."""
    return sha256_of(encode(event))


def decode(data: bytes, *, what: str) -> Event:
    """Read an event.

    Raises:
        IntegrityError: it is none.
    """
    try:
        if len(data) > MAX_EVENT_BYTES:
            raise ValueError("it is too long")
        event = _DECODER.decode(data)
        _check(event)
        if encode(event) != data:
            raise ValueError("it is not in canonical form")
    except (msgspec.MsgspecError, ConfigError, ValueError, TypeError, RecursionError) as exc:
        raise IntegrityError(
            f"{what} is not an event of a history: {str(exc)[:200]}.", cure="Restore it from a backup of the store."
        ) from exc
    return event


def _check(event: Event) -> None:
    check_name(event.name)
    change = event.change
    versions = [change.version] if not isinstance(change, Alias) else []
    if isinstance(change, Alias):
        for move in change.moves:
            check_alias(move.alias)
            versions += [version for version in (move.before, move.after) if version is not None]
    if any(str(Version.parse(version)) != version for version in versions):
        raise ValueError("a version is not written with three numbers")
