"""Keeps the workers of a gateway running: starts them, notices how they end, replaces them.

Every listening socket is open in all processes, and each worker accepts from its own. When a worker is not there, the
parent tells another to accept from that one too, so no connection waits for the replacement or is reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from inferdock.balance.board import Board
from inferdock.domain.errors import ResourceError
from inferdock.gateway.load import CONNECTIONS, IN_FLIGHT
from inferdock.gateway.workers import frames
from inferdock.gateway.workers.boards import forget_row, places

START_S = 30.0
"""Longest time from the start of a process until it serves."""
SILENT_S = 15.0
"""A worker that says nothing for so long hangs: it reports four times a second."""
STEADY_S = 10.0
"""A worker that lived so long did not die of its start: its replacement begins without a pause."""
BACKOFF_S, BACKOFF_MAX_S = 0.25, 10.0
EXIT_S = 3.0
"""Time to close everything after Exit; then SIGKILL."""


@dataclass(eq=False)
class Worker:
    """One worker process as its parent sees it.

    Attributes:
        id: never used again.
        row: its place on the boards, and its listening sockets.
        version: of the endpoint set that it knows.
        heard_at: loop time of its last word.
    """

    id: int
    row: int
    process: subprocess.Popen[bytes]
    channel: frames.Channel
    started_at: float
    heard_at: float
    version: int = 0
    serving: bool = False
    retiring: bool = False
    drained: bool = False
    accepts: list[int] = field(default_factory=list)

    @property
    def state(self) -> str:
        """For people."""
        return "draining" if self.retiring else "serving" if self.serving else "starting"


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended.

    Attributes:
        died: nobody had asked it to end.
        connections, requests: that it held in its last moment.
        status: exit status, negative for a signal.
    """

    died: bool
    connections: int
    requests: int
    status: int


