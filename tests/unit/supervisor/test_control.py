"""The control socket: what it takes, what it refuses and how, and that nobody else may use it."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import aiohttp
import pytest

from inferdock.domain.errors import (
    IntegrityError,
    ModelError,
    RegistryError,
    RequestError,
    ResourceError,
    UnreachableError,
)
from inferdock.domain.shadow import Shadow
from inferdock.supervisor.control import MOST_BODY_BYTES, Control


class FakePlatform:
    """Remembers what it was asked, and raises what the test says."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []
        self.raises: Exception | None = None

    def _ask(self, *what) -> None:
        self.asked.append(what)
        if self.raises is not None:
            raise self.raises

    def rows(self) -> dict:
        return {"model": "m", "revisions": [], "weights": {}}

    async def room(self, reference: str) -> dict:
        self._ask("room", reference)
        return {"replicas": 1, "reason": "because"}

    async def put(self, reference: str, replicas: int) -> str:
        self._ask("put", reference, replicas)
        return "1.1.0-abc"

    def scale(self, revision: str, replicas: int) -> None:
        self._ask("scale", revision, replicas)

    def retire(self, revision: str) -> None:
        self._ask("retire", revision)

    async def weigh(self, weights) -> dict:
        self._ask("weigh", dict(weights))
        return {"a": 1.0}

    async def mirror(self, shadow: Shadow | None) -> None:
        self._ask("mirror", shadow)


class Stage:
    """A socket, and a client of it."""

    def __init__(self, wanted: Path) -> None:
        self.platform = FakePlatform()
        self.control = Control(self.platform, wanted)

    async def ask(self, method: str, path: str, body: bytes | object = b"") -> tuple[int, dict]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connector = aiohttp.UnixConnector(str(self.control.path))
        async with aiohttp.ClientSession(connector=connector) as http:
            async with http.request(method, f"http://up{path}", data=data) as response:
                return response.status, await response.json()


@pytest.fixture
async def stage(tmp_path):
    one = Stage(tmp_path / "control.sock")
    await one.control.listen()
    yield one
    await one.control.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "asked"),
    [
        ("GET", "/revisions", b"", 200, []),
        ("PUT", "/revisions", {"reference": "m@1.1.0", "replicas": 2}, 202, [("put", "m@1.1.0", 2)]),
        ("PUT", "/revisions", {"reference": "/a folder/ü"}, 202, [("put", "/a folder/ü", 1)]),
        ("PATCH", "/revisions/1.0.0-abc", {"replicas": 0}, 202, [("scale", "1.0.0-abc", 0)]),
        ("DELETE", "/revisions/1.0.0-rc.1-abc", b"", 202, [("retire", "1.0.0-rc.1-abc")]),
        ("GET", "/room?reference=m%401.1.0", b"", 200, [("room", "m@1.1.0")]),
        ("PUT", "/weights", {"a": 1, "b": 0.5}, 200, [("weigh", {"a": 1.0, "b": 0.5})]),
        ("PUT", "/shadow", {"revision": "b", "share": 0.1}, 200, [("mirror", Shadow("b", 0.1))]),
        ("PUT", "/shadow", {}, 200, [("mirror", None)]),
        ("PUT", "/shadow", {"revision": None}, 200, [("mirror", None)]),
    ],
)
async def test_each_question_reaches_the_platform(stage, method, path, body, status, asked):
    assert (await stage.ask(method, path, body))[0] == status
    assert stage.platform.asked == asked


