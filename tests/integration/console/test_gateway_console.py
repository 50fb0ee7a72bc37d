"""Who gets what under ``/console``: the page, and answers of the platform behind a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from inferdock.config.settings import KeysSettings
from inferdock.gateway.console import FOLDER, QUESTIONS
from inferdock.keys.store import KeyFile
from inferdock.telemetry import names
from tests.support.gateway import running_gateway

pytestmark = pytest.mark.timeout(60)
OURS = {"x-inferdock-console": "1"}
ALL = sorted((method.decode(), path.decode()) for method, path in QUESTIONS)


@contextlib.asynccontextmanager
async def platform(path: Path, answer: bytes) -> AsyncIterator[list[bytes]]:
    """What is asked at the socket; everything is answered alike."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        asked.append(head + await reader.readexactly(int(length[1]) if length else 0))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield asked
    finally:
        server.close()


GOOD = b'HTTP/1.0 200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\n\r\n{"fine":true}'


async def status(http: aiohttp.ClientSession, method: str, url: str, **headers: str) -> tuple[int, str]:
    async with http.request(method, url, headers=headers) as response:
        body = await response.json(content_type=None) if response.content_type == "application/json" else {}
        return response.status, body.get("error", {}).get("code", "")


async def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing_inline() -> None:
    async with running_gateway([]) as gateway, aiohttp.ClientSession() as http:
        for name in ("", "/", *(f"/{path.name}" for path in FOLDER.iterdir())):
            async with http.get(f"{gateway.url}/console{name}") as response:
                assert response.status == 200
                policy = response.headers["content-security-policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
                assert "unsafe" not in policy
                assert response.headers["x-content-type-options"] == "nosniff"
                text = await response.text()
                assert not re.search(r"(src|href)=\"(?!/console|#)|<script>|style=|https?://(?!www\.w3\.org)", text)


@pytest.mark.parametrize("path", ["/console/../admin/status", "/console/no.js", "/console/%2e%2e/x", "/console/api"])
async def test_files_that_are_not_of_the_page_are_not_found(path: str) -> None:
    async with running_gateway([]) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in (await reader.read()).split(b"\r\n")[0]
        writer.close()


async def test_questions_go_on_and_only_our_own_headers_come_back(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    async with (
        platform(socket, GOOD) as asked,
        running_gateway([], console_socket=socket) as gateway,
        aiohttp.ClientSession() as http,
    ):
        async with http.post(f"{gateway.url}/console/api/release", headers=OURS, data=b"{}") as response:
            assert (response.status, await response.json()) == (200, {"fine": True})
            assert "set-cookie" not in response.headers
        assert asked[0].startswith(b"POST /console/api/release HTTP/1.0\r\n")
        assert asked[0].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(("method", "path"), ALL)
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "not_the_console"),
        ({**OURS, "Origin": "http://evil.example"}, "foreign_origin"),
        ({**OURS, "Origin": "null"}, "foreign_origin"),
        ({**OURS, "Host": "evil.example"}, "keys_needed"),
        ({**OURS, "Host": "evil.example", "Origin": "http://evil.example"}, "keys_needed"),
        ({**OURS, "Host": "127.0.0.1.evil.example"}, "keys_needed"),
    ],
    ids=["plain", "foreign", "opaque", "rebound", "rebound-origin", "lookalike"],
)
async def test_pages_of_other_sites_get_nothing(
    tmp_path: Path, method: str, path: str, headers: dict[str, str], code: str
) -> None:
    socket = tmp_path / "s"
    async with platform(socket, GOOD) as asked, running_gateway([], console_socket=socket) as gateway:
        async with aiohttp.ClientSession() as http:
            assert await status(http, method, f"{gateway.url}{path}", **headers) == (403, code)
        assert asked == []


