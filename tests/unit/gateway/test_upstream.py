"""One connection to a replica without a socket: when it may serve another request, and when an answer is whole."""

from __future__ import annotations

from inferdock.gateway.upstream import MAX_IDLE_S, UpstreamConnection, UpstreamPool
from inferdock.wire.http1 import ResponseHead
from tests.fuzz.drive import FakeLoop, FakeTransport

ADDRESS = ("127.0.0.1", 1)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nall of it"


class Transport(FakeTransport):
    """Attributes:
    writes: what was given to ``write``, uncopied.
    unsent: bytes that the replica has not taken yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_reading(self) -> bool:
        return self.reading


class Answer:
    """What a receiver was told."""

    def __init__(self, connection: UpstreamConnection, *, pause: bool = False) -> None:
        self.body = b""
        self.done = False
        self.failed = ""
        self.stale = False
        self._connection = connection
        self._pause = pause

    def response_head(self, head: ResponseHead) -> None:
        self.head = head

    def response_body(self, data: bytes, payloads: list[tuple[int, int]]) -> None:
        self.body += data
        if self._pause:
            self._connection.transport.pause_reading()

    def response_done(self) -> None:
        self.done = True

    def response_failed(self, reason: str, *, stale: bool) -> None:
        self.failed, self.stale = reason, stale


def connected() -> tuple[UpstreamPool, UpstreamConnection, Transport]:
    pool = UpstreamPool(loop=FakeLoop(), connect_timeout_s=1.0)  # type: ignore[arg-type]
    connection = UpstreamConnection(pool, ADDRESS)
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return pool, connection, transport


def test_a_connection_serves_again_after_a_whole_answer():
    pool, connection, _ = connected()
    answer = Answer(connection)
    connection.send(b"x", answer, silence_s=1)
    connection.data_received(SIZED)
    assert (answer.done, answer.body) == (True, b"{}")
    assert pool.take_idle(ADDRESS) is connection


def test_a_connection_that_was_paused_for_its_client_reads_again_for_the_next():
    pool, connection, transport = connected()
    connection.send(b"x", Answer(connection, pause=True), silence_s=1)
    connection.data_received(SIZED)
    assert transport.reading
    assert pool.take_idle(ADDRESS) is connection


def test_a_connection_with_unsent_bytes_is_not_used_again():
    pool, connection, transport = connected()
    answer = Answer(connection)
    connection.send(b"x", answer, silence_s=1)
    transport.unsent = 10
    connection.data_received(SIZED)
    assert answer.done
    assert transport.closed
    assert pool.take_idle(ADDRESS) is None


def test_a_connection_with_surplus_bytes_is_not_used_again():
    pool, connection, transport = connected()
    connection.send(b"x", Answer(connection), silence_s=1)
    connection.data_received(SIZED + b"HTTP/1.1 200 OK\r\n")
    assert transport.closed
    assert pool.take_idle(ADDRESS) is None


def test_a_replica_that_speaks_unasked_is_left():
    pool, connection, transport = connected()
    pool.give_back(connection)
    connection.data_received(SIZED)
    assert transport.closed
    assert pool.take_idle(ADDRESS) is None


def test_a_close_completes_a_body_that_ends_by_close():
    _, connection, _ = connected()
    answer = Answer(connection)
    connection.send(b"x", answer, silence_s=1)
    connection.data_received(UNTIL_CLOSE)
    connection.connection_lost(None)
    assert (answer.done, answer.body) == (True, b"all of it")


def test_a_reset_does_not_complete_it():
    _, connection, _ = connected()
    answer = Answer(connection)
    connection.send(b"x", answer, silence_s=1)
    connection.data_received(UNTIL_CLOSE)
    connection.connection_lost(ConnectionResetError())
    assert not answer.done
    assert answer.failed


def test_only_an_idle_connection_can_be_stale():
    pool, connection, _ = connected()
    pool.give_back(connection)
    assert pool.take_idle(ADDRESS) is connection
    answer = Answer(connection)
    connection.send(b"x", answer, silence_s=1)
    connection.connection_lost(ConnectionResetError())
    assert answer.stale
    _, fresh, _ = connected()
    answer = Answer(fresh)
    fresh.send(b"x", answer, silence_s=1)
    fresh.connection_lost(None)
    assert answer.failed
    assert not answer.stale


def test_a_large_body_is_written_without_a_copy():
    _, connection, transport = connected()
    body = b"x" * 1_000_000
    connection.send(b"head", Answer(connection), silence_s=1, body=body)
    assert transport.writes[1] is body
    connection.send(b"head", Answer(connection), silence_s=1, body=b"small")
    assert transport.writes[2] == b"headsmall"


def test_the_answer_to_head_frees_the_connection():
    pool, connection, _ = connected()
    answer = Answer(connection)
    connection.send(b"x", answer, silence_s=1, bodiless=True)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    assert (answer.done, answer.body, answer.head.length) == (True, b"", 10)
    assert pool.take_idle(ADDRESS) is connection


def test_an_idle_connection_is_kept_for_a_minute():
    pool, connection, transport = connected()
    connection.send(b"x", Answer(connection), silence_s=600)
    connection.data_received(SIZED)
    pool.check_time(pool.loop.time() + MAX_IDLE_S - 1)
    assert not transport.closed
    pool.check_time(pool.loop.time() + MAX_IDLE_S + 1)
    assert transport.closed


def test_a_connection_in_use_is_held_to_its_silence_only():
    pool, connection, transport = connected()
    pool._all.add(connection)
    answer = Answer(connection)
    connection.send(b"x", answer, silence_s=600)
    pool.check_time(pool.loop.time() + 599)
    assert not transport.closed
    pool.check_time(pool.loop.time() + 601)
    assert "silent" in str(answer.failed)
