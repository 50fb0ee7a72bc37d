"""Stands between an exchange and its client, and remembers the answer so that a copy's can be compared with it.

Everything goes to the client first. What gets too long, is cut or refused is forgotten at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from inferdock.domain.errors import RequestError
from inferdock.gateway.answer import Outlet
from inferdock.gateway.exchange import Exchange
from inferdock.gateway.http_server import Listener
from inferdock.gateway.shadow.order import Order
from inferdock.wire.http1 import Header, ResponseHead

MAX_ANSWER_BYTES = 1024 * 1024
"""Longest answer that is compared, framing included."""


class Holder(Protocol):
    """Who wants to know (``shadows.Shadows``)."""

    def may_hold(self, size: int) -> bool:
        """Whether so many bytes more may be remembered; they are counted if so."""

    def seen(self, witness: Witness) -> None:
        """The client has its whole answer."""

    def gone(self, witness: Witness, why: str) -> None:
        """Nothing will come of this one; ``why`` is an outcome of the metrics."""


class Witness:
    """An :class:`~inferdock.gateway.answer.Outlet` around another one.

    Attributes:
        order: the copy that is to be sent.
        held: bytes that are remembered, the request's body among them.
        revision: that answered the client; "" before its end.
        stream: the answer came as events.
    """

    __slots__ = ("_framed", "_holder", "_live", "_outlet", "_parts", "held", "order", "revision", "stream")

    def __init__(self, outlet: Outlet, order: Order, holder: Holder) -> None:
        self._outlet = outlet
        self._holder = holder
        self._parts: list[bytes] = []
        self._framed = False
        self._live = True
        self.order = order
        self.held = len(order.body)
        self.revision = ""
        self.stream = False

    def after(self, over: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
        """Hear how the exchange ended, before ``over`` does."""

        def ended(exchange: Exchange) -> None:
            self.revision = exchange.revision
            if exchange.outcome != "answered":
                self._forget("skipped")
            over(exchange)

        return ended

    def pieces(self, size: int) -> list[bytes]:
        """The body without framing, in pieces of about so many bytes."""
        body = b"".join(self._parts)
        body = _unchunked(body) if self._framed else body
        return [body[start : start + size] for start in range(0, len(body), size)]

    def _take(self, data: bytes) -> None:
        if not self._live or not data:
            return
        if self.held + len(data) > MAX_ANSWER_BYTES:
            self._forget("too_large")
        elif not self._holder.may_hold(len(data)):
            self._forget("busy")
        else:
            self.held += len(data)
            self._parts.append(data)

    def _forget(self, why: str) -> None:
        if self._live:
            self._live = False
            self._parts = []
            self._holder.gone(self, why)

    # -- Outlet ----------------------------------------------------------------------------------------------

    @property
    def status(self) -> int:
        """As the client got it, 0 before."""
        return self._outlet.status

    @status.setter
    def status(self, status: int) -> None:
        self._outlet.status = status

    @property
    def extra(self) -> Sequence[Header]:
        """Further headers of ours."""
        return self._outlet.extra

    @extra.setter
    def extra(self, extra: Sequence[Header]) -> None:
        self._outlet.extra = extra

    @property
    def begun(self) -> bool:
        """The head has been written."""
        return self._outlet.begun

    @property
    def chunked(self) -> bool:
        """Bodies come framed in chunks."""
        return self._outlet.chunked

    @property
    def takes_beats(self) -> bool:
        """:meth:`beat` may be called."""
        return self._outlet.takes_beats

    def listen(self, listener: Listener) -> None:
        """Tell this one what the client does."""
        self._outlet.listen(listener)

    def begin(self, response: ResponseHead, first: bytes, *, framed_by_us: bool, extra: bytes) -> None:
        """Head and first bytes of the body."""
        self._outlet.begin(response, first, framed_by_us=framed_by_us, extra=extra)
        self._framed = self._outlet.chunked and (framed_by_us or response.chunked)
        self.stream = response.event_stream
        self._take(first)

    def write(self, data: bytes) -> None:
        """More of the body."""
        self._outlet.write(data)
        self._take(data)

    def beat(self) -> None:
        """The client of a stream is still being waited for."""
        self._outlet.beat()

    def refuse(self, error: RequestError, *, bodiless: bool) -> None:
        """Answer with an error instead."""
        self._outlet.refuse(error, bodiless=bodiless)
        self._forget("skipped")

    def cut(self, error: RequestError, *, readable: bool) -> None:
        """The body cannot be completed."""
        self._outlet.cut(error, readable=readable)
        self._forget("skipped")

    def finish(self, last: bytes = b"") -> None:
        """The answer is complete."""
        self._outlet.finish(last)
        self._take(last)
        if self._live:
            self._holder.seen(self)


def _unchunked(framed: bytes) -> bytes:
    """The payloads of chunks; the framing is ours, or was checked when it came."""
    payloads: list[bytes] = []
    place = 0
    while (end := framed.find(b"\r\n", place)) >= 0:
        size = int(framed[place:end].partition(b";")[0], 16)
        if not size:
            break
        payloads.append(framed[end + 2 : end + 2 + size])
        place = end + size + 4
    return b"".join(payloads)