async def test_without_keys_other_machines_get_nothing_whatever_name_they_give(tmp_path: Path) -> None:
    keys = KeysSettings(check="never", allow_unauthenticated=True)
    async with (
        running_gateway([], console_socket=tmp_path / "s", host="0.0.0.0", keys=keys) as gateway,
        aiohttp.ClientSession() as http,
    ):
        url = f"{gateway.url}/console/api/live"
        assert await status(http, "GET", url, **OURS, Host="127.0.0.1") == (403, "keys_needed")


@pytest.mark.parametrize(("method", "path"), ALL)
async def test_with_keys_only_an_admin_key_gets_an_answer(tmp_path: Path, method: str, path: str) -> None:
    file, now, socket = KeyFile(tmp_path / "keys.jsonl"), time.time(), tmp_path / "s"
    plain, admin = (file.create(name=name, now=now, admin=name == "boss") for name in ("plain", "boss"))
    file.create(name="gone", now=now, admin=True)
    async with (
        platform(socket, GOOD) as asked,
        running_gateway([], console_socket=socket, keys=KeysSettings(file=file.path)) as gateway,
        aiohttp.ClientSession() as http,
    ):
        url = f"{gateway.url}{path}"
        assert await status(http, method, url, **OURS) == (401, "invalid_api_key")
        assert await status(http, method, url, **OURS, authorization="Bearer nonsense") == (401, "invalid_api_key")
        assert await status(http, method, url, **OURS, authorization=f"Bearer {plain[1]}") == (403, "not_admin")
        assert asked == []
        assert (await status(http, method, url, **OURS, authorization=f"Bearer {admin[1]}"))[0] == 200
        assert f"x-inferdock-key: {admin[0].id}\r\n".encode() in asked[0]
        assert admin[1].encode() not in asked[0]


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.0 x y\r\n\r\n", b"a" * 100_000])
async def test_a_platform_that_makes_no_sense_is_said_so(tmp_path: Path, answer: bytes) -> None:
    socket = tmp_path / "s"
    async with (
        platform(socket, answer),
        running_gateway([], console_socket=socket) as gateway,
        aiohttp.ClientSession() as http,
    ):
        url = f"{gateway.url}/console/api/keys"
        assert await status(http, "GET", url, **OURS) == (503, "console_unavailable")


async def test_a_gateway_that_runs_alone_says_so(tmp_path: Path) -> None:
    for socket in (None, tmp_path / "nobody"):
        async with running_gateway([], console_socket=socket) as gateway, aiohttp.ClientSession() as http:
            url = f"{gateway.url}/console/api/live"
            assert await status(http, "GET", url, **OURS) == (503, "console_unavailable")


async def test_what_is_not_asked_is_refused(tmp_path: Path) -> None:
    async with running_gateway([], console_socket=tmp_path / "s") as gateway, aiohttp.ClientSession() as http:
        for method, path, expected in (
            ("GET", "/console/api/release", 404),
            ("POST", "/console/api/live", 404),
            ("GET", "/console/api/secrets", 404),
            ("POST", "/console", 405),
            ("GET", "/consoles", 404),
        ):
            assert (await status(http, method, f"{gateway.url}{path}", **OURS))[0] == expected
        async with http.post(f"{gateway.url}/console/api/release", headers=OURS, data=b"x" * 20_000) as response:
            assert response.status == 413


async def test_figures_of_the_platform_come_in_by_the_admin_port_and_out_in_metrics() -> None:
    good = {"name": names.RELEASE_WEIGHT, "labels": ["m", "r1"], "value": 0.25}
    async with running_gateway([]) as gateway, aiohttp.ClientSession() as http:
        url = f"{gateway.admin_url}/admin/figures"
        async with http.put(url, json={"figures": [good]}) as response:
            assert response.status == 200
        for wrong in ({**good, "name": "made_up"}, {**good, "labels": ["m"]}, {**good, "value": "x"}):
            async with http.put(url, json={"figures": [wrong]}) as response:
                assert response.status == 400
        async with http.get(f"{gateway.url}/metrics") as response:
            assert f'{names.RELEASE_WEIGHT}{{model="m",revision="r1"}} 0.25' in await response.text()
