"""The control socket of a running platform: HTTP over ``control.sock``, for those who drive a release.

::

    GET    /revisions             all revisions, their replicas, and their shares of the requests
    PUT    /revisions             {"reference": "name@1.1.0" or a path, "replicas": 1}    -> 202 {"revision": ...}
    PATCH  /revisions/{revision}  {"replicas": 2}                                         -> 202
    DELETE /revisions/{revision}                                                          -> 202; again: the same
    GET    /room?reference=name@1.1.0   {"replicas": how many more of it could start now, "reason": a sentence}
    PUT    /weights               {"1.0.0-3f2a...": 0.9, "1.1.0-77c0...": 0.1}            -> 200, the gateway obeys
    PUT    /shadow                {"revision": "1.1.0-77c0...", "share": 0.1}; {}: none   -> 200, the gateway obeys

Every refusal is ``{"error": {"message": a sentence, "code": a word}}`` with 400 (the request makes no sense), 404 (no
such revision), 409 (not now: ``no_spare_gpu``, ``has_weight``, ``last_revision``, ``retiring``, ...), 422 (it cannot be
served: ``no_memory``, ``bad_model``, ``not_found``) or 503. Only the user who started the platform may connect: the
socket's mode is 0600. Paths are those of the platform, not of who asks; give absolute ones.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from aiohttp import web

from inferdock.domain.errors import InferdockError, RegistryError, RequestError, ResourceError, UnreachableError
from inferdock.domain.shadow import Shadow
from inferdock.supervisor.revisions import MOST_REPLICAS, MOST_REVISIONS

MOST_BODY_BYTES = 64 * 1024
LONGEST_PATH = 107
"""Bytes of a Unix socket's path, by ``sun_path`` in unix(7): 108 with a zero at the end."""
_CLOSE_S = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
Weight = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Weights = Annotated[dict[str, Weight], msgspec.Meta(max_length=MOST_REVISIONS)]


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /revisions``."""

    reference: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    replicas: Annotated[int, msgspec.Meta(ge=1, le=MOST_REPLICAS)] = 1


class Count(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PATCH /revisions/{revision}``; with 0 the revision stays known, and starts quickly again."""

    replicas: Annotated[int, msgspec.Meta(ge=0, le=MOST_REPLICAS)]


