"""The console's data: HTTP over a Unix socket, which the gateway asks for the page (``gateway.console``).

::

    GET  /console/api/live       server-sent events, one document a second: figures, replicas, the release, commands
    GET  /console/api/releases   the last releases
    GET  /console/api/registry   models, versions, aliases, history
    GET  /console/api/keys       keys, without anything secret
    POST /console/api/release    {"action": "rollback", "confirmed": "rollback", "release": ID or null, "over": true,
                                  "reason": "..."}   -> 202, or 409 where that release is not the one there is now

Who may ask is decided by the gateway; the socket's mode is 0600. It runs in the process of `inferdock up`, and looks at
nothing while nobody looks at the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from inferdock.app.console.commands import Commands, read, still_meant
from inferdock.app.console.http import Feed, in_sentences, json_answer
from inferdock.app.console.live import Figurer
from inferdock.app.console.records import keys, registry
from inferdock.app.console.releases import current, releases
from inferdock.config.settings import Settings
from inferdock.domain.errors import InferdockError, ResourceError
from inferdock.keys.store import key_file
from inferdock.release.records.file_journal import FileJournals, journals_of
from inferdock.supervisor.control import bind, within_reach
from inferdock.supervisor.supervisor import View

MOST_BODY_BYTES: Final = 16 * 1024


class ConsoleBackend:
    """Answers the page's questions.

    Args:
        settings: the whole configuration.
        environment: of the platform.
        root: folder under which platforms keep their state.
        view: the present.
        commands: what the buttons do.
        http: for figures.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        environment: Mapping[str, str],
        root: Path,
        view: Callable[[], View],
        commands: Commands,
        http: aiohttp.ClientSession,
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._root = root
        self._view = view
        self._commands = commands
        self._figurer = Figurer(http, settings.cost)
        self._feed = Feed(self._document)

    def application(self) -> web.Application:
        """Its routes."""
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[in_sentences])
        app.router.add_get("/console/api/live", self._feed.answer)
        app.router.add_get("/console/api/releases", self._releases)
        app.router.add_get("/console/api/registry", self._registry)
        app.router.add_get("/console/api/keys", self._keys)
        app.router.add_post("/console/api/release", self._release)
        return app

    async def close(self) -> None:
        """Stop watching, end commands."""
        await self._feed.close()
        await self._commands.close()

    # -- Live ------------------------------------------------------------------------------------------------

    async def _document(self) -> dict[str, Any]:
        document = await self._figurer.document(self._view())
        try:
            document["release"] = await current(self._journals())
        except InferdockError as exc:
            document["release"] = {"problem": exc.message}
        document["commands"] = [one.row() for one in self._commands.past][::-1]
        return document

    # -- Records ---------------------------------------------------------------------------------------------

    def _journals(self) -> FileJournals:
        return journals_of(self._root, self._view().model)

    async def _releases(self, _: web.Request) -> web.Response:
        return json_answer(await releases(self._journals()))

    async def _registry(self, _: web.Request) -> web.Response:
        return json_answer(await asyncio.to_thread(registry, self._settings, self._environment))

    async def _keys(self, _: web.Request) -> web.Response:
        found = await asyncio.to_thread(key_file(self._settings.keys, self._root).read)
        return json_answer(keys(found, self._settings.keys.check))

    async def _release(self, request: web.Request) -> web.Response:
        wanted = read(await request.read())
        still_meant(wanted, await current(self._journals()))
        command = self._commands.begin(wanted, request.headers.get("x-inferdock-key", ""))
        return json_answer(command.row(), status=202)


@contextlib.asynccontextmanager
async def socket_place(wanted: Path) -> AsyncIterator[Path]:
    """Where the socket goes: as wanted, or in a folder of its own where the path is too long for a socket."""
    path, made = within_reach(wanted)
    try:
        yield path
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


@contextlib.asynccontextmanager
async def serving(backend: ConsoleBackend, path: Path) -> AsyncIterator[None]:
    """Answer on the socket for as long as the platform runs.

    Raises:
        ResourceError: the socket cannot be made.
    """
    try:
        listening = bind(path)
    except OSError as exc:
        raise ResourceError(
            f"The console's socket {path} cannot be made: {exc.strerror or exc}.",
            cure="Choose another folder with --state-dir, on a local disk.",
        ) from exc
    runner = web.AppRunner(backend.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await backend.close()
        await runner.cleanup()
        _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
