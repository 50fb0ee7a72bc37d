"""``inferdock up`` as a person meets it: ready, served, drained, killed, and every bad start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.support.platform import Platform

SIM = ("--engine", "sim")
SLOW_TOKENS = "engine: {sim: {itl_s: 0.02}}\n"


def family(pid: int) -> set[int]:
    """A process and its descendants, read from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parent = int(entry.read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found, queue = {pid}, [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            found.add(child)
            queue.append(child)
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run (zombies do not)."""
    left = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z":
                left.add(pid)
    return left


def wait_gone(pids: set[int], within_s: float) -> set[int]:
    deadline = time.monotonic() + within_s
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive(pids)


def wait_until(wanted: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path):
    """Start platforms; whatever a test leaves is ended."""
    started: list[Platform] = []

    def starter(*arguments: str, replicas: int = 1, config: str = "", within_s: float = 60) -> Platform:
        folder = tmp_path / f"platform-{len(started)}"
        folder.mkdir()
        (folder / "inferdock.yaml").write_text(config)
        platform = Platform(folder, "-f", str(folder / "inferdock.yaml"), "--replicas", str(replicas), *arguments)
        started.append(platform)
        platform.wait_until_ready(replicas, within_s)
        return platform

    yield starter
    for platform in started:
        pids = family(platform.process.pid) if platform.process.poll() is None else set()
        platform.kill()
        assert not wait_gone(pids, 10)


async def stream(http: aiohttp.ClientSession, url: str, model: str, tokens: int, started: list | None = None) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is a canary?"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    text = b""
    async with http.post(f"{url}/v1/chat/completions", json=body) as response:
        async for data in response.content.iter_any():
            text += data
            if started is not None and response not in started:
                started.append(response)
    return text.decode()


async def interrupted_streams(platform: Platform, tokens: int, count: int = 50) -> list[str]:
    """Open streams, press Ctrl-C once all have begun, and return what each got."""
    url, model = platform.url, platform.state["model"]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        started: list = []
        streams = [asyncio.create_task(stream(http, url, model, tokens, started)) for _ in range(count)]
        while len(started) < count:
            await asyncio.sleep(0.02)
        platform.process.send_signal(signal.SIGINT)
        return await asyncio.gather(*streams)


def one_answer(platform: Platform) -> str:
    async def ask() -> str:
        async with aiohttp.ClientSession() as http:
            return await stream(http, platform.url, platform.state["model"], 5)

    return asyncio.run(ask())


def test_fifty_open_streams_finish_on_ctrl_c_and_nothing_is_left(start):
    platform = start(*SIM, replicas=2, config=SLOW_TOKENS)
    pids = family(platform.process.pid)
    texts = asyncio.run(interrupted_streams(platform, tokens=100))
    assert [text.endswith("data: [DONE]\n\n") for text in texts] == [True] * 50
    assert platform.process.wait(30) == 0
    assert not wait_gone(pids, 5)


def test_kill_9_of_the_supervisor_leaves_nothing(start):
    platform = start(*SIM, replicas=2)
    pids = family(platform.process.pid)
    platform.process.kill()
    platform.process.wait()
    assert not wait_gone(pids, 5)


def test_a_second_signal_stops_at_once(start):
    platform = start(*SIM, config=SLOW_TOKENS)

    async def hold_a_stream_and_signal_twice() -> None:
        async with aiohttp.ClientSession() as http:
            started: list = []
            held = asyncio.create_task(stream(http, platform.url, platform.state["model"], 1500, started))
            while not started:
                await asyncio.sleep(0.02)
            platform.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            assert platform.process.poll() is None
            platform.process.send_signal(signal.SIGTERM)
            await asyncio.gather(held, return_exceptions=True)

    asyncio.run(hold_a_stream_and_signal_twice())
    assert platform.process.wait(20) == 130


def test_the_end_of_the_terminal_drains_too(tmp_path):
    ours, theirs = os.openpty()
    platform = Platform(tmp_path, *SIM, terminal=theirs)
    os.close(theirs)
    platform.wait_until_ready(1, 60)
    os.close(ours)
    assert platform.process.wait(30) == 0


def test_sighup_without_a_terminal_reads_the_configuration_again(start):
    platform = start(*SIM, config="gateway: {max_in_flight: 50}\n")
    config = platform.state_dir / "inferdock.yaml"
    config.write_text("gateway: {max_in_flight: 60, port: 1}\nengine: {max_num_seqs: 7}\n")
    platform.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Counts after a restart only" in platform.output.read_text())
    assert "Configuration reloaded. Changed: gateway.max_in_flight." in platform.output.read_text()
    assert "restart only: engine.max_num_seqs." in platform.output.read_text()  # the port is a flag, which wins
    assert one_answer(platform).endswith("data: [DONE]\n\n")


def test_a_bad_configuration_changes_nothing(start):
    platform = start(*SIM)
    (platform.state_dir / "inferdock.yaml").write_text("gateway: {max_in_fligth: 60}\n")
    platform.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "The configuration is as it was." in platform.output.read_text())
    assert one_answer(platform).endswith("data: [DONE]\n\n")


def test_with_several_gateway_workers_open_streams_finish_on_ctrl_c(start):
    platform = start(*SIM, "--workers", "2", replicas=2, config=SLOW_TOKENS)
    pids = family(platform.process.pid)
    texts = asyncio.run(interrupted_streams(platform, tokens=100))
    assert [text.endswith("data: [DONE]\n\n") for text in texts] == [True] * 50
    assert platform.process.wait(30) == 0
    assert not wait_gone(pids, 5)


@pytest.mark.parametrize("victim", ["supervisor", "parent of the workers"])
def test_with_several_gateway_workers_kill_9_leaves_nothing(start, victim):
    platform = start(*SIM, "--workers", "2")
    pids = family(platform.process.pid)
    gateway = json.loads((platform.state_dir / "up-0" / "gateway.json").read_text())
    if victim == "supervisor":
        platform.process.kill()
        platform.process.wait()
        assert not wait_gone(pids, 5)
    else:
        os.kill(gateway["pid"], signal.SIGKILL)
        assert not wait_gone({gateway["pid"], *gateway["workers"]}, 5)
        wait_until(lambda: one_answer_or_none(platform) is not None)


def test_a_second_platform_does_not_take_the_first_ones_state_folder(start):
    platform = start(*SIM)
    result = up(*SIM, "--port", "0", "--state-dir", str(platform.state_dir))
    assert (result.returncode, "Another platform uses the state folder" in result.stderr) == (5, True)
    assert one_answer(platform).endswith("data: [DONE]\n\n")


def test_it_goes_on_when_nobody_reads_its_messages_any_more(tmp_path):
    read, write = os.pipe()
    platform = Platform(tmp_path, *SIM, output=write)
    os.close(write)
    os.close(read)
    platform.wait_until_ready(1, 60)
    assert one_answer(platform).endswith("data: [DONE]\n\n")
    assert platform.stop() == 0


def test_a_killed_keeper_takes_its_replica_along_and_both_come_back(start):
    platform = start(*SIM)
    keeper = platform.state["replicas"][0]["pid"]
    (engine,) = family(keeper) - {keeper}
    os.kill(keeper, signal.SIGKILL)
    assert not wait_gone({engine}, 10)
    wait_until(lambda: platform.state["replicas"][0]["restarts"] == 1)
    platform.wait_until_ready(1, 30)
    assert platform.stop() == 0


def test_a_killed_replica_is_restarted_and_serves_again(start):
    platform = start(*SIM)
    replica = platform.state["replicas"][0]
    (engine,) = family(replica["pid"]) - {replica["pid"]}
    os.kill(engine, signal.SIGKILL)
    wait_until(lambda: platform.state["replicas"][0]["restarts"] == 1)
    platform.wait_until_ready(1, 30)
    assert one_answer(platform).endswith("data: [DONE]\n\n")
    assert platform.stop() == 0


def test_a_killed_gateway_comes_back_on_its_port(start):
    platform = start(*SIM)
    url = platform.url
    gateway = json.loads((platform.state_dir / "up-0" / "gateway.json").read_text())["pid"]
    os.kill(gateway, signal.SIGKILL)
    deadline = time.monotonic() + 30
    answer = ""
    while not answer and time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientError):
            answer = one_answer(platform)
            answer = answer if answer.endswith("[DONE]\n\n") else ""
        time.sleep(0.1)
    assert answer
    assert platform.url == url
    assert platform.stop() == 0


def one_answer_or_none(platform: Platform) -> str | None:
    try:
        answer = one_answer(platform)
    except aiohttp.ClientError:
        return None
    return answer if answer.endswith("[DONE]\n\n") else None


def up(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferdock.cli.main", "up", *arguments]
    base = {key: value for key, value in os.environ.items() if not key.startswith("INFERDOCK_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=base | environment, check=False)


def test_a_port_in_use_is_one_sentence_and_exit_5():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        result = up(*SIM, "--port", str(holder.getsockname()[1]))
    assert result.returncode == 5
    assert "is in use by" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--model", "/nowhere"), 4, "There is no model folder"),
        (("--model", "not-pushed@1.0"), 9, "has no model not-pushed"),
        (("--max-model-len", "999999"), 4, "was made for"),
        (("--replicas", "0"), 3, "engine.replicas"),
        (("-f", "/nowhere.yaml"), 3, "Cannot read the configuration file"),
    ],
)
def test_bad_starts_say_what_to_do(arguments, status, words):
    result = up(*SIM, "--port", "0", *arguments)
    assert (result.returncode, words in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_key_in_the_environment_is_refused_with_the_nearest_right_one():
    result = up(*SIM, INFERDOCK_GATEWAY__PROT="1")
    assert result.returncode == 3
    assert "INFERDOCK_GATEWAY__PORT" in result.stderr


def test_an_engine_that_never_starts_ends_with_its_reason(tmp_path):
    config = tmp_path / "inferdock.yaml"
    config.write_text("engine: {extra_args: [--no-such-flag], restart_backoff_s: 0.1}\n")
    result = up(*SIM, "-f", str(config), "--port", "0", "--state-dir", str(tmp_path))
    assert result.returncode == 6
    assert "No replica could be started." in result.stderr
    assert "replica-0.log" in result.stderr


def test_status_shows_the_platform_and_says_when_there_is_none(start, tmp_path):
    platform = start(*SIM, replicas=2)
    command = [sys.executable, "-m", "inferdock.cli.main", "status", "-o", "json", "--state-dir"]
    shown = subprocess.run([*command, str(platform.state_dir)], capture_output=True, text=True, check=True, timeout=60)
    assert [r["state"] for r in json.loads(shown.stdout)["replicas"]] == ["ready", "ready"]
    assert platform.stop() == 0
    absent = subprocess.run(
        [*command, str(platform.state_dir)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (absent.returncode, "inferdock up" in absent.stderr) == (7, True)


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_real_engine_fifty_open_streams_finish_on_ctrl_c(start):
    platform = start(within_s=300)
    pids = family(platform.process.pid)
    texts = asyncio.run(interrupted_streams(platform, tokens=200))
    assert [text.endswith("data: [DONE]\n\n") for text in texts] == [True] * 50
    assert platform.process.wait(60) == 0
    assert not wait_gone(pids, 5)


def named(pids: set[int], word: str) -> int:
    """The one process of these whose command line or name holds ``word``."""
    found = []
    for pid in pids:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        if word in line and "keeper" not in line:
            found.append(pid)
    (one,) = found
    return one


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_real_engine_whatever_is_killed_leaves_nothing_behind(start):
    """The engine's core, its API server and the keeper come back; after the supervisor nothing is left."""
    platform = start(within_s=300)
    for restarts, choose in enumerate(
        (lambda pids: named(pids, "EngineCore"), lambda pids: named(pids, "api_server"), min), start=1
    ):
        keeper = platform.state["replicas"][0]["pid"]
        pids = family(keeper)
        assert len(pids) >= 3
        os.kill(keeper if choose is min else choose(pids), signal.SIGKILL)
        assert not wait_gone(pids, 10)
        wait_until(lambda wanted=restarts: platform.state["replicas"][0]["restarts"] == wanted)
        platform.wait_until_ready(1, 300)
    assert one_answer(platform).endswith("data: [DONE]\n\n")
    pids = family(platform.process.pid)
    platform.process.kill()
    platform.process.wait()
    assert not wait_gone(pids, 5)