class Copies(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /shadow``: which share of the requests another revision answers as well; empty: none."""

    revision: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)] | None = None
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


_COPIES = msgspec.json.Decoder(Copies)
_WANTED = msgspec.json.Decoder(Wanted)
_COUNT = msgspec.json.Decoder(Count)
_WEIGHTS: msgspec.json.Decoder[Mapping[str, float]] = msgspec.json.Decoder(Weights)


class Platform(Protocol):
    """What the socket shows and moves: ``supervisor.revisions``."""

    def rows(self) -> dict[str, Any]:
        """All revisions."""

    async def room(self, reference: str) -> dict[str, Any]:
        """How many more replicas of a revision could start now; null where nothing limits them."""

    async def put(self, reference: str, replicas: int) -> str:
        """Have so many replicas of a revision, which may be new."""

    def scale(self, revision: str, replicas: int) -> None:
        """Have so many replicas of one that is there."""

    def retire(self, revision: str) -> None:
        """Take one away."""

    async def weigh(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Divide requests."""

    async def mirror(self, shadow: Shadow | None) -> None:
        """Copy requests."""


class Control:
    """The socket.

    Attributes:
        path: where it is; in a folder of its own where the state folder's path is too long for a socket.
    """

    def __init__(self, platform: Platform, wanted: Path) -> None:
        """Nothing listens yet; ``wanted`` is where the socket should be."""
        self.path = wanted
        self._platform = platform
        self._made: Path | None = None
        self._runner: web.AppRunner | None = None

    async def listen(self) -> None:
        """Begin.

        Raises:
            ResourceError: the socket cannot be made.
        """
        try:
            self.path, self._made = within_reach(self.path)
            listening = bind(self.path)
        except OSError as exc:
            self._remove()
            raise ResourceError(
                f"The control socket {self.path} cannot be made: {exc.strerror or exc}.",
                cure="Choose another folder with --state-dir, on a local disk.",
            ) from exc
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[_in_sentences])
        app.router.add_get("/revisions", self._show)
        app.router.add_put("/revisions", self._put)
        app.router.add_patch("/revisions/{revision}", self._scale)
        app.router.add_delete("/revisions/{revision}", self._retire)
        app.router.add_get("/room", self._room)
        app.router.add_put("/weights", self._weigh)
        app.router.add_put("/shadow", self._mirror)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_S)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def close(self) -> None:
        """Stop; nothing is left of it."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)

    async def _show(self, _: web.Request) -> web.Response:
        return web.json_response(self._platform.rows())

    async def _room(self, request: web.Request) -> web.Response:
        reference = request.query.get("reference", "")
        if not reference or not reference.isprintable():
            raise RequestError(400, "Ask for /room?reference=NAME@VERSION.", code="bad_request")
        return web.json_response(await self._platform.room(reference))

    async def _put(self, request: web.Request) -> web.Response:
        wanted = await _body(request, _WANTED)
        if not wanted.reference.isprintable():
            raise RequestError(400, "The reference holds characters that no name or path has.", code="bad_request")
        revision = await self._platform.put(wanted.reference, wanted.replicas)
        return web.json_response({"revision": revision}, status=202)

    async def _scale(self, request: web.Request) -> web.Response:
        count = await _body(request, _COUNT)
        self._platform.scale(request.match_info["revision"], count.replicas)
        return web.json_response({"revision": request.match_info["revision"]}, status=202)

    async def _retire(self, request: web.Request) -> web.Response:
        self._platform.retire(request.match_info["revision"])
        return web.json_response({"revision": request.match_info["revision"]}, status=202)

    async def _weigh(self, request: web.Request) -> web.Response:
        return web.json_response({"weights": await self._platform.weigh(await _body(request, _WEIGHTS))})

    async def _mirror(self, request: web.Request) -> web.Response:
        asked = await _body(request, _COPIES)
        try:
            shadow = Shadow(asked.revision, asked.share) if asked.revision is not None else None
        except ValueError as exc:
            raise RequestError(400, f"This cannot be copied: {exc}.", code="bad_request") from exc
        await self._platform.mirror(shadow)
        return web.json_response({"shadow": msgspec.to_builtins(shadow)})


def within_reach(wanted: Path) -> tuple[Path, Path | None]:
    """Where a socket goes, and the folder that was made for it where the wanted path is too long for one."""
    if len(os.fsencode(wanted)) <= LONGEST_PATH:
        return wanted, None
    made = Path(tempfile.mkdtemp(prefix="inferdock-"))  # mode 0700
    return made / wanted.name, made


def bind(path: Path) -> socket.socket:
    """A listening socket that is its owner's alone from its first moment on.

    What lies there is of a platform that was killed: who calls holds the lock of the folder.
    """
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(os.fspath(path))
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(before)
    listening.setblocking(False)
    return listening


async def _body(request: web.Request, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        reason = "too deeply nested" if isinstance(exc, RecursionError) else str(exc)
        raise RequestError(400, f"The body is not what is asked for here: {reason}.", code="bad_request") from exc


@web.middleware
async def _in_sentences(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as exc:
        return _refusal(exc.status, str(exc), exc.code or "refused")
    except UnreachableError as exc:
        return _refusal(503, str(exc), "unreachable")
    except InferdockError as exc:
        return _refusal(422, str(exc), "not_found" if isinstance(exc, RegistryError) else "bad_model")
    except web.HTTPRequestEntityTooLarge:
        return _refusal(413, f"The body is longer than {MOST_BODY_BYTES} bytes.", "bad_request")
    except web.HTTPException as exc:
        return _refusal(exc.status, f"{request.method} {request.path[:200]} is not asked here.", "no_such_route")


def _refusal(status: int, message: str, code: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": code}}, status=status)
