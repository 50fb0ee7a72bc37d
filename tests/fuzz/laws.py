"""What must hold for any bytes; used by the fuzzer and by the property tests."""

from __future__ import annotations

import re
from collections.abc import Sequence

import h11

from inferdock.wire.http1 import MAX_CHUNK_BYTES, MAX_HEAD_BYTES, ProtocolError, ResponseHeads, ResponseReader
from inferdock.wire.http_request import SLICE_BYTES
from inferdock.wire.request_head import HeadMemory
from tests.fuzz.drive import CONTINUE, Driven, Fields, answers_by_h11, drive, forwarded, read_by_h11

_ABSOLUTE = re.compile(rb"(?i)https?://([^/?]*)(.*)", re.DOTALL)
_MEMORY = HeadMemory()
"""Of all requests that were ever checked here: what one of them left behind must not change the reading of another."""

_HEADS = ResponseHeads()
"""The same for responses."""

_LONG_CHUNK_LINE = re.compile(rb"0{12}[0-9a-fA-F]*[\r;]")


def check_requests(pieces: Sequence[bytes], *, at_once: bool = True, slow: bool = False) -> None:
    """Whatever a client sends, in whatever pieces.

    Nothing escapes; each request and at most one refusal is answered once, validly and in order; what is held is
    bounded (``Driven`` checks that); pieces do not matter; h11 reads the same; what goes on means only one thing.
    """
    raw = b"".join(pieces)
    driven = drive(pieces, at_once=at_once, slow=slow, memory=_MEMORY)
    requests, refusals = driven.handler.requests, driven.handler.statuses
    assert driven.transport.closed
    assert len(refusals) <= 1
    assert answers_by_h11(requests, driven.answers, refusals=len(refusals)) == [200] * len(requests) + refusals
    assert bytes(driven.transport.written).count(CONTINUE) <= raw.lower().count(b"100-continue")
    for request in requests:
        again = read_by_h11(forwarded(request))
        assert not again.refused
        assert [(seen[0], seen[1], seen[3]) for seen in again.seen] == [(request.method, request.target, request.body)]
    if len(raw) <= SLICE_BYTES:
        whole = drive([raw])
        # This one remembers no earlier heads. Which of two faults is named may depend on the pieces: a parser sees a
        # name as soon as a part of it comes.
        assert (whole.seen, len(whole.handler.statuses)) == (driven.seen, len(refusals)), "the pieces mattered"
    check_against_h11(raw)


def check_against_h11(raw: bytes) -> None:
    """We take no request that h11 refuses or reads otherwise, and wait for no more where h11 has a request."""
    driven = Driven()
    driven.feed(raw)
    ours, refused = driven.seen, bool(driven.handler.statuses)
    theirs = read_by_h11(raw, lenient=True)
    normal = [_normal(seen) for seen in theirs.seen]
    assert [_normal(seen) for seen in ours[: len(normal)]] == normal[: len(ours)]
    if len(ours) > len(normal):
        assert theirs.closed or (_LONG_CHUNK_LINE.search(raw) and "chunk header" in theirs.refused), theirs.refused
    if len(ours) < len(normal):
        http2 = normal[len(ours)][0] == b"PRI"  # for llhttp its preface is longer than an HTTP/1.1 head
        # llhttp obeys `Connection: close` in a trailer too, and we close then, which is safe.
        closed = driven.transport.closed and b"close" in raw.lower()
        assert refused or http2 or closed, "h11 found a request where we wait for more"


def _normal(seen: Fields) -> Fields:
    """Without what the two spell differently: the absolute form."""
    method, target, headers, body = seen
    if found := _ABSOLUTE.fullmatch(target):
        target = found[2] if found[2].startswith(b"/") else b"/" + found[2]
        headers = (*(field for field in headers if field[0] != b"host"), (b"host", found[1]))
    return method, target, headers, body


# -- Responses -----------------------------------------------------------------------------------------------

Read = tuple[str, bytes, bytes, bool]
"""``done``, ``waiting`` or ``refused``; bytes handed on; payload; surplus. Refused ones count as nothing."""


def read_response(
    pieces: Sequence[bytes], *, bodiless: bool = False, eof: bool = True, heads: ResponseHeads | None = None
) -> Read:
    """What the reader makes of a response in pieces."""
    reader = ResponseReader(heads, bodiless=bodiless)
    out = payload = b""
    try:
        for piece in pieces:
            body = reader.feed(piece)
            assert reader.held_bytes <= MAX_CHUNK_BYTES + MAX_HEAD_BYTES
            if body:
                out += body
                chunked = reader.head is not None and reader.head.chunked
                payload += b"".join(body[start:end] for start, end in reader.payloads) if chunked else body
        if eof:
            reader.feed_eof()
    except ProtocolError:
        return "refused", b"", b"", False
    return "done" if reader.done else "waiting", out, payload, reader.surplus


def check_response(pieces: Sequence[bytes], *, bodiless: bool = False) -> None:
    """Whatever a replica sends: nothing but ``ProtocolError`` escapes, pieces do not matter, h11 reads the same from
    the replica's bytes and from those that go on to the client."""
    raw = b"".join(pieces)
    for eof in (False, True):
        found = read_response(pieces, bodiless=bodiless, eof=eof, heads=_HEADS)
        assert found == read_response([raw], bodiless=bodiless, eof=eof), "the pieces mattered"
    state, out, payload, _ = found
    if state != "done":
        return
    assert response_by_h11(raw, bodiless=bodiless) == payload
    reader = ResponseReader(bodiless=bodiless)
    reader.feed(raw)
    if reader.head is not None and reader.head.chunked and not bodiless:
        sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + out
        assert response_by_h11(sent) == payload
        assert out.endswith(b"0\r\n\r\n")


def response_by_h11(raw: bytes, *, bodiless: bool = False) -> bytes:
    """Payload of the response as an h11 client reads it.

    Raises:
        h11.RemoteProtocolError: it does not take it for a response.
    """
    client = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=16 * 1024 * 1024)
    client.send(h11.Request(method="HEAD" if bodiless else "GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    ended = False
    payload = b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.Data):
            payload += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return payload
        elif event is h11.NEED_DATA:
            assert not ended, "h11 waits for more"
            client.receive_data(b"")
            ended = True
