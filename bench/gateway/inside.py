"""What the gateway's own code costs, without kernel and event loop: ``python -m bench.gateway.inside [--at COMMIT]``.

The real gateway is put together on an event loop whose connections are not sockets: bytes of a client are handed to it,
what it writes for a replica is looked at, and a replica's answer is handed back. The fastest of many repetitions are
what the code costs on an undisturbed processor, even if this one is not, so that one microsecond more can be seen.
The kernel and uvloop come on top: about 20 microseconds per request for a bare proxy on uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gateway.peers import Place, inferdock_key
from bench.gateway.scenarios import LONG, SHORT, Variant
from bench.gateway.tools import snapshot
from bench.servers import free_port

CHUNKS = 100
READ_SIZE = 64 * 1024
MODELS = b'{"object":"list","data":[{"id":"m","object":"model","max_model_len":1048576}]}'
ANSWER = (
    b'{"id":"chatcmpl-0","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"' + b"y" * 400 + b'"},"logprobs":null,"finish_reason":"length"}],'
    b'"usage":{"prompt_tokens":256,"total_tokens":304,"completion_tokens":48}}'
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
START = '{"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,"model":"m",'


def plain(body: bytes, content_type: bytes = b"application/json") -> bytes:
    """A sized answer."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (content_type, len(body), body)


def event(text: str) -> bytes:
    """One event in one HTTP chunk."""
    data = b"data: " + text.encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(number: int) -> bytes:
    """A token's event as vLLM sends it when token ids are asked for."""
    delta = '"delta":{"content":" token"},"logprobs":null,"finish_reason":null'
    return event(START + f'"choices":[{{"index":0,{delta},"token_ids":[{number}]}}]}}')


FIRST = event(START + '"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"prompt_token_ids":[1,2]}')
LAST = event(START + '"choices":[{"index":0,"delta":{"content":""},"finish_reason":"length","token_ids":[]}]}')
USAGE = event(START + '"choices":[],"usage":{"prompt_tokens":2,"total_tokens":102,"completion_tokens":100}}')
END = LAST + USAGE + event("[DONE]") + b"0\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written.extend(list_of_data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    abort = close


class ReplicaWire(Wire):
    """The gateway's end of a connection to a replica; GETs of the health checker are answered at once."""

    def __init__(self, loop: Loop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self._loop = loop

    def write(self, data: Any) -> None:
        super().write(data)
        self._loop.asked = self
        if bytes(data[:4]) == b"GET ":
            body = MODELS if b"/models" in bytes(data[:40]) else b""
            self._loop.call_soon(self.protocol.data_received, plain(body))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))


