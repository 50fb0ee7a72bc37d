"""The journal of one release: lines of JSON, each naming the digest of the line before. Where they lie is elsewhere.

A step counts as begun, or done, when its line is kept; so whoever takes over knows what may have happened.
`file_journal` keeps lines in a file, `cluster_journal` in ConfigMaps; what a line may be, and what may follow it, is
here for both.

Only who holds the lease writes. Reading is free at any time.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from inferdock.domain.errors import ConfigError, IntegrityError, RegistryError, ResourceError
from inferdock.domain.moment import spell
from inferdock.release.events import MAX_EVENTS, NO_EVENT, Entry, Event, Planned
from inferdock.release.plan import ID, Plan
from inferdock.release.progress import Progress, after, fold

MAX_LINE_BYTES: Final = 256 * 1024
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of a whole journal."""
MAX_TEXT: Final = 2000
NEWEST: Final = 20
"""Releases that are asked whether they are over: there is one at a time, so all but the newest are."""
_DECODER: Final = msgspec.json.Decoder(Event)
_ENCODE: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who does something.

    Attributes:
        actor: who, "" for the runner itself.
        origin: from where.
    """

    actor: str
    origin: str


class Chain:
    """The lines of a journal that was read, each checked against the one before.

    Args:
        name: what the journal is called in messages.

    Attributes:
        events: what the lines say.
        head: digest of the last line.
        size: bytes of all lines.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Event] = []
        self.head = NO_EVENT
        self.size = 0

    def take(self, line: bytes) -> None:
        """Add a line, its end included.

        Raises:
            IntegrityError: it is no event, or not the one that follows.
        """
        if len(self.events) >= MAX_EVENTS:
            raise self.damaged("there are too many")
        event = self._decode(line)
        if event.seq != len(self.events) + 1 or event.previous != self.head:
            raise self.damaged("a line was changed, lost or put in")
        self.events.append(event)
        self.head = digest(line)
        self.size += len(line)

    def damaged(self, why: str) -> IntegrityError:
        """The error for the next line."""
        return IntegrityError(
            f"The journal {self.name} is damaged at line {len(self.events) + 1}: {why}.",
            cure="Restore it from a backup, or move it away.",
        )

    def _decode(self, line: bytes) -> Event:
        try:
            if len(line) > MAX_LINE_BYTES:
                raise ValueError("it is too long")
            return _DECODER.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            raise self.damaged(str(exc)[:200]) from exc


class Journal(ABC):
    """One release's journal, open for writing. Only under the lease.

    Args:
        chain: what is there.

    Attributes:
        progress: what it amounts to; grows with each :meth:`append`.

    Raises:
        IntegrityError: it could not have been written by a runner.
    """

    def __init__(self, chain: Chain) -> None:
        self.progress: Progress = fold(chain.events)
        self.size = chain.size
        self._name = chain.name
        self._head = chain.head
        self._broken = False

    async def append(self, entry: Entry, by: By, now: datetime, *, reason: str = "") -> Event:
        """Write an event and wait until it is kept.

        Raises:
            ResourceError: it could not be written, or the journal is full; nothing counts as having happened.
            UnreachableError: where it is kept does not answer.
            ConflictError: somebody else wrote to it.
            ConfigError: it holds what cannot be written.
            IntegrityError: it cannot follow what is there (a defect of the caller).
        """
        if self._broken:
            raise ResourceError(f"{self._name} could not be written before.", cure="Resume the release.")
        event = made(entry, by, max(spell(now), self.progress.time), reason, self.progress.seq + 1, self._head)
        progress = after(self.progress, event)
        line = line_of(event)
        if event.seq > MAX_EVENTS or self.size + len(line) > MAX_BYTES:
            raise ResourceError(f"The journal {self._name} is full.", cure="Abort the release and begin another.")
        try:
            await self._keep(event.seq, line)
        except BaseException:  # what is there now is unknown: nothing more is written, and opening it again tells
            self._broken = True
            raise
        self.size, self._head, self.progress = self.size + len(line), digest(line), progress
        return event

    @abstractmethod
    async def _keep(self, seq: int, line: bytes) -> None:
        """Put a line at the end, so that it outlives this process."""

    @abstractmethod
    async def close(self) -> None:
        """Let it go."""


