"""What happens to a replica's body bytes on their way to the client; one kind of relay for each kind of answer.

* :class:`BodyRelay`: bytes go on as they came; the end is kept to find the usage in.
* :class:`EventRelay`: the same for streams that nobody follows; the usage event that only we asked for is taken out.
* :class:`FollowedStream`: a stream of one text, followed token by token, so that another replica can continue it.

A relay returns bytes ready to be written: framed in chunks unless the client speaks HTTP/1.0.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from inferdock.wire.continuation import Continuation, NotResumable, ResumeMode, continuation, stops_of
from inferdock.wire.http1 import LAST_CHUNK, ResponseHead, chunk
from inferdock.wire.openai import CHAT, NO_CHOICES, RequestFields, Usage, find_usage, raw
from inferdock.wire.resumed_stream import Diverged, ResumedStream, StopGuard
from inferdock.wire.stream_tracker import StreamTracker

MAX_USAGE_TAIL_BYTES = 64 * 1024
"""End of a JSON answer that is kept to find its usage in; longer answers keep only their end."""

Places = list[tuple[int, int]]


class Relay(Protocol):
    """Takes body bytes of the replica, gives bytes for the client."""

    @property
    def usage(self) -> Usage | None:
        """Token counts as the engine reports them."""

    @property
    def tokens(self) -> int:
        """Output tokens that went to the client, as exactly as is known."""

    @property
    def broken(self) -> str:
        """Why the replica's answer is lost although its bytes are valid; "" while it is not."""

    def take(self, data: bytes, payloads: Places) -> bytes:
        """Bytes for the client; ``payloads`` are the places of chunk payloads in ``data`` (chunked answers only)."""

    def end(self) -> bytes:
        """What the client still gets when the replica's answer is complete."""


class BodyRelay:
    """A body that is no event stream."""

    __slots__ = ("_joined", "_tail", "usage")

    broken = ""

    def __init__(self, head: ResponseHead, *, http10: bool, whole: bytes = b"") -> None:
        """``whole``: the body, where it is known already."""
        self._joined = head.chunked and http10
        self._tail = b""
        self.usage: Usage | None = find_usage(whole) if whole else None

    @property
    def tokens(self) -> int:
        return self.usage.completion_tokens if self.usage is not None else 0

    def take(self, data: bytes, payloads: Places) -> bytes:
        self._tail = (self._tail + data)[-MAX_USAGE_TAIL_BYTES:] if self._tail else data
        return _joined(data, payloads) if self._joined else data

    def end(self) -> bytes:
        self.usage = find_usage(self._tail)
        return b""


class EventRelay:
    """An event stream that is not followed; each chunk counts as a token when the engine reports no usage."""

    __slots__ = ("_chunked", "_chunks", "_drop_usage", "_http10", "usage")

    broken = ""

    def __init__(self, head: ResponseHead, *, http10: bool, drop_usage: bool) -> None:
        self._chunked = head.chunked
        self._chunks = 0
        self._http10 = http10
        self._drop_usage = drop_usage
        self.usage: Usage | None = None

    @property
    def tokens(self) -> int:
        return self.usage.completion_tokens if self.usage is not None else self._chunks

    def take(self, data: bytes, payloads: Places) -> bytes:
        self._chunks += len(payloads)
        if b'"usage"' in data:
            self.usage = find_usage(data) or self.usage
            if self._drop_usage and NO_CHOICES.search(data):
                return self._without_usage(data, payloads)
        if self._chunked and self._http10:
            return _joined(data, payloads)
        return data

    def _without_usage(self, data: bytes, payloads: Places) -> bytes:
        kept: list[bytes] = []
        position = 0
        for start, end in payloads:
            payload = data[start:end]
            if NO_CHOICES.search(payload):
                payload = without_usage_events(payload)
                self._chunks -= 1
                if payload:
                    kept.append(payload if self._http10 else chunk(payload))
            else:
                kept.append(payload if self._http10 else data[position : end + 2])
            position = end + 2
        if not self._http10:
            kept.append(data[position:])
        return b"".join(kept)

    def end(self) -> bytes:
        return b""


