"""The console at ``/console``: the page for anybody, its data for who may have it.

The page's files hold no data. Its questions, ``/console/api/*``, go on to the Unix socket of `inferdock up`
(``app.console``), since a gateway knows nothing of releases and registries. Who may ask: a key with the admin mark
where keys are checked; else only this machine, by a loopback name on a loopback address, so that neither another
machine nor a page of another site that a browser shows gets anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inferdock.domain.errors import RequestError, unavailable
from inferdock.gateway.answer import respond_error
from inferdock.gateway.auth import Authenticator, is_loopback
from inferdock.gateway.http_server import Request, Turn
from inferdock.keys.key import ANONYMOUS, Key
from inferdock.wire.http1 import Header, head, status_line

if TYPE_CHECKING:  # a worker does not load the settings' library
    from inferdock.config.settings import GatewaySettings

FOLDER: Final = Path(__file__).parents[1] / "console"
PREFIX: Final = b"/console"
API: Final = b"/console/api/"
QUESTIONS: Final = {
    (b"GET", b"/console/api/live"),
    (b"GET", b"/console/api/registry"),
    (b"GET", b"/console/api/keys"),
    (b"GET", b"/console/api/releases"),
    (b"POST", b"/console/api/release"),
}
MARK: Final = b"x-inferdock-console"
"""Header that only our own page sends: a browser lets no other site add it without asking us first."""
MAX_BODY_BYTES: Final = 16 * 1024
MAX_HEAD_BYTES: Final = 16 * 1024
_PIECE_BYTES: Final = 64 * 1024
_KINDS: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDS: Final[list[Header]] = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Console:
    """Answers what begins with ``/console``."""

    def __init__(
        self, *, auth: Authenticator, settings: Callable[[], GatewaySettings], wall_clock: Callable[[], float]
    ) -> None:
        self._auth = auth
        self._settings = settings
        self._wall_clock = wall_clock
        self._files: dict[bytes, tuple[bytes, bytes]] | None = None
        self._relays: set[asyncio.Task[None]] = set()

    def answers(self, path: bytes) -> bool:
        """Whether the path is one of ours."""
        return path == PREFIX or path.startswith(b"/console/")

    def answer(self, request: Request, turn: Turn, request_id: bytes) -> None:
        """Answer a request for which :meth:`answers` is true, now or later.

        Raises:
            RequestError: 401, 403, 404, 405, 413, 503.
        """
        if request.path.startswith(API):
            self._ask(request, turn, request_id)
        else:
            self._file(request, turn, request_id)

    # -- The page --------------------------------------------------------------------------------------------

    def _file(self, request: Request, turn: Turn, request_id: bytes) -> None:
        if request.method not in (b"GET", b"HEAD"):
            raise RequestError(405, "This route only takes GET and HEAD.", code="method_not_allowed")
        if self._files is None:
            self._files = read_files(FOLDER)
        name = request.path.removeprefix(PREFIX).removeprefix(b"/") or b"index.html"
        found = self._files.get(name)
        if found is None:
            raise RequestError(404, "The console has no such file.", code="route_not_found")
        kind, data = found
        fields = [(b"content-type", kind), *GUARDS, (b"x-request-id", request_id)]
        turn.respond(200, fields, data, bodiless=request.method == b"HEAD")

    # -- Its data --------------------------------------------------------------------------------------------

    def _ask(self, request: Request, turn: Turn, request_id: bytes) -> None:
        key = self._admit(request)
        if (request.method, request.path) not in QUESTIONS:
            raise RequestError(404, "The console asks nothing of this kind.", code="route_not_found")
        if len(request.body) > MAX_BODY_BYTES:
            raise RequestError(413, f"The body is longer than {MAX_BODY_BYTES} bytes.", code="too_large")
        socket = self._settings().console_socket
        if socket is None:
            raise _nobody("This gateway runs alone: the console's figures come from `inferdock up`.")
        relay = Relay(turn, request_id, os.fspath(socket))
        task = asyncio.get_running_loop().create_task(relay.run(request, key))
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        turn.listener = relay
        relay.task = task

    def _admit(self, request: Request) -> Key:
        """Let in who may see how the platform is."""
        if request.header(MARK) is None:
            raise RequestError(403, "Only the console's own page may ask this.", code="not_the_console")
        host, origin = request.header(b"host") or b"", request.header(b"origin")
        if origin is not None and origin.partition(b"://")[2] != host:
            raise RequestError(403, "A page of another site may not ask this.", code="foreign_origin")
        if self._auth.enabled:
            key = self._auth.authenticate(
                request.header(b"authorization"), request.header(b"x-api-key"), self._wall_clock()
            )
            if not key.admin:
                raise RequestError(
                    403, "This key has no admin mark: make one with `inferdock keys create --admin`.", code="not_admin"
                )
            return key
        if not is_loopback(self._settings().host) or not _names_this_machine(host):
            raise RequestError(
                403,
                "Without keys the console only answers on this machine: make a key with `inferdock keys create "
                "--admin`, or open it as http://127.0.0.1:PORT/console.",
                code="keys_needed",
            )
        return ANONYMOUS


class Relay:
    """Hands one question to the platform, and its answer to the page, piece by piece.

    Attributes:
        task: that runs it.
    """

    def __init__(self, turn: Turn, request_id: bytes, socket: str) -> None:
        self._turn = turn
        self._request_id = request_id
        self._socket = socket
        self._may_read = asyncio.Event()
        self._may_read.set()
        self.task: asyncio.Task[None] | None = None

    def client_gone(self) -> None:
        """The page was closed."""
        if self.task is not None:
            self.task.cancel()

    def pause(self) -> None:
        """The page reads slowly."""
        self._may_read.clear()

    def resume(self) -> None:
        """It reads again."""
        self._may_read.set()

    async def run(self, request: Request, key: Key) -> None:
        """Ask and answer; whatever goes wrong is said to the page."""
        begun = False
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=MAX_HEAD_BYTES)
            writer.write(_question(request, key))
            status, kind = _read_head(await reader.readuntil(b"\r\n\r\n"))
            begun = True
            self._begin(status, kind)
            while piece := await reader.read(_PIECE_BYTES):
                await self._may_read.wait()
                self._turn.write(piece)
            self._turn.finish()
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            if begun:
                self._turn.abort()
            else:
                respond_error(self._turn, _nobody("The platform does not answer the console."), self._request_id)
        finally:
            if writer is not None:
                with contextlib.suppress(OSError):
                    writer.close()

    def _begin(self, status: int, kind: bytes) -> None:
        """The body ends with the connection, so that it need not be framed anew."""
        self._turn.keep_alive = False
        fields = [(b"content-type", kind), *GUARDS, (b"x-request-id", self._request_id), (b"connection", b"close")]
        self._turn.write(head(status_line(status), fields))


def read_files(folder: Path) -> dict[bytes, tuple[bytes, bytes]]:
    """Name to type and bytes of each file of the page."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in _KINDS:
            found[path.name.encode()] = (_KINDS[path.suffix], path.read_bytes())
    return found


def _question(request: Request, key: Key) -> bytes:
    """HTTP/1.0, so that the answer ends with the connection. A key's id holds letters and digits only."""
    lines = (
        b"%b %b HTTP/1.0\r\nhost: console\r\ncontent-type: application/json\r\nx-inferdock-key: %b\r\n"
        b"content-length: %d\r\n\r\n"
    )
    return lines % (request.method, request.path, key.id.encode(), len(request.body)) + request.body


def _read_head(data: bytes) -> tuple[int, bytes]:
    """Status and content type.

    Raises:
        ValueError: it is no answer.
    """
    lines = data.split(b"\r\n")
    parts = lines[0].split(b" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise ValueError("no status")
    fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
    return int(parts[1]), fields.get(b"content-type", b"application/json")


def _names_this_machine(host: bytes) -> bool:
    """Whether a Host header names a loopback address; any other name may be one that somebody else's DNS gave."""
    name = host.decode("latin-1")
    if name.startswith("["):
        return is_loopback(name[1:].partition("]")[0])
    return is_loopback(name.partition(":")[0])


def _nobody(message: str) -> RequestError:
    return unavailable(message, code="console_unavailable", retry_after_s=2)