class Journals(ABC):
    """All releases of one model on one platform."""

    @abstractmethod
    async def ids(self) -> list[str]:
        """Every release, oldest first by its id."""

    @abstractmethod
    async def create(self, plan: Plan, by: By, now: datetime, *, reason: str) -> Journal:
        """Begin a journal; it is there with its plan, or not at all.

        Raises:
            ConflictError: there is one of that id.
            ConfigError: the plan holds what cannot be written.
            ResourceError, UnreachableError: it cannot be written.
        """

    @abstractmethod
    async def open(self, release: str) -> Journal:
        """A journal to write to, under the lease.

        Raises:
            RegistryError: there is no such release.
            IntegrityError: it is damaged.
            ResourceError, UnreachableError: it cannot be read.
        """

    @abstractmethod
    async def events(self, release: str) -> list[Event]:
        """All events of a release, without the lease.

        Raises:
            RegistryError: there is no such release.
            IntegrityError: it is damaged.
        """

    async def progress(self, release: str) -> Progress:
        """What a release amounts to now.

        Raises:
            RegistryError: there is no such release.
            IntegrityError: its journal is damaged.
        """
        return fold(await self.events(release))

    async def unfinished(self) -> Progress | None:
        """The newest release that is not over; None when all are.

        Raises:
            IntegrityError: a journal is damaged.
        """
        for release in (await self.ids())[:-NEWEST:-1]:
            progress = await self.progress(release)
            if not progress.over:
                return progress
        return None


def made(entry: Entry, by: By, time: str, reason: str, seq: int, previous: str) -> Event:
    """An event as a journal can hold it.

    Args:
        entry: what happened.
        by: who did it.
        time: when, as :func:`inferdock.domain.moment.spell` has it.
        reason: why.
        seq: its number.
        previous: digest of the line before.
    """
    actor, origin = clean(by.actor, 500), clean(by.origin, 500)
    reason = clean(reason, MAX_TEXT)
    return Event(seq=seq, time=time, actor=actor, origin=origin, reason=reason, previous=previous, entry=entry)


def first_line(plan: Plan, by: By, now: datetime, reason: str) -> bytes:
    """The line that every journal begins with.

    Raises:
        ConfigError: the plan holds what a journal cannot.
    """
    return line_of(made(Planned(plan=plan), by, spell(now), reason, 1, NO_EVENT))


def line_of(event: Event) -> bytes:
    """The line of an event, which can be read back: what could not would make the whole journal useless.

    Raises:
        ConfigError: it holds what a journal cannot.
    """
    try:
        line = _ENCODE(event) + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"{len(line)} bytes are too long")
        _DECODER.decode(line)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        raise ConfigError(f"A journal cannot keep this: {str(exc)[:300]}.", cure="Change it, and try again.") from exc
    return line


def digest(line: bytes) -> str:
    """What the next line names this one by."""
    return hashlib.sha256(line).hexdigest()


def checked_id(release: str) -> str:
    """The id of a release, if it is one.

    Raises:
        ConfigError: it is not.
    """
    if not re.fullmatch(ID, release):
        raise ConfigError(f"{release[:100]!r} is no id of a release.", cure="`inferdock release history` lists them.")
    return release


def no_release(release: str) -> RegistryError:
    """The error for a release that is not there."""
    return RegistryError(f"There is no release {release}.", cure="`inferdock release history` lists those there are.")


def clean(text: str, limit: int) -> str:
    """What a person or a program said, so that a journal can hold it: a command line may hold what is no Unicode."""
    return text[:limit].encode("utf-8", "replace").decode()