class Loop(asyncio.SelectorEventLoop):
    """Listens nowhere and connects to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.factories: dict[int, Callable[[], Any]] = {}
        self.asked: ReplicaWire | None = None

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **rest: Any) -> Any:
        server = await super().create_server(asyncio.Protocol, host, port, **rest)
        sock: socket.socket = server.sockets[0]
        self.factories[sock.getsockname()[1]] = protocol_factory
        return server

    async def create_connection(self, protocol_factory: Any, *address: Any, **rest: Any) -> Any:
        protocol = protocol_factory()
        wire = ReplicaWire(self, protocol)
        protocol.connection_made(wire)
        return wire, protocol


class Bench:
    """One client's connection to a gateway."""

    def __init__(self, loop: Loop, port: int, headers: list[str]) -> None:
        self._loop = loop
        self._client = loop.factories[port]()
        self._wire = Wire()
        self._client.connection_made(self._wire)
        self._headers = headers

    def request(self, variant: Variant) -> list[bytes]:
        """A request, in pieces as the kernel hands them over."""
        body = variant.body()
        lines = ["POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1:8080", "Content-Type: application/json"]
        lines += ["Accept: */*", "User-Agent: inferdock-bench", *self._headers, f"Content-Length: {len(body)}"]
        data = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        return [data[i : i + READ_SIZE] for i in range(0, len(data), READ_SIZE)]

    async def ready(self, pieces: list[bytes]) -> None:
        """Have one request answered; the gateway may hold it until replicas are found to be ready."""
        for number in range(500):
            if not number or self._wire.written:  # at the start, and after a refusal
                self._wire.written.clear()
                self._loop.asked = None
                self._feed(pieces)
            await asyncio.sleep(0.01)
            asked = self._loop.asked
            if asked is not None and bytes(asked.written[-1][:4]) != b"GET ":
                asked.protocol.data_received(plain(ANSWER))  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            if b"".join(self._wire.written).startswith(b"HTTP/1.1 200"):
                return
        raise SystemExit(f"the gateway does not answer: {b''.join(self._wire.written)[:500]!r}")

    def _feed(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._client.data_received(piece)

    def once(self, pieces: list[bytes], answer: bytes) -> float:
        """Seconds of one request and its answer."""
        self._wire.written.clear()
        start = time.perf_counter()
        self._feed(pieces)
        asked = self._loop.asked
        assert asked is not None
        asked.protocol.data_received(answer)  # type: ignore[attr-defined]
        took = time.perf_counter() - start
        asked.written.clear()
        assert self._wire.written, "no answer"
        return took

    def stream(self, pieces: list[bytes], chunks: list[bytes]) -> float:
        """Seconds of one chunk of a stream, on average."""
        self._wire.written.clear()
        self._feed(pieces)
        asked = self._loop.asked
        assert asked is not None
        receive = asked.protocol.data_received  # type: ignore[attr-defined]
        receive(STREAM_HEAD + FIRST)
        start = time.perf_counter()
        for chunk in chunks:
            receive(chunk)
        took = time.perf_counter() - start
        receive(END)
        asked.written.clear()
        assert b"[DONE]" in b"".join(self._wire.written), "the stream did not end"
        return took / len(chunks)


async def _measure(loop: Loop, place: Place, headers: list[str], share: float) -> dict[str, float]:
    # Imported late: from the tree or the commit that is measured.
    from inferdock.app.gateway import build_gateway  # noqa: PLC0415
    from inferdock.config.settings import Settings  # noqa: PLC0415
    from inferdock.gateway.admin import endpoint_spec  # noqa: PLC0415
    from inferdock.telemetry.logs import EventLog  # noqa: PLC0415

    settings = Settings.model_validate({"gateway": {"port": place.port}, "state_dir": str(place.folder)})
    server = build_gateway(settings, loop=loop, log=EventLog(lambda data: None))
    await server.start()
    server.replace_endpoints([endpoint_spec(f"replica-{i}", url, "m", "") for i, url in enumerate(place.urls)])
    bench = Bench(loop, place.port, headers)
    short, long = bench.request(Variant("short")), bench.request(Variant("long", prompt_bytes=LONG))
    streamed = bench.request(Variant("stream", "run", tokens=CHUNKS))
    for _ in place.urls:
        await bench.ready(short)
    answer, chunks = plain(ANSWER), [token(10_000 + number) for number in range(CHUNKS)]
    found = {
        f"request_{SHORT}_bytes_us": await _least(lambda: bench.once(short, answer), round(20_000 * share)),
        f"request_{LONG}_bytes_us": await _least(lambda: bench.once(long, answer), round(2_000 * share)),
        "chunk_us": await _least(lambda: bench.stream(streamed, chunks), round(500 * share)),
    }
    await server.close()
    return found


async def _least(step: Callable[[], float], count: int) -> float:
    """Microseconds of an undisturbed step: the median of the fastest tenth."""
    took = []
    for number in range(max(1, count)):
        took.append(step())
        if number % 100 == 0:
            await asyncio.sleep(0)
    return round(sorted(took)[len(took) // 20] * 1e6, 2)


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _run(auth: bool, replicas: int, share: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-inside-") as folder:
        urls = [f"http://127.0.0.1:{number + 1}" for number in range(replicas)]
        place = Place(Path(folder), free_port(), 0, urls, 1, "")
        headers = inferdock_key(place, {}) if auth else []
        loop = Loop()
        with contextlib.closing(loop):
            try:
                return loop.run_until_complete(_measure(loop, place, headers, share))
            finally:
                loop.run_until_complete(_end_tasks())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--at", metavar="COMMIT", help="measure a commit instead of the working tree")
    parser.add_argument("--auth", action="store_true", help="with a key in each request")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual repetitions")
    args = parser.parse_args()
    if args.at:
        source, _ = snapshot(args.at)
        command = [sys.executable, "-m", "bench.gateway.inside", "--replicas", str(args.replicas)]
        command += ["--share", str(args.share)]
        command += ["--auth"] if args.auth else []
        sys.exit(subprocess.run(command, env={**os.environ, "PYTHONPATH": str(source)}, check=False).returncode)
    print(json.dumps(_run(args.auth, args.replicas, args.share)))


if __name__ == "__main__":
    main()
