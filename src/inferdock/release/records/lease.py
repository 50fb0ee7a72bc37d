"""One runner at a time: whoever changes a release holds the platform's lease.

The local one is a lock of the kernel on a file, which ends with its holder however that ends. A lease in a cluster
(`cluster_lease`) has to be renewed and can be lost, so the runner asks :meth:`Lease.check` before each action.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from inferdock.domain.errors import ConflictError, ResourceError

HOLDER_BYTES: Final = 500
"""Of the text that says who holds it; as much as a message shows."""


class Lease(Protocol):
    """The right to change one platform's release."""

    async def acquire(self, holder: str, *, patient: bool = False) -> None:
        """Take it.

        Args:
            holder: who; shown to the others.
            patient: wait until it is certain that who holds it is alive; without, whoever held it last counts as such.

        Raises:
            ConflictError: somebody else holds it; the message names them.
        """
        ...

    async def check(self) -> None:
        """Go on only while it is ours; waits while nobody can tell.

        Raises:
            ConflictError: it was lost.
        """
        ...

    async def release(self) -> None:
        """Give it back; nothing happens when it is not held."""
        ...


class FileLease:
    """A lock on a file. The file stays: were it removed, two could hold two files of one name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    async def acquire(self, holder: str, *, patient: bool = False) -> None:
        """Take the lock and write down who has it; the kernel knows who is alive.

        Raises:
            ConflictError: somebody else has it.
            ResourceError: the file cannot be locked.
        """
        if self._file is not None:
            raise ConflictError("This process holds the lease already.")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError as exc:
            raise _trouble(self._path, exc) from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, holder.encode("utf-8", "replace")[:HOLDER_BYTES], 0)
        except BlockingIOError:
            who = _holder(file)
            os.close(file)
            raise taken_by(who) from None
        except OSError as exc:
            os.close(file)
            raise _trouble(self._path, exc) from exc
        self._file = file

    async def check(self) -> None:
        """See that the file we have locked is still the one that others would lock.

        Raises:
            ConflictError: somebody removed or replaced it.
        """
        if self._file is None:
            raise ConflictError("The lease is not held.")
        with contextlib.suppress(OSError):
            mine, there = os.fstat(self._file), os.stat(self._path, follow_symlinks=False)
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                return
        raise ConflictError(
            f"The lease {self._path} was removed while it was held.", cure="Resume the release; leave the file alone."
        )

    def held_by(self) -> str | None:
        """Who holds it, in their words; None when nobody does. For those who only look."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(file)
        except OSError:
            return None
        finally:
            os.close(file)
        return None

    async def release(self) -> None:
        """Let the lock go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _holder(file: int) -> str:
    """What the holder says of itself; anything may be in the file."""
    with contextlib.suppress(OSError):
        text = os.pread(file, HOLDER_BYTES, 0).decode("utf-8", "replace")
        return shown(text)
    return shown("")


def shown(holder: str) -> str:
    """What a holder says of itself, fit to be printed."""
    return "".join(c if c.isprintable() else "?" for c in holder[:HOLDER_BYTES]) or "somebody else"


def taken_by(holder: str) -> ConflictError:
    """The error for a lease that somebody has."""
    return ConflictError(
        f"A release is being worked on by {holder}.", cure="Wait for it, or give it a command: pause, abort."
    )


def _trouble(path: Path, exc: OSError) -> ResourceError:
    return ResourceError(
        f"The lease {path} cannot be taken: {exc.strerror or exc}.", cure="Check its owner, or choose another folder."
    )