class FollowedStream:
    """A stream of one text that can go on at another replica.

    Attributes:
        tracker: what the client has.
        chunked: the replica that answers now frames its body in chunks.
    """

    __slots__ = (
        "_body",
        "_drop_usage",
        "_fields",
        "_http10",
        "_path",
        "_rest",
        "broken",
        "chunked",
        "mode",
        "tracker",
    )

    def __init__(
        self,
        *,
        mode: ResumeMode,
        fields: RequestFields,
        path: bytes,
        body: bytes,
        http10: bool,
        drop_usage: bool,
    ) -> None:
        """``body`` is the client's body as it was sent to the first replica, wishes included."""
        self.mode = mode
        self._fields = fields
        self._path = path
        self._body = body
        self._http10 = http10
        self._drop_usage = drop_usage
        self._rest: ResumedStream | None = None
        self.chunked = True
        self.broken = ""
        self.tracker = StreamTracker(
            keep_text=mode is ResumeMode.REPLAY or self.needs_seam,
            hide_ids=not self._shows_ids,
            hide_usage=drop_usage,
        )

    @property
    def usage(self) -> Usage | None:
        """As the engine reports it, over all replicas that took part."""
        return self.tracker.usage

    @property
    def tokens(self) -> int:
        usage = self.tracker.usage
        if usage is not None:
            return usage.completion_tokens
        return self.tracker.count or self.tracker.events

    @property
    def needs_seam(self) -> bool:
        """Continuing needs the text of all ids: an engine that looks for stop strings holds text back, and ids that
        the client has seen must not be generated again."""
        return self.mode is ResumeMode.CONTINUE and (raw(self._fields.stop) not in (b"", b"[]") or self._shows_ids)

    @property
    def _shows_ids(self) -> bool:
        return raw(self._fields.return_token_ids) == b"true"

    @property
    def sent_text(self) -> str:
        """Text that the client has (only kept where it is needed)."""
        return unescape(bytes(self.tracker.text))

    def take(self, data: bytes, payloads: Places) -> bytes:
        if self.chunked:
            data = _joined(data, payloads)
        if not data:
            return b""
        try:
            out = self._rest.feed(data) if self._rest is not None else self.tracker.feed(data)
        except Diverged as exc:
            self.broken = str(exc)
            self.tracker.lost = str(exc)
            return b""
        self.broken = self.tracker.broken
        return self._framed(out)

    def end(self) -> bytes:
        """The end of the body; an answer that ends without its finish reason was cut by a replica in a hurry."""
        tracker = self.tracker
        if not tracker.finished and not tracker.done and not tracker.lost and tracker.first_event:
            self.broken = "the replica ended the stream early"
            return b""
        return b"" if self._http10 else LAST_CHUNK

    @property
    def ended(self) -> bool:
        """The client has its whole answer although the replica would go on."""
        return self._rest is not None and self._rest.ended

    # -- Going on elsewhere ----------------------------------------------------------------------------------

    def why_not(self) -> str:
        """Why the stream cannot be resumed, "" when it can be tried."""
        if self.mode is ResumeMode.NONE:
            return "this kind of request cannot be resumed"
        return self.tracker.lost

    def rest_request(self, max_model_len: int | None) -> Continuation:
        """The request for the rest of the answer.

        Raises:
            NotResumable: it cannot go on.
        """
        tracker = self.tracker
        self.broken = ""
        tracker.cut()
        if tracker.finished:
            return Continuation(self._path, b"", ended=True)
        if self.mode is ResumeMode.REPLAY or not tracker.count:
            tracker.restart()
            return Continuation(self._path, self._body, replay=True)
        if not self.needs_seam:
            tracker.rewind()
        return continuation(tracker, self._body, self._path, max_model_len)

    def seam(self, text: str) -> StopGuard:
        """Guard for the seam; ``text`` is the text of all ids so far.

        Raises:
            NotResumable: the client has another text.
        """
        sent = self.sent_text
        if not text.startswith(sent):
            raise NotResumable("the text of the token ids differs from the text that was sent")
        stops = stops_of(self._body)
        return StopGuard(
            stops.texts,
            keep_stop=stops.shown,
            min_tokens=stops.min_tokens,
            before=text,
            unsent=text[len(sent) :],
        )

    def go_on(self, *, replay: bool, guard: StopGuard | None = None) -> bytes:
        """From now on :meth:`take` gets the other replica's stream; returns what the client gets at once."""
        options = self._fields.stream_options
        self._rest = ResumedStream(
            self.tracker,
            chat=self._path == CHAT,
            show_usage=not self._drop_usage and options is not None and options.include_usage is True,
            running_usage=options is not None and options.continuous_usage_stats is True,
            show_ids=self._shows_ids,
            guard=guard,
            skip=self.sent_text if replay else "",
        )
        return self._framed(self._rest.lead())

    def finish(self) -> bytes:
        """End an answer to which nothing is missing but its end."""
        if self._rest is None:
            self.go_on(replay=False)
        assert self._rest is not None
        return self._framed(self._rest.ending())

    def _framed(self, payload: bytes) -> bytes:
        return payload if self._http10 or not payload else chunk(payload)


def unescape(text: bytes) -> str:
    """Text of the inside of a JSON string (or of several, joined)."""
    return msgspec.json.decode(b'"' + text + b'"', type=str)


def without_usage_events(payload: bytes) -> bytes:
    """Take events without choices out of the payload of a chunk."""
    events = payload.split(b"\n\n")
    return b"\n\n".join([event for event in events if not NO_CHOICES.search(event)])


def _joined(data: bytes, payloads: Places) -> bytes:
    """The payloads without their framing."""
    if len(payloads) == 1:
        start, end = payloads[0]
        return data[start:end]
    return b"".join([data[start:end] for start, end in payloads])
