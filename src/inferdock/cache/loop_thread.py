"""An event loop in a thread, for callers that have none: they hand over a coroutine and wait for what it brings."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

_T = TypeVar("_T")


class Closed(ValueError):
    """There is no loop any more, or not in this process: a fork leaves threads behind."""


class LoopThread:
    """See the module's first lines. The thread ends with the interpreter, even if nobody closes it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Wait for what the coroutine brings, or raise what it raises. From any thread but its own.

        Raises:
            Closed: before or meanwhile.
        """
        if self._process != os.getpid():  # asked before the lock, which another thread may have held at the fork
            raise Closed("This belongs to the process that was forked; make another one after the fork.")
        with self._lock:
            if self._closed:
                raise Closed("This is closed.")
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise Closed("This was closed meanwhile.") from None

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Do the last work, cancel what still runs, and end the thread; a second time does nothing."""
        if self._process != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(_end(last), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end(last: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
    if last is not None:
        with contextlib.suppress(Exception):  # what is closed may be broken
            await last()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
