"""The head of a request, and the memory of heads that were read before.

Clients repeat themselves: all requests of one program carry the same head, but for the length of their body. So a
head is read and checked once, and found again by its bytes without the digits of Content-Length. What is found is
what the strict reader (``wire.http_request``) made of the very same bytes; anything unusual - chunks, expectations,
upgrades, several requests in one read - is not remembered and takes the long way.
"""

from __future__ import annotations

from inferdock.wire.http1 import Header, end_to_end, header_lines

MAX_REMEMBERED = 1024
"""Heads remembered by one process, each at most :data:`MAX_HEAD_BYTES`; when full, all are forgotten."""

MAX_HEAD_BYTES = 4096


class RequestHead:
    """Everything of a request but its body.

    Attributes:
        method: upper case.
        target: path and query as sent; the absolute form (``http://host/path``) is cut to its path.
        path: ``target`` without the query.
        headers: lower-case names, in order; trailers are not among them.
        named: the first value of each header.
        http10: the client speaks HTTP/1.0 (no chunked answers).
        keep_alive: the connection may serve another request after this one.
    """

    __slots__ = ("_forwarded", "headers", "http10", "keep_alive", "method", "named", "path", "target")

    def __init__(self, method: bytes, target: bytes, headers: list[Header], *, http10: bool, keep_alive: bool) -> None:
        self.method = method
        self.target = target
        self.path = target.partition(b"?")[0]
        self.headers = headers
        self.named = dict(reversed(headers))
        self.http10 = http10
        self.keep_alive = keep_alive
        self._forwarded: dict[frozenset[bytes], bytes] = {}

    def forwarded(self, never: frozenset[bytes]) -> bytes:
        """The lines of all headers that go on to the next server, see :func:`~inferdock.wire.http1.end_to_end`.

        ``never``: one of few constant sets; the lines are made once for each.
        """
        lines = self._forwarded.get(never)
        if lines is None:
            lines = self._forwarded[never] = header_lines(end_to_end(self.headers, never))
        return lines


class HeadMemory:
    """Heads by their bytes without the digits of Content-Length; shared by all connections of a process.

    Attributes:
        get: the head that some bytes are known to be, or None.
    """

    __slots__ = ("_heads", "get")

    def __init__(self) -> None:
        self._heads: dict[bytes, RequestHead] = {}
        self.get = self._heads.get

    def keep(self, key: bytes, head: RequestHead) -> None:
        """Remember a head that the strict reader has accepted, sized by one Content-Length and nothing else."""
        if len(key) > MAX_HEAD_BYTES:
            return
        if len(self._heads) >= MAX_REMEMBERED:
            self._heads.clear()
        self._heads[key] = head