HOSTILE = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"reference": "\xff"}',
    "deep": b'{"reference": ' + b"[" * 50_000,
    "a list": b"[]",
    "null": b"null",
    "unknown key": b'{"reference": "m", "replica": 2}',
    "no reference": b'{"replicas": 1}',
    "empty reference": b'{"reference": ""}',
    "a number": b'{"reference": 5}',
    "a control character": b'{"reference": "a\\u0000b"}',
    "long": json.dumps({"reference": "a" * 5000}).encode(),
    "no replicas": b'{"reference": "m", "replicas": 0}',
    "many replicas": b'{"reference": "m", "replicas": 65}',
    "true replicas": b'{"reference": "m", "replicas": true}',
    "half a replica": b'{"reference": "m", "replicas": 1.5}',
    "a huge number": b'{"reference": "m", "replicas": ' + b"9" * 6000 + b"}",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_a_body_that_makes_no_sense_is_a_sentence(stage, body):
    status, answer = await stage.ask("PUT", "/revisions", body)
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert answer["error"]["message"].endswith(".")
    assert stage.platform.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'{"a": -1}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1e9}',
        b'{"a": "1"}',
        b'{"a": true}',
        json.dumps({f"r{n}": 1 for n in range(9)}).encode(),
    ],
    ids=["a list", "negative", "not a number", "infinite", "huge", "text", "true", "too many"],
)
async def test_weights_that_are_none_are_refused(stage, body):
    status, answer = await stage.ask("PUT", "/weights", body)
    assert (status, answer["error"]["code"], stage.platform.asked) == (400, "bad_request", [])


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'{"revision": "b"}',
        b'{"revision": "b", "share": 0}',
        b'{"revision": "b", "share": 1.1}',
        b'{"revision": "b", "share": NaN}',
        b'{"revision": "", "share": 0.1}',
        b'{"revision": 5, "share": 0.1}',
        b'{"revision": "b", "shares": 0.1}',
    ],
    ids=["a list", "null", "no share", "nothing", "too much", "no number", "nobody", "a number", "unknown key"],
)
async def test_shadows_that_are_none_are_refused(stage, body):
    status, answer = await stage.ask("PUT", "/shadow", body)
    assert (status, answer["error"]["code"], stage.platform.asked) == (400, "bad_request", [])


async def test_a_body_beyond_the_limit_is_not_read(stage):
    status, answer = await stage.ask("PUT", "/revisions", b" " * (MOST_BODY_BYTES + 1))
    assert (status, answer["error"]["code"]) == (413, "bad_request")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/weights", 405), ("POST", "/revisions", 405), ("DELETE", "/revisions/a/b", 404)],
)
async def test_what_is_not_asked_here_is_a_sentence_too(stage, method, path, status):
    found, answer = await stage.ask(method, path)
    assert (found, answer["error"]["code"]) == (status, "no_such_route")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError(409, "No.", code="no_spare_gpu"), 409, "no_spare_gpu"),
        (ModelError("No.", cure="Do."), 422, "bad_model"),
        (IntegrityError("No."), 422, "bad_model"),
        (RegistryError("No."), 422, "not_found"),
        (UnreachableError("No."), 503, "unreachable"),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, Exception) else str(value),
)
async def test_a_refusal_says_why_and_has_a_word_for_programs(stage, error, status, code):
    stage.platform.raises = error
    found, answer = await stage.ask("PUT", "/revisions", {"reference": "m"})
    assert (found, answer) == (status, {"error": {"message": str(error), "code": code}})


async def test_bytes_that_are_no_http_end_the_connection_only(stage):
    reader, writer = await asyncio.open_unix_connection(str(stage.control.path))
    writer.write(b"\x00\xff" * 100 + b"\r\n\r\n")
    await writer.drain()
    assert b" 400 " in (await reader.read()).partition(b"\r\n")[0]
    writer.close()
    assert (await stage.ask("GET", "/revisions"))[0] == 200


async def test_the_socket_is_its_owners_alone_and_gone_at_the_end(stage):
    assert stat.S_IMODE(stage.control.path.stat().st_mode) == 0o600
    await stage.control.close()
    assert not stage.control.path.exists()


async def test_what_a_killed_platform_left_is_replaced(tmp_path):
    first, second = Stage(tmp_path / "control.sock"), Stage(tmp_path / "control.sock")
    await first.control.listen()
    await second.control.listen()
    assert (await second.ask("GET", "/revisions"))[0] == 200
    await second.control.close()
    await first.control.close()


async def test_where_the_path_is_too_long_it_lies_in_a_folder_of_its_own_which_goes_with_it(tmp_path):
    folder = tmp_path / ("ü" * 100)
    folder.mkdir()
    one = Stage(folder / "control.sock")
    await one.control.listen()
    made = one.control.path.parent
    assert (made != folder, stat.S_IMODE(made.stat().st_mode)) == (True, 0o700)
    assert (await one.ask("GET", "/revisions"))[0] == 200
    await one.control.close()
    assert not made.exists()


async def test_a_socket_that_cannot_be_made_is_one_sentence_with_its_cure(tmp_path):
    one = Stage(tmp_path / "nowhere" / "control.sock")
    (tmp_path / "before").touch()
    with pytest.raises(ResourceError, match="cannot be made") as caught:
        await one.control.listen()
    assert "--state-dir" in caught.value.cure
    (tmp_path / "after").touch()  # files that others make have the mode that they had
    assert (tmp_path / "after").stat().st_mode == (tmp_path / "before").stat().st_mode
