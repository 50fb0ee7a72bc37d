"""Limits of a key: requests and tokens per minute, streams at once, the same for all workers of one gateway.

The pipeline asks :meth:`Limiter.admit` once per request and calls :meth:`Admission.release` when it is over. Counters
live on a :class:`~inferdock.balance.board.Board`: each worker writes its own row, and decides on the sum over all rows.
Nothing is locked, so N workers that decide at the same instant may let in up to N - 1 requests too many.

A minute slides by two counters, this clock minute's and the last one's, which counts for the share of it that is less
than 60 s ago, as if spread evenly. So no clock minute gets more than the limit, and no 60 s more than twice the limit.

A rate's cell holds ``minute << 36 | count`` and even and odd minutes have cells of their own: one write replaces both
parts, a cell of another minute is seen to be stale, and nobody has to clear the rows of idle workers.
"""

from __future__ import annotations

import math
import re
from typing import Final

from inferdock.balance.board import Board
from inferdock.domain.errors import RequestError
from inferdock.keys.key import ANONYMOUS, MAX_KEYS, Key
from inferdock.wire.http1 import Header

WINDOW_S: Final = 60
_CELLS = 5  # of one key: requests even, requests odd, tokens even, tokens odd, streams
_TOKENS = 2
_STREAMS = 4
COLUMNS: Final = MAX_KEYS * _CELLS
"""Columns that a board must have for a :class:`Limiter` (0.4 MB per row; pages that no key touches cost nothing)."""

_SHIFT = 36
_MASK = (1 << _SHIFT) - 1  # 6.9e10, the most that a minute can count
_TOLERANCE = 1e-6  # of a request; rounding must not refuse what the Retry-After promised

_STREAM_WAIT_S = 1.0  # a stream is free when one of the key's own ends, which nobody knows

_REQUEST_NAMES = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKEN_NAMES = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")

BYTES_PER_TOKEN: Final = 4
"""Of JSON around English text, roughly; the estimate is corrected by the answer's usage."""
PICTURE_TOKENS: Final = 1000
"""Estimate for one inline picture, whatever its size in base 64."""
_INLINE = re.compile(rb";base64,[A-Za-z0-9+/=]+")


class RateLimitError(RequestError):
    """429: a limit of the key is reached. :attr:`headers` go with the answer."""

    def __init__(self, message: str, *, kind: str, retry_after_s: int | None, headers: list[Header]) -> None:
        super().__init__(429, message, kind=kind, code="rate_limit_exceeded", retry_after_s=retry_after_s)
        self.headers = headers


