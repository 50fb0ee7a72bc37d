"""``inferdock status`` against running platforms: the console's data, real terminals, every way to have no answer."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from inferdock.cli.main import cli
from inferdock.domain.errors import InferdockError, ResourceError, UnreachableError
from tests.support.gateway import running_gateway
from tests.support.platform import Platform
from tests.support.viewer import Viewer

pytestmark = pytest.mark.timeout(180)
CONFIG = "{engine: {sim: {itl_s: 0.001}}, cost: {cost_per_hour: 1.2}, cache: {enabled: true}}\n"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Two simulated replicas, the same for all tests here."""
    folder = tmp_path_factory.mktemp("status")
    (folder / "inferdock.yaml").write_text(CONFIG)
    found = Platform(folder, "-f", str(folder / "inferdock.yaml"), "--engine", "sim", "--replicas", "2")
    found.wait_until_ready(2, within_s=60)
    asyncio.run(ask(found, 6))
    yield found
    assert found.stop() == 0


async def ask(platform: Platform, times: int) -> None:
    messages = [{"role": "user", "content": "What is a canary?"}]
    body = {"model": platform.state["model"], "messages": messages, "max_tokens": 20, "temperature": 0}
    async with aiohttp.ClientSession() as http:
        for _ in range(times):
            async with http.post(f"{platform.url}/v1/chat/completions", json=body) as response:
                assert response.status == 200


async def console_looks(platform: Platform, number: int) -> list[dict[str, Any]]:
    """What the console's page gets, through the gateway like the page."""
    found: list[dict[str, Any]] = []
    url = f"{platform.url}/console/api/live"
    async with (
        aiohttp.ClientSession() as http,
        http.get(url, headers={"x-inferdock-console": "1"}) as response,
    ):
        async for line in response.content:
            if line.startswith(b"data: "):
                found.append(json.loads(line.removeprefix(b"data: ")))
                if len(found) == number:
                    break
    return found


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["status", *arguments])


def of(platform: Platform, *arguments: str) -> Result:
    return run("--state-dir", str(platform.state_dir), *arguments)


# -- The same as the console ---------------------------------------------------------------------------------------


async def test_json_is_what_the_console_shows_at_the_same_moment_under_load(platform: Platform) -> None:
    command = [sys.executable, "-m", "inferdock.cli.main", "status", "--watch", "-o", "json", "--state-dir"]
    ours = await asyncio.create_subprocess_exec(
        *command, str(platform.state_dir), stdout=asyncio.subprocess.PIPE, limit=2**20
    )
    assert ours.stdout is not None
    first = json.loads(await ours.stdout.readline())
    page = asyncio.create_task(console_looks(platform, 5))
    await ask(platform, 20)
    lines = [json.loads(await ours.stdout.readline()) for _ in range(5)]
    ours.send_signal(signal.SIGINT)
    assert await ours.wait() == 130
    shown = {look["time"]: look for look in await page}
    both = [(line["live"], shown[line["live"]["time"]]) for line in lines if line["live"]["time"] in shown]
    assert len(both) >= 2
    for live, look in both:
        assert live == look
    last = both[-1][1]["figures"]
    assert last["requests_total"] == first["live"]["figures"]["requests_total"] + 20
    assert last["cache"]["hits"] == first["live"]["figures"]["cache"]["hits"] + 20
    assert [row["state"] for row in lines[-1]["replicas"]] == ["ready", "ready"]


def test_the_plain_look_says_the_same(platform: Platform) -> None:
    text = of(platform).output
    figures = json.loads(of(platform, "-o", "json").output)["live"]["figures"]
    assert f"{figures['requests_total']:.0f} in all, 0 failed" in text
    assert f"{figures['cache']['hits']:.0f} of {figures['cache']['requests']:.0f} hit" in text
    assert "per hour       $1.20" in text
    assert text.count("  ready  ") == 2
    assert "\x1b" not in text


def test_a_gateway_alone_tells_the_same_figures_by_its_admin_address(platform: Platform) -> None:
    alone = json.loads(run("--admin-url", platform.state["admin_url"], "-o", "json").output)
    whole = json.loads(of(platform, "-o", "json").output)
    counted = [k for k in whole["live"]["figures"] if k.endswith("_total")] + ["waiting", "cache", "prefix_cache_ratio"]
    for name in counted:
        assert alone["live"]["figures"][name] == whole["live"]["figures"][name], name
    names = ("name", "revision", "state", "in_flight")
    rows = [[[row[name] for name in names] for row in one["live"]["replicas"]] for one in (alone, whole)]
    assert rows[0] == rows[1]
    assert alone["live"]["cost"]["given"] is False
    text = run("--admin-url", platform.state["admin_url"]).output
    assert "gateway alone, admin at http://127.0.0.1:" in text
    assert "Set cost.cost_per_hour." in text


