"""What parent and workers say to each other, and how it is put on their socket: a length, then msgpack.

::

    parent -> worker   Setup       once, first: boards, listening sockets, settings, row
                       Endpoints   the whole set with slot numbers, when it changes
                       Traffic     weights of a model's revisions, and its shadow
                       Health      state and load of some endpoints, after each check
                       Configure   settings after a reload
                       Report      send a Snapshot now
                       Text        answer to Metrics: the merged Prometheus text
                       CacheAsk    a question about the response cache
                       Accept      accept also from the sockets of these rows, whose workers are not there
                       Drain       refuse new requests, finish those under way, go on listening
                       Retire      accept no more, finish, end
                       Exit        close everything and end
    worker -> parent   Serving     set up, accepts
                       Snapshot    own figures, four times a second and when asked
                       Failed      an attempt on an endpoint failed: check them soon
                       Metrics     a client asks for the merged Prometheus text
                       CacheAnswer answer to CacheAsk
                       Leaving     told to end by a signal: may I?
                       Drained     nothing is in flight any more
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec

from inferdock.domain.shadow import Shadow
from inferdock.telemetry.instruments import ExemplarRow, Rows

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = 4
Packed = Any
"""Settings as :mod:`inferdock.gateway.workers.packed` writes them."""


class Frame(msgspec.Struct, array_like=True, tag=True):
    """Base of all frames."""


class BoardPlace(msgspec.Struct, array_like=True):
    """A shared board: its name, the descriptor of its memory, its size."""

    name: str
    fd: int
    rows: int
    columns: int


class EndpointRow(msgspec.Struct, array_like=True):
    """One endpoint of the set; ``slot`` is its column on the board and its number in other frames."""

    slot: int
    name: str
    host: str
    port: int
    model: str
    revision: str
    digest: str = ""


class HealthRow(msgspec.Struct, array_like=True):
    """State and load of one endpoint at its last check."""

    slot: int
    ready: bool
    running: int
    waiting: int
    kv_cache_usage_ratio: float | None
    max_model_len: int | None


class Setup(Frame):
    """``listeners``: descriptors of the listening sockets by row; this worker's own are those of ``row``."""

    row: int
    boards: list[BoardPlace]
    listeners: list[list[int]]
    settings: Packed


class Endpoints(Frame):
    """``version`` grows; a Snapshot says which one its worker knows."""

    version: int
    rows: list[EndpointRow]
    models: list[str] = []


class Traffic(Frame):
    """Weights of a model's revisions; none: all its endpoints share. Without a shadow nothing is copied."""

    model: str
    weights: dict[str, float]
    shadow: Shadow | None = None


class Health(Frame):
    rows: list[HealthRow]


class Configure(Frame):
    settings: Packed


class Report(Frame):
    round: int


class Text(Frame):
    """``openmetrics``: the format that was asked for."""

    text: bytes
    openmetrics: bool = False


class CacheAsk(Frame):
    """``name`` and ``body``: of the admin route; ``number`` comes back with the answer."""

    number: int
    name: str
    body: bytes


class CacheAnswer(Frame):
    """``body``: JSON; where ``status`` is not 200, the message of an error."""

    number: int
    status: int
    body: bytes


class Accept(Frame):
    """The whole list of foreign rows: those missing from it are given back."""

    rows: list[int]


class Drain(Frame):
    pass


class Retire(Frame):
    pass


class Exit(Frame):
    pass


class Serving(Frame):
    pass


class Snapshot(Frame):
    """``round``: of the Report that it answers, 0 for none."""

    round: int
    version: int
    growing: Rows
    gauges: Rows
    exemplars: list[ExemplarRow] = []


class Failed(Frame):
    pass


class Metrics(Frame):
    openmetrics: bool = False


class Leaving(Frame):
    pass


class Drained(Frame):
    pass


ToWorker = Setup | Endpoints | Traffic | Health | Configure | Report | Text | CacheAsk | Accept | Drain | Retire | Exit
ToParent = Serving | Snapshot | Failed | Metrics | CacheAnswer | Leaving | Drained
_ENCODE = msgspec.msgpack.Encoder().encode


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Take bytes as they come, return the frames that are complete now.

        Raises:
            ValueError: what came is no frame; the stream cannot be used any more.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Any] = []
        start = 0
        while len(buffer) - start >= _LENGTH:
            size = int.from_bytes(buffer[start : start + _LENGTH], "big")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {size} bytes is too large")
            end = start + _LENGTH + size
            if len(buffer) < end:
                break
            frames.append(self._frame(bytes(buffer[start + _LENGTH : end])))
            start = end
        del buffer[:start]
        return frames

    def _frame(self, body: bytes) -> Any:
        try:
            return self._decode(body)
        except msgspec.MsgspecError as exc:
            raise ValueError(f"what came is no frame: {exc}") from exc


def frame_bytes(frame: Frame) -> bytes:
    """The bytes of one frame."""
    body = _ENCODE(frame)
    return len(body).to_bytes(_LENGTH, "big") + body


class Channel(asyncio.Protocol):
    """One end of the socket between a parent and a worker."""

    transport: asyncio.WriteTransport

    def __init__(self, kind: Any, received: Callable[[Any], None], closed: Callable[[], None]) -> None:
        """``received`` gets each frame; ``closed`` is called once, last, when the other side is gone."""
        self._reader = FrameReader(kind)
        self._received = received
        self._closed = closed
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self._open = True

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
        except ValueError:
            self.transport.abort()
            return
        for frame in frames:
            self._received(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open = False
        self._closed()

    def send(self, frame: Frame) -> None:
        """Send one frame; nothing happens when the other side is gone."""
        self.send_bytes(frame_bytes(frame))

    def send_bytes(self, data: bytes) -> None:
        """Send what :func:`frame_bytes` has made."""
        if self._open:
            self.transport.write(data)

    @property
    def backlog(self) -> int:
        """Bytes that the other side has not read yet."""
        return self.transport.get_write_buffer_size() if self._open else 0

    def close(self) -> None:
        """End the conversation."""
        self.transport.close()
