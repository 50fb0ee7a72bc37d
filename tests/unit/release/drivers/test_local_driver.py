"""The local driver asks a platform's control socket, and makes sense of what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from inferdock.domain.errors import ConflictError, RegistryError, ResourceError, UnreachableError
from inferdock.release.drivers.local import LocalDriver, control_session
from inferdock.release.steps import Target

NEW = Target(reference="m@1.1.0", revision="1.1.0-bb", replicas=2)
ROW = {
    "revision": "1.1.0-bb",
    "reference": "m@1.1.0",
    "wanted": 2,
    "ready": 1,
    "serves": ["http://127.0.0.1:9"],
    "problem": "it crashes",
    "retiring": False,
    "stopping": 3,
    "given_up": True,
    "more": "of a newer platform",
}


class Socket:
    """Answers each request with what the test puts here, and remembers it."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Any = {}
        self.asked: list[tuple[str, str, Any]] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path_qs, body))
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Socket]:
    socket = Socket()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", socket.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    yield socket
    await runner.cleanup()


@pytest.fixture
async def driver(socket: Socket, tmp_path: Path) -> AsyncIterator[LocalDriver]:
    async with control_session(tmp_path / "s") as http:
        yield LocalDriver(http)


async def test_a_row_is_read_with_what_stops_and_whether_waiting_is_of_use(socket: Socket, driver: LocalDriver) -> None:
    socket.answer = {"revisions": [ROW], "weights": {"1.1.0-bb": 1.0}}
    running = (await driver.observe()).revisions[0]
    assert (running.wanted, running.ready, running.stopping, running.given_up) == (2, 1, 3, True)


async def test_one_that_is_taken_away_is_neither_wanted_nor_ready(socket: Socket, driver: LocalDriver) -> None:
    socket.answer = {"revisions": [ROW | {"retiring": True}], "weights": {}}
    running = (await driver.observe()).revisions[0]
    assert (running.wanted, running.ready, running.stopping) == (0, 0, 3)


@pytest.mark.parametrize("replicas", [None, 0, 7])
async def test_room_is_asked_for_by_reference(socket: Socket, driver: LocalDriver, replicas: int | None) -> None:
    socket.answer = {"replicas": replicas, "reason": "because."}
    room = await driver.room(NEW)
    assert (room.replicas, room.reason) == (replicas, "because.")
    assert socket.asked == [("GET", "/room?reference=m@1.1.0", None)]


@pytest.mark.parametrize(
    "answer", [{}, {"replicas": -1, "reason": ""}, {"replicas": "many", "reason": ""}, []], ids=str
)
async def test_a_strange_answer_about_room_is_said(socket: Socket, driver: LocalDriver, answer: Any) -> None:
    socket.answer = answer
    with pytest.raises(UnreachableError, match="strangely"):
        await driver.room(NEW)


async def test_copies_are_asked_for_and_ended(socket: Socket, driver: LocalDriver) -> None:
    await driver.mirror("1.1.0-bb", 0.25)
    await driver.mirror(None, 0.0)
    assert socket.asked == [("PUT", "/shadow", {"revision": "1.1.0-bb", "share": 0.25}), ("PUT", "/shadow", {})]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (409, "no_spare_gpu", ResourceError),
        (422, "no_memory", ResourceError),
        (404, "unknown_revision", RegistryError),
        (409, "has_weight", ConflictError),
        (503, "gateway_silent", UnreachableError),
    ],
)
async def test_refusals_are_sorted_by_whether_waiting_helps(
    socket: Socket, driver: LocalDriver, status: int, code: str, error: type[Exception]
) -> None:
    socket.status, socket.answer = status, {"error": {"message": "Not so.", "code": code}}
    with pytest.raises(error, match="Not so"):
        await driver.mirror("1.1.0-bb", 0.25)


async def test_one_that_went_meanwhile_is_retired_and_has_no_replicas_to_set(
    socket: Socket, driver: LocalDriver
) -> None:
    socket.status, socket.answer = 404, {"error": {"message": "There is no such.", "code": "unknown_revision"}}
    await driver.retire("1.1.0-bb")
    assert socket.asked == [("DELETE", "/revisions/1.1.0-bb", None)]
    with pytest.raises(ConflictError):  # which is looked at again
        await driver.scale("1.1.0-bb", 1)


async def test_a_platform_that_is_gone_is_said(tmp_path: Path) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "none"))) as http:
        with pytest.raises(UnreachableError, match="does not answer"):
            await LocalDriver(http).room(NEW)
