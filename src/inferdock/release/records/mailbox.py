"""Commands for a release that another process is running: left for its runner, which answers in the journal.

The answer is an event with the command's id. A command is removed after its answer is kept; if the runner dies between
the two, the one that takes over finds the id in the journal and only removes the command. `file_mailbox` keeps them in
a folder, `cluster_mailbox` in a ConfigMap.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from inferdock.release.events import CROWDED, Moment, Person, RequestId
from inferdock.release.machine import State, Trigger, allowed
from inferdock.release.progress import Progress
from inferdock.release.steps import Text

MAX_REQUEST_BYTES: Final = 16 * 1024
MAX_REQUESTS: Final = 100
"""Looked at in one go."""
NAME: Final = re.compile(r"[0-9TZ:.-]{1,40}-[0-9a-f]{32}\.json", re.ASCII)


class Wish(StrEnum):
    """What a person may ask of a release."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLLBACK = "rollback"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command.

    Attributes:
        id: unique.
        wish: what.
        actor: who.
        origin: from where.
        reason: why, "" where nobody said.
        time: when.
    """

    id: RequestId
    wish: Wish
    actor: Person
    origin: Person
    reason: Text
    time: Moment


_DECODER: Final = msgspec.json.Decoder(Request)


def name_of(request: Request) -> str:
    """What a command is called where it lies; names sort by time."""
    return f"{request.time}-{request.id}.json"


def read_request(data: bytes) -> Request | None:
    """A command; None for what is none."""
    if len(data) > MAX_REQUEST_BYTES:
        return None
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def trigger_of(wish: Wish, progress: Progress) -> Trigger | None:
    """What a wish does to a release as it stands; None where it cannot be followed."""
    trigger = {
        Wish.PAUSE: Trigger.PAUSE,
        Wish.PROMOTE: Trigger.PROMOTE,
        Wish.ABORT: Trigger.CLOSE if progress.state is State.FAILED else Trigger.ABORT,
        Wish.ROLLBACK: Trigger.ABORT,
        Wish.RESUME: _resuming(progress),
    }[wish]
    if not allowed(progress.state, trigger) or (trigger is Trigger.PROMOTE and progress.past_promotion):
        return None
    if progress.seq > CROWDED and wish in (Wish.PAUSE, Wish.RESUME):
        return None
    return trigger


def _resuming(progress: Progress) -> Trigger:
    if progress.state is State.FAILED:
        return Trigger.RETRY
    return Trigger.REBAKE if progress.past_promotion else Trigger.RESUME


class Mailbox(Protocol):
    """The commands for one release."""

    async def post(self, request: Request) -> None:
        """Put a command there.

        Raises:
            ResourceError, UnreachableError: it cannot be written.
        """
        ...

    async def waiting(self) -> list[Request]:
        """Commands in the order in which they were given; what is none is removed."""
        ...

    async def remove(self, request: Request) -> None:
        """The command is answered."""
        ...
