"""What the supervisor asks of replicas: nobody there, or nonsense, is an answer too."""

import aiohttp
import pytest
from aiohttp import web

from inferdock.supervisor.probe import Probe


@pytest.fixture
async def ask():
    """Ask a replica whose ``/metrics`` are given how many requests it has."""
    said = {"text": b"", "status": 200}

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=said["text"], status=said["status"])

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:

        async def asked(text: bytes, status: int = 200) -> int | None:
            said.update(text=text, status=status)
            return await Probe(session).requests_in(f"http://127.0.0.1:{port}")

        yield asked
    await runner.cleanup()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_waiting{engine="0"} 1.0\n', 3),
        (b"vllm:num_requests_running 0.0\n", 0),
        (b'vllm:num_requests_running{engine="0"} 1.0\nvllm:num_requests_running{engine="1"} 1.0\n', 2),
        (b"vllm:num_requests_waiting 0.0\n", None),
        (b"vllm:num_requests_running NaN\n", None),
        (b"\xff\x00", None),
        (b"", None),
    ],
    ids=["both", "idle", "two engines", "half an answer", "not a number", "garbage", "nothing"],
)
async def test_a_replica_says_how_many_requests_it_has(ask, text, count):
    assert await ask(text) == count


async def test_nobody_there_is_no_answer():
    async with aiohttp.ClientSession() as session:
        probe = Probe(session)
        assert await probe.requests_in("http://127.0.0.1:1") is None
        assert await probe.put_traffic("http://127.0.0.1:1", "m", {"a": 1}) is False
        assert await probe.put_traffic("", "m", {}) is False