def test_its_bill_is_that_of_the_platform_where_the_price_is_given(platform: Platform, tmp_path: Path) -> None:
    config = tmp_path / "price.yaml"
    config.write_text("cost: {cost_per_hour: 1.2}\n")
    alone = json.loads(run("--admin-url", platform.state["admin_url"], "-f", str(config), "-o", "json").output)["live"]
    whole = json.loads(of(platform, "-o", "json").output)["live"]
    assert alone["cost"]["dollars_per_hour"] == whole["cost"]["dollars_per_hour"] == 1.2
    blended = [one["cost"]["dollars_per_million"]["blended"] for one in (alone, whole)]
    assert blended[0] == pytest.approx(blended[1], rel=0.2)  # the same time, a moment later


async def test_a_gateway_without_replicas_says_so() -> None:
    async with running_gateway([]) as gateway:
        result = await asyncio.to_thread(run, "--admin-url", f"http://127.0.0.1:{gateway.server.admin_port}")
    assert result.exit_code == 0, result.output
    assert "There is no replica." in result.output
    assert "No request in the last minute." in result.output


# -- No answer, or half of one -------------------------------------------------------------------------------------


def failure(result: Result) -> tuple[int, str]:
    assert isinstance(result.exception, InferdockError), result.output
    return result.exception.exit_code, str(result.exception)


def test_no_platform_is_a_sentence(tmp_path: Path) -> None:
    code, text = failure(run("--state-dir", str(tmp_path)))
    assert (code, "Start one with `inferdock up`." in text) == (7, True)


def test_no_gateway_is_a_sentence() -> None:
    code, text = failure(run("--admin-url", "http://127.0.0.1:9"))
    assert (code, "Nothing answers at http://127.0.0.1:9" in text, "--admin-url" in text) == (7, True, True)


def test_an_address_that_is_none_is_a_sentence() -> None:
    assert failure(run("--admin-url", "here"))[0] == 3


