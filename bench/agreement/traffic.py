"""A mixed load that keeps its own books: what it sent, what came back, and when.

Every request is one of :data:`KINDS`. Nothing is read from the platform here but the answers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import aiohttp

from inferdock.domain.errors import InferdockError
from inferdock.wire.sse import EventSplitter

MODEL: Final = "m"
TENANTS: Final = ("red", "blue")
LEAVER: Final = "leaver"
"""Tenant of the clients that go away in the middle: nobody can say how much of what was sent had been on its way."""
KINDS: Final[Mapping[str, int]] = {
    "chat stream": 26, "chat body": 12, "text stream": 14, "text body": 10, "repeated stream": 12, "repeated body": 8,
    "leaving": 6, "too long": 3, "not JSON": 3, "no such model": 3, "wrong key": 3,
}  # fmt: skip
"""With how often each comes, relative to the others."""
FOLLOWED: Final = ("chat stream", "text stream", "repeated stream", "leaving")
REPEATED: Final = ("What is a canary?", "What is a replica?", "How do I drain it?", "Name three gateways.")
LONG: Final = 800
"""Tokens that leaving clients ask for: their answer is still far from its end when they go, also on a busy machine."""
WORDS: Final = ("canary", "gateway", "replica", "drain", "registry", "weight", "stream", "window", "target", "ready")
ROUTES: Final = {True: "/v1/chat/completions", False: "/v1/completions"}


@dataclass(slots=True)
class Record:
    """One request as its client saw it.

    Attributes:
        sent, first, ended: seconds of the monotonic clock; when it was sent, when the first byte of the answer's body
            came (infinite: never), when it was over.
        status: HTTP status; 0 where no answer came.
        revision, cache, tier: what the answer's head said.
        prompt, output: tokens of ``usage``; None where it did not come.
        pieces: events with text.
        asked: most output tokens that may come.
        broken: it began well and ended with an error, or without an end.
        left: its client went away in the middle.
        said: what was wrong.
    """

    kind: str
    tenant: str
    chat: bool
    stream: bool
    asked: int
    sent: float
    first: float = math.inf
    ended: float = math.inf
    status: int = 0
    revision: str = ""
    cache: str = ""
    tier: str = ""
    prompt: int | None = None
    output: int | None = None
    pieces: int = 0
    broken: bool = False
    left: bool = False
    said: str = ""

    @property
    def route(self) -> str:
        """As ``/metrics`` labels it."""
        return ROUTES[self.chat]

    @property
    def known(self) -> bool:
        """It came so far that the gateway knows its model."""
        return self.kind not in ("not JSON", "no such model", "wrong key")

    @property
    def spared(self) -> bool:
        """No engine worked for it."""
        return self.cache == "hit"

    @property
    def output_range(self) -> tuple[int, int]:
        """Least and most output tokens that were sent to this client."""
        if self.output is not None:
            return self.output, self.output
        return (self.pieces, self.asked) if self.left or self.broken else (0, 0)

    @property
    def prompt_range(self) -> tuple[int, int]:
        """The same of the prompt; of streams without an end nobody says it, and the gateway counts none."""
        return (self.prompt or 0, self.prompt or 0)

    @property
    def tpot(self) -> float | None:
        """Seconds per token after the first, of whole streams."""
        if not self.stream or self.status != 200 or self.broken or self.left or not self.output or self.output < 2:
            return None
        return (self.ended - self.first) / (self.output - 1)


@dataclass(slots=True)
class Load:
    """Sends at a rate, whatever becomes of what was sent before.

    Attributes:
        keys: API key of each tenant.
        rate: requests a second.
        records: all so far.
    """

    url: str
    keys: Mapping[str, str]
    rate: float
    seed: int = 1
    records: list[Record] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    async def run(self, seconds: float, events: asyncio.Task[Any]) -> None:
        """Send for so long, and until the events are over; wait for all answers."""
        dice = random.Random(self.seed)
        timeout = aiohttp.ClientTimeout(total=240)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
        began = time.monotonic()
        watch = aiohttp.TraceConfig()
        watch.on_request_chunk_sent.append(_note_sent)
        http = aiohttp.ClientSession(self.url, connector=connector, timeout=timeout, trace_configs=[watch])
        async with http, asyncio.TaskGroup() as group:
            due = began
            while (due := due + dice.expovariate(self.rate)) < began + seconds or not events.done():
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
                group.create_task(self._one(http, kind, random.Random(dice.random())))

    async def _one(self, http: aiohttp.ClientSession, kind: str, dice: random.Random) -> None:
        chat = kind in ("chat stream", "chat body", "leaving", "too long") or (
            kind.startswith("repeated") and dice.random() < 0.5
        )
        tenant = LEAVER if kind == "leaving" else dice.choice(TENANTS)
        body, asked = _body(kind, chat, next(self._numbers), dice)
        key = "sk-no-such-key" if kind == "wrong key" else self.keys[tenant]
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        stream = kind in FOLLOWED
        record = Record(kind, tenant, chat, stream, asked, time.monotonic())
        self.records.append(record)
        leave_after = dice.randint(2, 6) if kind == "leaving" else None
        try:
            async with http.post(record.route, data=body, headers=headers, trace_request_ctx=record) as response:
                _read_head(record, response)
                await _follow(record, response, leave_after)
        except (aiohttp.ClientError, OSError, TimeoutError, InferdockError) as exc:
            record.broken, record.said = record.status == 200, type(exc).__name__
        record.ended = min(record.ended, time.monotonic())


async def _note_sent(
    session: aiohttp.ClientSession, context: SimpleNamespace, sent: aiohttp.TraceRequestChunkSentParams
) -> None:
    """The clock starts when a request is on its way, not when a connection is asked for."""
    context.trace_request_ctx.sent = time.monotonic()


def _body(kind: str, chat: bool, number: int, dice: random.Random) -> tuple[bytes, int]:
    """The request, and how many tokens it asks for at most."""
    if kind == "not JSON":
        return b'{"model": "m", "messages": [', 0
    repeated = kind.startswith("repeated")
    asked = 12 if repeated else LONG if kind == "leaving" else dice.choice((4, 8, 16, 40))
    words = 4000 if kind == "too long" else dice.choice((6, 12, 60))
    text = dice.choice(REPEATED) if repeated else f"{number} " + " ".join(dice.choices(WORDS, k=words))
    body: dict[str, Any] = {
        "model": "nobody" if kind == "no such model" else MODEL,
        "max_tokens": asked,
        "ignore_eos": True,
        "temperature": 0 if repeated else 0.8,
    }
    body |= {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
    if not repeated:
        body["seed"] = number
    if kind in FOLLOWED:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode(), asked


def _read_head(record: Record, response: aiohttp.ClientResponse) -> None:
    record.status = response.status
    record.revision = response.headers.get("x-inferdock-revision", "")
    record.cache = response.headers.get("x-inferdock-cache", "")
    record.tier = response.headers.get("x-inferdock-cache-tier", "")


async def _follow(record: Record, response: aiohttp.ClientResponse, leave_after: int | None) -> None:
    if not record.stream or record.status != 200:
        body = await response.read()
        record.first = record.ended = time.monotonic()
        if record.status == 200:
            _take_usage(record, json.loads(body))
        else:
            record.said = body[:200].decode("utf-8", "replace")
        return
    splitter, last = EventSplitter(), b""
    async for data in response.content.iter_any():
        for event in splitter.feed(data):
            record.first = min(record.first, time.monotonic())
            last = event
            if event != b"[DONE]":
                _take_event(record, json.loads(event))
        if leave_after is not None and record.pieces >= leave_after and last != b"[DONE]":
            record.left = True
            response.close()
            return
    record.broken = record.broken or last != b"[DONE]"


def _take_event(record: Record, event: dict[str, Any]) -> None:
    if "error" in event:
        record.broken, record.said = True, str(event["error"])[:200]
    for choice in event.get("choices", ()):
        record.pieces += bool(choice.get("text") or choice.get("delta", {}).get("content"))
    _take_usage(record, event)


def _take_usage(record: Record, said: dict[str, Any]) -> None:
    if usage := said.get("usage"):
        record.prompt, record.output = usage["prompt_tokens"], usage["completion_tokens"]
