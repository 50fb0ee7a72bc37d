"""Streams that run while something happens to a replica, and short requests beside them: none may be lost.

Every prompt is another one and asks the response cache to stay out, so that a replica really has to work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp

from inferdock.app.verify.figures import ready_rows, status, wait_for_ready
from inferdock.app.verify.ground import LackingError
from inferdock.app.verify.target import Target

T = TypeVar("T")
STREAMS: Final = 8
TOKENS: Final = 200
"""Of a stream: some seconds, so that the replica goes in the midst of it."""
BEGIN_S: Final = 60.0
NO_STORE: Final = {"Cache-Control": "no-store"}
_CHAT: Final = "/v1/chat/completions"


@dataclass(slots=True)
class Stream:
    """What came of one stream.

    Attributes:
        begun: set once text has come, or it is over.
        fault: why it is not whole; "" when it is.
    """

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    tokens: int = 0
    fault: str = "It never began."


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What clients saw while something happened.

    Attributes:
        streams: that were open then.
        faults: of those that did not end whole.
        asked: short requests that were sent meanwhile.
        refused: their faults.
        held: requests that the replica had when it went.
        back: whether as many replicas are ready as before.
    """

    streams: int
    faults: tuple[str, ...]
    asked: int
    refused: tuple[str, ...]
    held: int
    back: bool


async def kept_while(target: Target, act: Callable[[Target], AbstractAsyncContextManager[int]]) -> Kept:
    """Open streams, do something to the replicas, and see how streams and short requests end.

    Args:
        act: enters when it is done, with the number of requests that were held there; leaves when all is as before.

    Raises:
        LackingError: there are not two ready replicas.
    """
    before = len(ready_rows(await status(target), target.model))
    if before < 2:
        raise LackingError("Needs two ready replicas, so that one may go: start it with --replicas 2.")
    streams = [Stream() for _ in range(STREAMS)]
    refused: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        work = [stack.enter_context(_task(_read(target, one))) for one in streams]
        async with asyncio.timeout(BEGIN_S):
            await asyncio.gather(*(one.begun.wait() for one in streams))
        over = asyncio.Event()
        asking = stack.enter_context(_task(_ask_until(target, over, refused)))
        async with act(target) as held:
            await asyncio.gather(*work)
        back = await wait_for_ready(target, before) >= before
        over.set()
        asked = await asking
    faults = tuple(one.fault for one in streams if one.fault)
    return Kept(streams=len(streams), faults=faults, asked=asked, refused=tuple(refused), held=held, back=back)


@contextlib.asynccontextmanager
async def taken_out(target: Target) -> AsyncIterator[int]:
    """Take the busiest replica out of the gateway by its admin port, and put it back at the end."""
    rows = (await status(target))["endpoints"]
    busiest = max(ready_rows({"endpoints": rows}, target.model), key=lambda row: int(row["in_flight"]))
    models = sorted({row["model"] for row in rows})
    try:
        await _put(target, [row for row in rows if row["name"] != busiest["name"]], models)
        yield int(busiest["in_flight"])
    finally:
        await _put(target, rows, models)


async def _put(target: Target, rows: list[dict[str, Any]], models: list[str]) -> None:
    known = ("name", "url", "model", "revision", "digest")
    body = {"endpoints": [{key: row[key] for key in known if key in row} for row in rows], "models": models}
    async with target.http.put(f"{target.admin_url}/admin/endpoints", json=body) as answer:
        answer.raise_for_status()


@contextlib.contextmanager
def _task(work: Coroutine[Any, Any, T]) -> Iterator[asyncio.Task[T]]:
    """A task that does not outlive the block."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()


def _body(target: Target, tokens: int) -> dict[str, Any]:
    prompt = f"Tell me about inference platforms, note {secrets.token_hex(4)}."
    return {
        "model": target.model,
        "max_tokens": tokens,
        "temperature": 0,
        "messages": [{"role": "user", "content": prompt}],
    }


async def _read(target: Target, stream: Stream) -> None:
    """Read one stream to its end, and say what is wrong with it."""
    more = {"stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}}
    body = _body(target, TOKENS) | more
    try:
        async with target.http.post(f"{target.url}{_CHAT}", json=body, headers=NO_STORE) as answer:
            if answer.status != 200:
                stream.fault = f"HTTP {answer.status}."
                return
            stream.fault = await _whole(answer, stream)
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        stream.fault = f"It broke: {str(error) or type(error).__name__}."
    finally:
        stream.begun.set()


async def _whole(answer: aiohttp.ClientResponse, stream: Stream) -> str:
    """Read the events; "" when the answer is whole."""
    finish, counted, ended = "", 0, False
    async for line in answer.content:
        if not line.startswith(b"data:"):
            continue
        text = line[5:].strip()
        if text == b"[DONE]":
            ended = True
            continue
        event = json.loads(text)
        if "error" in event:
            return f"An error event: {event['error'].get('message', '')}."
        for choice in event["choices"]:
            stream.begun.set()
            finish = choice.get("finish_reason") or finish
        counted = (event.get("usage") or {}).get("completion_tokens", counted)
    stream.tokens = counted
    if not ended or not finish:
        return "It ended before its end."
    return "" if finish != "length" or counted == TOKENS else f"It has {counted} of {TOKENS} tokens."


async def _ask_until(target: Target, over: asyncio.Event, refused: list[str]) -> int:
    """Ask one short question after the other; how many."""
    asked = 0
    while not over.is_set() or asked == 0:
        asked += 1
        try:
            async with target.http.post(f"{target.url}{_CHAT}", json=_body(target, 4), headers=NO_STORE) as answer:
                await answer.read()
                if answer.status != 200:
                    refused.append(f"HTTP {answer.status}.")
        except (aiohttp.ClientError, TimeoutError) as error:
            refused.append(f"It broke: {str(error) or type(error).__name__}.")
    return asked
