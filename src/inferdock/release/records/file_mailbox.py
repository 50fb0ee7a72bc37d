"""Commands for a release as files in a folder."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import msgspec

from inferdock.domain.errors import ResourceError
from inferdock.release.records.mailbox import MAX_REQUEST_BYTES, MAX_REQUESTS, NAME, Request, name_of, read_request


class FileMailbox:
    """The commands for one release, each a file that is put there whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def post(self, request: Request) -> None:
        """See `mailbox.Mailbox`."""
        self.put(request)

    def put(self, request: Request) -> None:
        """The same as :meth:`post`, for who has no loop."""
        name = name_of(request)
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

    async def waiting(self) -> list[Request]:
        """See `mailbox.Mailbox`."""
        try:
            names = sorted(name for name in os.listdir(self._folder) if NAME.fullmatch(name))
        except OSError:
            return []
        return [request for name in names[:MAX_REQUESTS] if (request := self._read(self._folder / name)) is not None]

    async def remove(self, request: Request) -> None:
        """See `mailbox.Mailbox`."""
        with contextlib.suppress(OSError):
            (self._folder / name_of(request)).unlink()

    def _read(self, path: Path) -> Request | None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            regular = stat.S_ISREG(os.fstat(file).st_mode)
            data = os.read(file, MAX_REQUEST_BYTES + 1) if regular else b""
            request = read_request(data)
            if request is not None and path.name == name_of(request):
                return request
        except OSError:
            pass
        finally:
            os.close(file)
        with contextlib.suppress(OSError):
            path.unlink()
        return None