class Crew:
    """The workers of one gateway.

    Attributes:
        deaths: by row, since the start.
    """

    def __init__(
        self,
        *,
        command: Sequence[str],
        setup: Callable[[], frames.Packed],
        listeners: list[list[socket.socket]],
        boards: Mapping[str, Board],
        welcome: Callable[[Worker], None],
        received: Callable[[Worker, object], None],
        ended: Callable[[Worker, End], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Nothing is started yet.

        Args:
            command: starts a worker; the descriptor of its channel is added as the last argument.
            setup: the settings for a new worker, packed.
            listeners: sockets by row; one worker per row.
            boards: shared with the workers.
            welcome: called with a new worker after its Setup, to tell it what it has to know.
            received: gets the frames that are not about the crew itself.
            ended: called once for each worker that is gone.
        """
        self._command = command
        self._setup = setup
        self._listeners = [[sock.fileno() for sock in group] for group in listeners]
        self._boards = boards
        self._welcome = welcome
        self._received = received
        self._ended = ended
        self._loop = loop
        self._workers: dict[int, Worker] = {}
        self._next_id = 1
        self._short_lives = [0] * len(listeners)
        self._burials: set[asyncio.Task[None]] = set()
        self._replacements: set[asyncio.Task[None]] = set()
        self._ending = False
        self._up = asyncio.Event()
        self._drained = asyncio.Event()
        self.deaths = [0] * len(listeners)

    # -- What the parent asks --------------------------------------------------------------------------------

    @property
    def workers(self) -> list[Worker]:
        """Those that run, in the order of their rows."""
        return [self._workers[row] for row in sorted(self._workers)]

    @property
    def serving(self) -> list[Worker]:
        """Those that accept connections."""
        return [worker for worker in self.workers if worker.serving and not worker.retiring]

    def known_version(self, newest: int) -> int:
        """The oldest endpoint set that a worker may still use."""
        return min((worker.version for worker in self._workers.values()), default=newest)

    def tell(self, frame: frames.Frame) -> None:
        """Send a frame to every worker."""
        data = frames.frame_bytes(frame)
        for worker in self._workers.values():
            worker.channel.send_bytes(data)

    # -- Life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all workers and wait until they serve.

        Raises:
            ResourceError: one does not start.
        """
        try:
            for row in range(len(self._listeners)):
                await self._spawn(row)
            async with asyncio.timeout(START_S):
                await self._up.wait()
        except (TimeoutError, OSError) as exc:
            raise ResourceError(f"A gateway worker does not start. {exc}".strip(), cure="See its log.") from exc
        if len(self.serving) < len(self._listeners):
            raise ResourceError("A gateway worker ended while it started.", cure="See its log.")

    async def _spawn(self, row: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = self._process(theirs.fileno())
        now = self._loop.time()
        channel = frames.Channel(frames.ToParent, lambda frame: self._frame(worker, frame), lambda: self._lost(worker))
        worker = Worker(self._next_id, row, process, channel, now, now)
        self._next_id += 1
        self._workers[row] = worker
        await self._loop.create_unix_connection(lambda: channel, sock=ours)
        channel.send(frames.Setup(row, places(self._boards), self._listeners, self._setup()))
        self._welcome(worker)

    def _process(self, channel_fd: int) -> subprocess.Popen[bytes]:
        board_fds = [board.fd for board in self._boards.values()]
        return subprocess.Popen(
            [*self._command, str(channel_fd)],
            stdin=subprocess.DEVNULL,
            pass_fds=[channel_fd, *board_fds, *chain.from_iterable(self._listeners)],
        )

    def check_time(self) -> None:
        """Chore of about once a second: a worker that hangs is killed, and then replaced like one that died."""
        now = self._loop.time()
        for worker in self._workers.values():
            limit = SILENT_S if worker.serving else START_S
            if now - worker.heard_at > limit:
                worker.process.kill()

    def _frame(self, worker: Worker, frame: object) -> None:
        worker.heard_at = self._loop.time()
        match frame:
            case frames.Serving():
                worker.serving = True
                self._share_listeners()
                if len(self.serving) == len(self._listeners):
                    self._up.set()
            case frames.Leaving():
                if not self._ending and not worker.retiring:
                    worker.retiring = True
                    self._share_listeners()
                    worker.channel.send(frames.Retire())
            case frames.Drained():
                worker.drained = True
                self._look_whether_drained()
            case _:
                self._received(worker, frame)

    def _share_listeners(self) -> None:
        """Have somebody accept from the sockets of every worker that is not there."""
        there = self.serving
        absent = sorted(set(range(len(self._listeners))) - {worker.row for worker in there})
        for index, worker in enumerate(there):
            rows = absent[index :: len(there)] if self._up.is_set() else []
            if rows != worker.accepts:
                worker.accepts = rows
                worker.channel.send(frames.Accept(rows))

    # -- The end of one --------------------------------------------------------------------------------------

    def _lost(self, worker: Worker) -> None:
        """Its channel is closed: it is dead, or about to be (an interpreter takes some milliseconds to end)."""
        self._background(self._burials, self._bury(worker))

    def _background(self, tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _bury(self, worker: Worker) -> None:
        grace = self._loop.time() + EXIT_S
        while worker.process.poll() is None:  # only then are the figures on its row final
            if self._loop.time() > grace:
                worker.process.kill()
            await asyncio.sleep(0.002)
        status = worker.process.returncode
        load = self._boards["load"]
        end = End(
            died=not (worker.retiring or self._ending) or status != 0,
            connections=load.of_row(worker.row, CONNECTIONS),
            requests=load.of_row(worker.row, IN_FLIGHT),
            status=status,
        )
        forget_row(self._boards, worker.row)
        self._workers.pop(worker.row, None)
        self.deaths[worker.row] += end.died
        self._ended(worker, end)
        self._share_listeners()
        self._look_whether_drained()
        if not self._up.is_set():
            self._up.set()  # the start has failed
        elif not self._ending:
            self._background(self._replacements, self._replace(worker))

    async def _replace(self, worker: Worker) -> None:
        row = worker.row
        lived_s = self._loop.time() - worker.started_at
        self._short_lives[row] = self._short_lives[row] + 1 if lived_s < STEADY_S else 0
        if self._short_lives[row] > 1:
            await asyncio.sleep(min(BACKOFF_S * 2 ** (self._short_lives[row] - 2), BACKOFF_MAX_S))
        while row not in self._workers and not self._ending:
            try:
                await self._spawn(row)
            except OSError:  # no memory or no process to be had now
                await asyncio.sleep(BACKOFF_MAX_S)

    # -- The end of all --------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Have all workers refuse new requests and finish; they go on listening, for health checks."""
        self._ending = True
        self.tell(frames.Drain())
        self._look_whether_drained()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), timeout_s)

    def _look_whether_drained(self) -> None:
        if self._ending and all(worker.drained for worker in self._workers.values()):
            self._drained.set()

    async def close(self) -> None:
        """End all workers; returns when no process is left."""
        self._ending = True
        for task in self._replacements:
            task.cancel()
        self.tell(frames.Exit())
        deadline = self._loop.time() + EXIT_S
        while self._workers:
            if self._loop.time() > deadline:
                for worker in self._workers.values():
                    worker.process.kill()
            await asyncio.sleep(0.005)
