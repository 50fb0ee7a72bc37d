"""Answers of a replica over HTTP, recorded and replayed."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from inferdock.cache.entry import Kind
from inferdock.cache.recorder import StreamRecorder, record_body
from inferdock.cache.replay import events, json_body
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim

ASKED: dict[Kind, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}),
    "completion": ("/v1/completions", {"prompt": "Hello"}),
}
COMMON = {"temperature": 0, "max_tokens": 24, "seed": 1}


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_stream_and_body_of_a_replica_make_the_same_entry(kind: Kind) -> None:
    path, fields = ASKED[kind]
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    recorder = StreamRecorder(kind)
    async with running_sim(SimOptions(ttft_s=0, itl_s=0)) as replica, aiohttp.ClientSession() as session:
        async with session.post(replica.url + path, json=fields | COMMON) as response:
            whole = record_body(kind, await response.read())
        async with session.post(replica.url + path, json=fields | COMMON | streamed) as response:
            async for piece in response.content.iter_any():
                recorder.feed(piece)
    assert whole is not None
    assert recorder.answer() == whole
    assert record_body(kind, json_body(whole, request_id=b"r", created=1)) == whole
    again = StreamRecorder(kind)
    again.feed(b"".join(events(whole, request_id=b"r", created=1, include_usage=True)))
    assert again.answer() == whole