class Admission:
    """One admitted request."""

    __slots__ = ("_base", "_key", "_limiter", "_now", "_reserved", "_streaming")

    # Positional, and as little work as can be: one is made per request.
    def __init__(self, limiter: Limiter, key: Key, base: int, now: float, reserved: int, streaming: bool) -> None:
        self._limiter = limiter
        self._key = key
        self._base = base
        self._now = now
        self._reserved = reserved
        self._streaming = streaming

    def headers(self, now: float) -> list[Header]:
        """``x-ratelimit-*`` of the limits that the key has, as they stand now; none for a key without limits."""
        return self._limiter.headers(self._key, now) if self._key.limited else []

    def used_tokens(self, count: int, now: float) -> None:
        """Replace the estimate by what the answer used; may be called again with a better count.

        What was used beyond the estimate is booked now; what was not used is given back to the minute that it was
        taken from, if that still counts.

        Args:
            count: prompt and output tokens together; 0 for a request that no replica took.
            now: seconds, of the clock that :meth:`Limiter.admit` got.
        """
        if self._key.tokens_per_minute is None:
            return
        more = max(0, count) - self._reserved
        self._reserved += more
        if more > 0:
            self._limiter.book(self._base + _TOKENS, int(now) // WINDOW_S, more)
        elif more < 0:
            self._limiter.give_back(self._base + _TOKENS, int(self._now) // WINDOW_S, -more)

    def release(self) -> None:
        """The request is over: give its stream back. Further calls do nothing."""
        if self._streaming:
            self._streaming = False
            self._limiter.board.add(self._base + _STREAMS, -1)


class Limiter:
    """Admits requests within the limits of their keys.

    Args:
        board: shared by the workers; only this process writes its row. The parent clears the row of a dead worker,
            which gives its streams back and forgets its share of the last minute.
        first_column: where the limiter's :data:`COLUMNS` columns begin.

    Raises:
        ValueError: the board has too few columns.
    """

    __slots__ = ("_first", "_unlimited", "board")

    def __init__(self, board: Board, *, first_column: int = 0) -> None:
        if first_column < 0 or board.columns < first_column + COLUMNS:
            raise ValueError(f"the limiter needs {COLUMNS} columns from {first_column} on; there are {board.columns}")
        self.board = board
        self._first = first_column
        self._unlimited = Admission(self, ANONYMOUS, first_column, 0.0, 0, False)

    def admit(self, key: Key, *, stream: bool, now: float, tokens: int = 0) -> Admission:
        """Count a request in, or refuse it without counting anything.

        Args:
            key: of :meth:`~inferdock.gateway.auth.Authenticator.authenticate`.
            stream: the answer will be streamed.
            now: seconds of a clock that never goes back and that all workers share, such as ``time.monotonic``.
            tokens: what the request may use, see :func:`estimate_tokens`; only read if the key has such a limit.

        Raises:
            RateLimitError: a limit is reached.
        """
        if not key.limited:
            return self._unlimited
        base = self._first + key.slot * _CELLS
        minute = int(now) // WINDOW_S
        left = 1.0 - (now - minute * WINDOW_S) / WINDOW_S
        rpm, tpm, streams = key.requests_per_minute, key.tokens_per_minute, key.concurrent_streams
        if tpm is not None:
            tokens = min(max(0, tokens), _MASK)  # clients may write any number
        if rpm is not None:
            current, previous = self._counts(base, minute)
            if current + previous * left + 1 > rpm + _TOLERANCE:
                raise self._refusal(key, now, stream, tokens)
        if tpm is not None:
            current, previous = self._counts(base + _TOKENS, minute)
            if current + previous * left + tokens > tpm + _TOLERANCE:
                raise self._refusal(key, now, stream, tokens)
        streaming = False
        if stream and streams is not None:
            streaming = True
            if self.board.total(base + _STREAMS) >= streams:
                raise self._refusal(key, now, stream, tokens)
            self.board.add(base + _STREAMS, 1)
        if rpm is not None:
            self.book(base, minute, 1)
        if tpm is not None:
            self.book(base + _TOKENS, minute, tokens)
        return Admission(self, key, base, now, tokens, streaming)

    def headers(self, key: Key, now: float) -> list[Header]:
        """``x-ratelimit-*`` of the limits that a key has; ``now`` as for :meth:`admit`."""
        found: list[Header] = []
        base = self._first + key.slot * _CELLS
        minute = int(now) // WINDOW_S
        into_s = now - minute * WINDOW_S
        if key.requests_per_minute is not None:
            _add_headers(found, _REQUEST_NAMES, key.requests_per_minute, self._counts(base, minute), into_s)
        if key.tokens_per_minute is not None:
            _add_headers(found, _TOKEN_NAMES, key.tokens_per_minute, self._counts(base + _TOKENS, minute), into_s)
        return found

    def streams(self, key: Key) -> int:
        """Streams of the key that are open now, in all workers, if it has a limit on them."""
        return self.board.total(self._first + key.slot * _CELLS + _STREAMS)

    def book(self, column: int, minute: int, amount: int) -> None:
        """Add to our own count of a minute."""
        column += minute & 1
        cell = self.board.own(column)
        if cell >> _SHIFT == minute and (cell & _MASK) + amount <= _MASK:
            self.board.set(column, cell + amount)
        else:  # the cell is of an older minute; or it is full, then it stays so
            count = (cell & _MASK if cell >> _SHIFT == minute else 0) + amount
            self.board.set(column, minute << _SHIFT | min(count, _MASK))

    def give_back(self, column: int, minute: int, amount: int) -> None:
        """Take from our own count of a minute, if it is still kept."""
        column += minute & 1
        cell = self.board.own(column)
        if cell >> _SHIFT == minute:
            self.board.set(column, cell - min(amount, cell & _MASK))

    def _counts(self, column: int, minute: int) -> tuple[int, int]:
        """Of this minute and of the one before, over all workers."""
        now_at = column + (minute & 1)
        then_at = column + 1 - (minute & 1)
        board = self.board
        if board.rows == 1:
            now, then = board.own(now_at), board.own(then_at)
            return now & _MASK if now >> _SHIFT == minute else 0, then & _MASK if then >> _SHIFT == minute - 1 else 0
        current = previous = 0
        for row in range(board.rows):
            now, then = board.of_row(row, now_at), board.of_row(row, then_at)
            if now >> _SHIFT == minute:
                current += now & _MASK
            if then >> _SHIFT == minute - 1:
                previous += then & _MASK
        return current, previous

    def _refusal(self, key: Key, now: float, stream: bool, tokens: int) -> RateLimitError:
        """Name the limit that takes longest to have room again."""
        headers = self.headers(key, now)
        base = self._first + key.slot * _CELLS
        minute = int(now) // WINDOW_S
        into_s = now - minute * WINDOW_S
        rpm, tpm, streams = key.requests_per_minute, key.tokens_per_minute, key.concurrent_streams
        waits = [(0.0, "", "")]
        if rpm is not None:
            waits.append((wait_s(rpm, self._counts(base, minute), into_s, 1), "requests", f"{rpm} requests per minute"))
        if tpm is not None:
            if tokens > tpm:
                return _too_large(tokens, tpm, headers)
            token_wait_s = wait_s(tpm, self._counts(base + _TOKENS, minute), into_s, tokens)
            waits.append((token_wait_s, "tokens", f"{tpm} tokens per minute"))
        if stream and streams is not None and self.streams(key) >= streams:
            waits.append((_STREAM_WAIT_S, "streams", f"{streams} streams at once"))
        longest_s, kind, limit = max(waits)
        retry_after_s = max(1, math.ceil(longest_s))
        message = f"The key's limit of {limit} is reached. Try again in {duration(retry_after_s).decode()}."
        return RateLimitError(message, kind=kind, retry_after_s=retry_after_s, headers=headers)


def _too_large(tokens: int, limit: int, headers: list[Header]) -> RateLimitError:
    message = (
        f"The request may use {tokens} tokens, and the key's limit is {limit} per minute. "
        "Send less, or lower `max_tokens`."
    )
    return RateLimitError(message, kind="tokens", retry_after_s=None, headers=headers)


def wait_s(limit: int, counts: tuple[int, int], into_s: float, need: int) -> float:
    """Seconds until ``need`` (at most ``limit``) more fit into a minute, if nobody else asks.

    Args:
        counts: of this clock minute and of the one before.
        into_s: seconds since this clock minute began.
    """
    current, previous = counts
    room = limit - need
    if current + previous * (1.0 - into_s / WINDOW_S) <= room + _TOLERANCE:
        return 0.0
    if current <= room:  # enough of the last minute slides out before this one ends
        return max(0.0, WINDOW_S * (1.0 - (room - current) / previous) - into_s)
    return WINDOW_S - into_s + WINDOW_S * (1.0 - room / current)


def _add_headers(
    found: list[Header], names: tuple[bytes, bytes, bytes], limit: int, counts: tuple[int, int], into_s: float
) -> None:
    """Limit, what remains of it, and the time until all of it is back (OpenAI's meaning of ``reset``)."""
    current, previous = counts
    remaining = int(limit - current - previous * (1.0 - into_s / WINDOW_S) + _TOLERANCE)
    end_s = 2 * WINDOW_S if current else WINDOW_S if previous else into_s
    found.append((names[0], b"%d" % limit))
    found.append((names[1], b"%d" % remaining if remaining > 0 else b"0"))
    found.append((names[2], _DURATIONS[math.ceil(end_s - into_s)]))


def duration(seconds: int) -> bytes:
    """Whole seconds as OpenAI spells them: ``1s``, ``6m0s``."""
    return b"%ds" % seconds if seconds < 60 else b"%dm%ds" % divmod(seconds, 60)


_DURATIONS: Final = tuple(duration(seconds) for seconds in range(2 * WINDOW_S + 1))


def estimate_tokens(body: bytes, max_tokens: int | None) -> int:
    """What a request may use, before anybody has counted: its bytes, inline pictures apart, plus ``max_tokens``.

    Costs about 0.1 µs plus the search for pictures, which runs at some GB/s.
    """
    size = len(body)
    pictures = 0
    if b";base64," in body:
        for place in _INLINE.finditer(body):
            pictures += 1
            size -= place.end() - place.start()
    return size // BYTES_PER_TOKEN + 1 + pictures * PICTURE_TOKENS + max(0, max_tokens or 0)
