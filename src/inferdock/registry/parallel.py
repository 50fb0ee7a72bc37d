"""Runs the same work on many things with a few threads, and ends all of it at the first failure or Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from inferdock.registry.progress import Progress

T = TypeVar("T")
R = TypeVar("R")


class Stopped(Exception):
    """Raised within a work that is to end because another one failed; never seen outside."""


class Crew:
    """A few threads for one task; ``check`` lets long work notice that it is to end.

    Args:
        threads: how many things are worked on at once, 1 at least.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._stop = threading.Event()

    def check(self) -> None:
        """Raise :class:`Stopped` when the work is to end; called between blocks of bytes."""
        if self._stop.is_set():
            raise Stopped

    def telling(self, progress: Progress, path: str) -> Callable[[int], None]:
        """What work on a file calls with each number of bytes: it checks, then passes them on."""

        def moved(count: int) -> None:
            self.check()
            progress.moved(path, count)

        return moved

    def map(self, work: Callable[[T], R], things: Iterable[T]) -> list[R]:
        """Results of ``work`` in the order of ``things``.

        Raises:
            Exception: the first failure; by then no work runs any more.
        """
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="registry")
        futures: list[Future[R]] = []
        try:
            futures.extend(pool.submit(work, thing) for thing in things)
            wait(futures, return_when=FIRST_EXCEPTION)
            _raise_first(futures)
            return [future.result() for future in futures]
        finally:  # after a failure or Ctrl-C: what waits is dropped, what runs ends at its next check
            if not all(future.done() for future in futures):
                self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _raise_first(futures: list[Future[R]]) -> None:
    failures = [f.exception() for f in futures if f.done() and not f.cancelled() and f.exception() is not None]
    for failure in failures:
        if failure is not None and not isinstance(failure, Stopped):
            raise failure
