"""Commands for a release that another process is running: files in a folder, put there whole, taken by the runner.

The answer is an event of the journal with the command's id. A file is removed after its answer is on disk; if the
runner dies between the two, the one that takes over finds the id in the journal and only removes the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from inferdock.domain.errors import ResourceError
from inferdock.release.events import CROWDED, Moment, Person, RequestId
from inferdock.release.machine import State, Trigger, allowed
from inferdock.release.progress import Progress
from inferdock.release.steps import Text

MAX_REQUEST_BYTES: Final = 16 * 1024
MAX_REQUESTS: Final = 100
"""Looked at in one go."""
_NAME: Final = re.compile(r"[0-9TZ:.-]{1,40}-[0-9a-f]{32}\.json", re.ASCII)


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


class Mailbox:
    """The commands for one release."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def post(self, request: Request) -> None:
        """Put a command there.

        Raises:
            ResourceError: it cannot be written.
        """
        name = f"{request.time}-{request.id}.json"
        draft = self._folder / f".{request.id}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(request))
            draft.rename(self._folder / name)
        except OSError as exc:
            raise ResourceError(
                f"The command cannot be left in {self._folder}: {exc.strerror or exc}.", cure="Check its owner."
            ) from exc

    def waiting(self) -> list[Request]:
        """Commands in the order in which they were given; what is none is removed."""
        try:
            names = sorted(name for name in os.listdir(self._folder) if _NAME.fullmatch(name))
        except OSError:
            return []
        return [request for name in names[:MAX_REQUESTS] if (request := self._read(self._folder / name)) is not None]

    def remove(self, request: Request) -> None:
        """The command is answered."""
        with contextlib.suppress(OSError):
            (self._folder / f"{request.time}-{request.id}.json").unlink()

    def _read(self, path: Path) -> Request | None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            regular = stat.S_ISREG(os.fstat(file).st_mode)
            data = os.read(file, MAX_REQUEST_BYTES + 1) if regular else b""
            request = _DECODER.decode(data)
            if path.name == f"{request.time}-{request.id}.json":
                return request
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        finally:
            os.close(file)
        with contextlib.suppress(OSError):
            path.unlink()
        return None
