"""One exchange's answer on its way to several clients, who may join late, read slowly or leave.

The exchange's :class:`~inferdock.gateway.answer.Outlet`: it gets bodies without framing, keeps them in parts (events of
a stream, or pieces of a body) and lets each rider take what it lacks. All parts are kept while the answer may still be
stored; a longer answer is not stored, takes no further riders, and is read no faster than its slowest rider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferdock.cache.entry import Kind
from inferdock.cache.follow import Differs, Skipping
from inferdock.domain.errors import RequestError
from inferdock.gateway.caching.rider import AnswerPart, Rider
from inferdock.gateway.http_server import Listener
from inferdock.wire.http1 import Header, ResponseHead
from inferdock.wire.openai import NO_CHOICES
from inferdock.wire.sse import EventSplitter, SseError

MAX_LAG_BYTES = 256 * 1024
"""So much may wait for a slow rider of an answer that is not kept before the replica is no longer read."""


class Broadcast:
    """Hands an answer on to riders.

    Attributes:
        status, begun, extra: see ``Outlet``; begun is also true once a heartbeat has been sent.
        head: of the replica's answer, None before it.
        kept_whole: all parts are still there: riders may join, and the answer may be stored.
        lines: for the head that each rider gets.
    """

    chunked = False
    takes_beats = True

    def __init__(
        self,
        riders: Sequence[Rider],
        *,
        max_bytes: int,
        part_taken: Callable[[bytes], None],
        finished: Callable[[], None],
        lines: Callable[[Rider], bytes],
    ) -> None:
        """``riders`` may change all the time.

        Args:
            max_bytes: longest answer that is kept.
            part_taken: gets each event, or each piece of a body, while all are kept.
            finished: the answer is complete; it ends the riders.
            lines: further lines for the head of a rider's answer.
        """
        self._riders = riders
        self._max_bytes = max_bytes
        self._part_taken = part_taken
        self._finished = finished
        self._lines = lines
        self._splitter = EventSplitter()
        self._skip: Callable[[bytes], bytes] | None = None
        self._parts: list[AnswerPart] = []
        self._bytes = 0
        self._listener: Listener | None = None
        self._upstream_paused = False
        self._extra = b""
        self.extra: Sequence[Header] = ()
        self.status = 0
        self.begun = False
        self.head: ResponseHead | None = None
        self.kept_whole = True

    def listen(self, listener: Listener) -> None:
        """This is the exchange."""
        self._listener = listener

    def leave(self) -> None:
        """Nobody is left: the exchange is given up."""
        if self._listener is not None:
            self._listener.client_gone()

    # -- From the exchange -----------------------------------------------------------------------------------

    def begin(self, response: ResponseHead, first: bytes, *, framed_by_us: bool, extra: bytes) -> None:
        """Head and first bytes."""
        self.begun = True
        self.status = response.status
        self.head = response
        self._extra = extra
        self.write(first)

    def write(self, data: bytes) -> None:
        """More bytes."""
        assert self.head is not None
        if self.head.event_stream:
            try:
                payloads = self._splitter.feed(data)
            except SseError as exc:
                self.cut(RequestError(502, f"The answer was cut: {exc}.", kind="server_error"), readable=True)
                self.leave()
                return
            if self._skip is not None:
                payloads = self._skipped(payloads, self._skip)
            for payload in payloads:
                self._take(AnswerPart(_event(payload), NO_CHOICES.search(payload) is not None))
        elif data:
            self._take(AnswerPart(data))
        self._hand_on()

    def _skipped(self, payloads: list[bytes], skip: Callable[[bytes], bytes]) -> list[bytes]:
        try:
            return [rest for rest in map(skip, payloads) if rest]
        except Differs as exc:
            self.cut(RequestError(502, f"The answer was cut: {exc}.", kind="server_error"), readable=True)
            self.leave()
            return []

    def go_on(self, kind: Kind, *, text: str, reasoning: str) -> bool:
        """The source of a stream is lost and another one begins anew: what riders have is taken out of it.

        Returns:
            False where that is impossible, because the beginning was not kept.
        """
        if not self.kept_whole:
            return False
        self._splitter = EventSplitter()
        if self._parts:
            first = self._parts[0].data.removeprefix(b"data: ").rstrip(b"\n")
            try:
                self._skip = Skipping(kind, first=first, text=text, reasoning=reasoning).take
            except Differs:
                return False
        return True

    @property
    def events(self) -> list[bytes]:
        """All parts so far, while they are kept."""
        return [part.data for part in self._parts]

    def _take(self, part: AnswerPart) -> None:
        self._parts.append(part)
        self._bytes += len(part.data)
        if self._bytes > self._max_bytes:
            self.kept_whole = False
        if self.kept_whole:
            self._part_taken(part.data)

    def beat(self) -> None:
        """Everybody waits."""
        self.begun = True
        for rider in tuple(self._riders):
            rider.beat()

    def refuse(self, error: RequestError, *, bodiless: bool) -> None:
        """Nobody gets an answer."""
        self.status = error.status
        for rider in tuple(self._riders):
            rider.cut(error)

    def cut(self, error: RequestError, *, readable: bool) -> None:
        """Nobody gets the rest."""
        for rider in tuple(self._riders):
            rider.cut(error)

    def finish(self, last: bytes = b"") -> None:
        """The answer is complete."""
        if last:
            self.write(last)
        self._finished()

    # -- To the riders ---------------------------------------------------------------------------------------

    def serve(self, rider: Rider, *, even_paused: bool = False) -> None:
        """Give a rider what it lacks, if it takes this kind of answer and reads."""
        head = self.head
        if head is None or rider.outcome or (rider.paused and not even_paused) or not self.suits(rider):
            return
        parts = self._parts[rider.cursor :]
        if not parts:
            return
        if rider.first_byte_at:
            rider.more(parts, framed=self.framed)
        else:
            rider.begin(head, parts, self._extra + self._lines(rider))

    def begin_empty(self, rider: Rider) -> None:
        """The answer has a head and no body."""
        assert self.head is not None
        rider.begin(self.head, [], self._extra + self._lines(rider))

    def suits(self, rider: Rider) -> bool:
        """A stream is for those who want one; errors and bodies are for all."""
        return self.head is not None and (not self.head.event_stream or rider.stream)

    @property
    def framed(self) -> bool:
        """Riders frame the body in chunks."""
        return self.head is not None and (self.head.event_stream or self.head.length is None)

    def _hand_on(self) -> None:
        for rider in tuple(self._riders):
            self.serve(rider)
        if not self.kept_whole:
            self._trim()

    def _trim(self) -> None:
        """Drop what all have; read no more while somebody is far behind."""
        riders = [rider for rider in self._riders if self.suits(rider)]
        done = min((rider.cursor for rider in riders), default=len(self._parts))
        del self._parts[:done]
        for rider in riders:
            rider.cursor -= done
        lag = sum(len(part.data) for part in self._parts)
        if self._listener is not None and (lag > MAX_LAG_BYTES) is not self._upstream_paused:
            self._upstream_paused = lag > MAX_LAG_BYTES
            if self._upstream_paused:
                self._listener.pause()
            else:
                self._listener.resume()

    def caught_up(self, rider: Rider) -> None:
        """A rider reads again."""
        self.serve(rider)
        if not self.kept_whole:
            self._trim()


def _event(payload: bytes) -> bytes:
    if b"\n" in payload:
        payload = payload.replace(b"\n", b"\ndata: ")
    return b"data: %b\n\n" % payload
