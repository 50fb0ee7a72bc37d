"""What single parts of the gateway's path cost: ``python -m bench.gateway.parts``; microseconds, best of several runs.

The gateway is put together as in ``bench.gateway.inside``; each part is called alone, thousands of times, so caches are
warm: read the numbers against each other, and against the whole request of ``inside``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gateway import inside
from bench.gateway.peers import Place
from bench.gateway.scenarios import Variant
from bench.servers import free_port
from inferdock.app.gateway import build_gateway
from inferdock.balance.board import Board
from inferdock.config.settings import Settings
from inferdock.gateway.admin import endpoint_spec
from inferdock.gateway.attempt import Attempt, upstream_head
from inferdock.gateway.auth import Authenticator
from inferdock.gateway.exchange import Exchange
from inferdock.gateway.http_server import Turn
from inferdock.gateway.limits import COLUMNS, Limiter
from inferdock.gateway.relay import BodyRelay
from inferdock.keys.key import ANONYMOUS, Key, digest_of
from inferdock.telemetry.logs import EventLog
from inferdock.telemetry.tracing import Sampler
from inferdock.wire.openai import read_fields
from inferdock.wire.stream_tracker import StreamTracker

TEXT = b"idk_00000000_" + b"x" * 43


def least(step: Callable[[], object]) -> float:
    """Microseconds of one call."""
    return min(timeit.repeat(step, number=2000, repeat=9)) / 2000 * 1e6


def key(**limits: int) -> Key:
    """A key with these limits."""
    return Key(id="00000000", name="bench", digest=digest_of(TEXT), created_at=0.0, slot=0, **limits)


def limits() -> dict[str, float]:
    """Keys and limits, traces, following a stream: what can be switched on or off."""
    auth = Authenticator([key()])
    header = b"Bearer " + TEXT
    limiter = Limiter(Board.private(COLUMNS))
    all_three = key(requests_per_minute=10**8, tokens_per_minute=10**8, concurrent_streams=10**8)
    sampler = Sampler(0.1)
    tracker = StreamTracker()
    head, token = _payload(inside.FIRST), _payload(inside.token(1234))
    tracker.feed(head)
    return {
        "key looked up": least(lambda: auth.authenticate(header, None, 1.0)),
        "no limits": least(lambda: limiter.admit(ANONYMOUS, stream=True, now=1.0).release()),
        "limits on requests, tokens and streams": least(
            lambda: limiter.admit(all_three, stream=True, now=1.0, tokens=10).release()
        ),
        "trace begun": least(lambda: sampler.begin(None)),
        "one event of a followed stream": least(lambda: tracker.feed(token)),
        "one of eight events that come together": least(lambda: tracker.feed(token * 8)) / 8,
    }


def _payload(chunk: bytes) -> bytes:
    return chunk.partition(b"\r\n")[2].removesuffix(b"\r\n")


async def path(loop: inside.Loop, place: Place) -> dict[str, float]:
    """Steps of a request that is no stream, in order."""
    document = {"gateway": {"port": place.port}, "state_dir": str(place.folder), "keys": {"check": "never"}}
    server = build_gateway(Settings.model_validate(document), loop=loop, log=EventLog(lambda data: None))
    await server.start()
    server.replace_endpoints([endpoint_spec("replica-0", place.urls[0], "m", "")])
    bench = inside.Bench(loop, place.port, [])
    pieces, answer = bench.request(Variant("short")), inside.plain(inside.ANSWER)
    await bench.ready(pieces)
    for _ in range(3):
        bench.once(pieces, answer)
    found = _steps(server._front.pipeline, bench._client, pieces[0], answer)
    await server.close()
    return found


def _steps(pipeline: Any, client: Any, request_bytes: bytes, answer: bytes) -> dict[str, float]:
    request = client._reader.whole(request_bytes)
    fields = read_fields(request.body)
    admission = pipeline.limiter.admit(ANONYMOUS, stream=False, now=0.0)
    turn = Turn(client, True, False)

    def exchange() -> Exchange:
        return Exchange(
            pipeline,
            request,
            turn,
            request_id=b"req-1",
            route="/v1/chat/completions",
            model="m",
            fields=fields,
            body=request.body,
            drop_usage=False,
            wanted=pipeline._usual,
            deadline=math.inf,
            admission=admission,
            key=ANONYMOUS,
        )

    one = exchange()
    lease = pipeline.room.enter(one)
    head, body = pipeline.pool.heads.whole(answer)
    one._attempt = Attempt(one, pipeline.pool, lease, 0.0)
    one._relay = BodyRelay(head, http10=False, whole=body)
    one.answer.status = 200
    one.outcome = "answered"
    found = {
        "head and body of a request": least(lambda: client._reader.whole(request_bytes)),
        "fields of the body": least(lambda: read_fields(request.body)),
        "objects of the exchange": least(exchange),
        "choice of a replica, and its end": least(lambda: pipeline.room.enter(one).release()),
        "head for the replica": least(
            lambda: upstream_head(request, request.target, lease.endpoint, b"req-1", request.body)
        ),
        "head and body of the answer": least(lambda: pipeline.pool.heads.whole(answer)),
        "usage in the answer": least(lambda: BodyRelay(head, http10=False, whole=body)),
        "figures and the line in the log": least(lambda: pipeline._books.close(one)),
    }
    lease.release()
    return found


def main() -> None:
    """Command line."""
    with tempfile.TemporaryDirectory(prefix="bench-parts-") as folder:
        place = Place(Path(folder), free_port(), 0, ["http://127.0.0.1:1"], 1, "")
        loop = inside.Loop()
        with contextlib.closing(loop):
            asyncio.set_event_loop(loop)
            try:
                steps = loop.run_until_complete(path(loop, place))
            finally:
                loop.run_until_complete(inside._end_tasks())
    for title, rows in (("Steps of a request", steps), ("Features", limits())):
        print(f"\n{title}, microseconds")
        for name, microseconds in rows.items():
            print(f"  {microseconds:6.2f}  {name}")


if __name__ == "__main__":
    main()