def answering(body: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        await writer.drain()
        writer.close()

    return serve


OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: "
BAD_GATEWAYS = {
    "refused": (b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{}", "refuses: HTTP 403"),
    "refused in words": (
        b'HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{"error": {"message": "Not by this name."}}',
        "refuses: Not by this name.",
    ),
    "another server": (OK + b"text/html\r\n\r\n<html>", "is no gateway of ours"),
    "half an answer": (OK + b'application/json\r\ncontent-length: 900\r\n\r\n{"state": "ser', "Nothing answers"),
    "a strange answer": (OK + b'application/json\r\n\r\n{"endpoints": 3}', "is no gateway of ours"),
}


@pytest.mark.parametrize(("answer", "sentence"), BAD_GATEWAYS.values(), ids=BAD_GATEWAYS)
async def test_a_gateway_that_refuses_or_tells_half_is_a_sentence(answer: bytes, sentence: str) -> None:
    server = await asyncio.start_server(answering(answer), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        result = await asyncio.to_thread(run, "--admin-url", f"http://127.0.0.1:{port}")
    code, text = failure(result)
    assert (code, sentence in text) == (7, True), text


LIVE = OK + b"text/event-stream\r\n\r\n"
BAD_PLATFORMS = {
    "too many pages": (
        b'HTTP/1.1 503 No\r\nconnection: close\r\n\r\n{"error": {"message": "20 pages are open already."}}',
        "20 pages are open already.",
    ),
    "nothing": (LIVE, "stopped answering"),
    "half a document": (LIVE + b'event: live\ndata: {"time": 1', "stopped answering"),
    "no document": (LIVE + b"event: live\ndata: [1]\n\n", "makes no sense"),
    "no JSON": (LIVE + b"event: live\ndata: {\n\n", "makes no sense"),
    "no HTTP": (b"hello\r\n\r\n", "does not answer"),
}


@pytest.mark.parametrize(("answer", "sentence"), BAD_PLATFORMS.values(), ids=BAD_PLATFORMS)
async def test_a_platform_that_tells_half_is_a_sentence(tmp_path: Path, answer: bytes, sentence: str) -> None:
    with pretended(tmp_path, tmp_path / "s"):
        server = await asyncio.start_unix_server(answering(answer), tmp_path / "s")
        async with server:
            result = await asyncio.to_thread(run, "--state-dir", str(tmp_path))
    code, text = failure(result)
    assert (code, sentence in text) == (UnreachableError.exit_code, True), text


def test_a_platform_whose_socket_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with pretended(tmp_path, tmp_path / "nothing"):
        code, text = failure(run("--state-dir", str(tmp_path)))
    assert (code, "Does `inferdock up` still run?" in text) == (7, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to any socket")
def test_the_platform_of_another_user_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    with pretended(tmp_path, tmp_path / "shut" / "s"):
        assert failure(run("--state-dir", str(tmp_path)))[0] == ResourceError.exit_code


@contextlib.contextmanager
def pretended(root: Path, socket: Path) -> Iterator[None]:
    """The folder of a platform that runs, with its lock held."""
    folder = root / "up-1"
    folder.mkdir()
    (folder / "gateway.yaml").write_text(json.dumps({"gateway": {"console_socket": str(socket)}}))
    state = {"pid": 1, "model": "m", "revision": "r", "engine": "sim", "url": "http://127.0.0.1:1", "replicas": []}
    (folder / "state.json").write_text(json.dumps({**state, "gateway_log": str(folder / "logs" / "gateway.log")}))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# -- On a terminal -------------------------------------------------------------------------------------------------


@pytest.fixture
def view(platform: Platform) -> Iterator[Callable[..., Viewer]]:
    """Opens views; whatever a test leaves is ended."""
    opened: list[Viewer] = []

    def opener(**more: Any) -> Viewer:
        opened.append(Viewer("--state-dir", str(platform.state_dir), **more))
        return opened[-1]

    yield opener
    for one in opened:
        one.close()


def test_it_draws_follows_the_size_and_quits_with_q(view: Callable[..., Viewer], platform: Platform) -> None:
    one = view()
    drawn = one.wait_for("quits")
    assert "\x1b[?1049h" in drawn
    assert "replica-1" in drawn
    assert not termios.tcgetattr(one.theirs)[3] & termios.ECHO
    asyncio.run(ask(platform, 3))
    one.resize(200, 50)
    assert "127.0.0.1" in one.wait_for("  url")  # there is room for it now
    one.press(b"\x1b[A")  # an arrow is no wish to quit
    one.resize(50, 10)
    one.wait_for("traffic")
    assert one.process.poll() is None
    one.press(b"q")
    assert one.end() == 0
    assert one.given_back()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGHUP, -1)], ids=lambda v: str(v)
)
def test_however_it_ends_the_terminal_is_given_back(view: Callable[..., Viewer], number: int, status: int) -> None:
    one = view()
    one.wait_for("quits")
    one.process.send_signal(number)
    assert one.end() == status
    assert one.given_back()


def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again(view: Callable[..., Viewer]) -> None:
    one = view()
    one.wait_for("quits")
    one.process.send_signal(signal.SIGTSTP)
    one.wait_for("\x1b[?1049l")
    os.waitid(os.P_PID, one.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert termios.tcgetattr(one.theirs) == one.before
    one.process.send_signal(signal.SIGCONT)
    assert "\x1b[?1049h" in one.wait_for("quits")
    one.press(b"q")
    assert one.end() == 0
    assert one.given_back()


def test_without_colours_there_are_none(view: Callable[..., Viewer]) -> None:
    one = view(NO_COLOR="1")
    drawn = one.wait_for("quits")
    assert not any(f"\x1b[{code}" in drawn for code in ("31", "32", "33", "36", "38"))
    one.press(b"q")
    assert one.end() == 0


def test_a_terminal_that_can_do_nothing_gets_one_plain_look(view: Callable[..., Viewer]) -> None:
    one = view(TERM="dumb")
    assert one.end() == 0
    assert "in flight" in one.text
    assert "\x1b[?1049h" not in one.text


def test_a_view_outlives_the_platform_and_says_so(tmp_path: Path) -> None:
    one = Viewer("--state-dir", str(tmp_path))
    try:
        assert one.end() == 7  # nothing was there yet
        assert "error: " in one.text
    finally:
        one.close()
    platform = Platform(tmp_path, "--engine", "sim")
    platform.wait_until_ready(1, within_s=60)
    one = Viewer("--state-dir", str(tmp_path))
    try:
        one.wait_for("quits")
        assert platform.stop() == 0
        one.wait_for("No contact since")
        assert one.process.poll() is None
        one.press(b"q")
        assert one.end() == 0
        assert one.given_back()
    finally:
        one.close()
        platform.kill()
