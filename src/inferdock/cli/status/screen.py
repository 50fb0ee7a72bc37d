"""The live view of ``inferdock status`` on a terminal: keys, size, and the terminal given back as it was found.

The view takes the alternate screen, so what stood in the terminal before is there again afterwards, however the view
ends: by ``q``, Ctrl-C, SIGTERM, SIGHUP, or an error. Ctrl-Z gives the terminal to the shell and takes it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from inferdock.app.status import Seen, Source
from inferdock.cli.status.view import picture
from inferdock.cli.status.words import history
from inferdock.domain.errors import InferdockError

AGAIN_S: Final = 1.0
"""Pause before a platform that does not answer is asked again."""
_SEQUENCE: Final = re.compile(rb"\x1b[\[O][0-9;]*[ -/]*[@-~]")
"""What arrows and function keys send; some hold a Q, and several keys may come in one read."""
KEPT: Final = 60
"""Looks in a curve."""


def can_be_live(console: Console) -> bool:
    """Whether somebody can look, and press keys."""
    return console.is_terminal and not console.is_dumb_terminal and sys.stdin.isatty()


async def watch(source: Source, console: Console) -> int:
    """Show what runs until the person quits.

    Returns:
        Exit code: 0 for ``q``, 130 for Ctrl-C.

    Raises:
        UnreachableError, ResourceError: nothing could be seen at all; later the view waits for it to come back.
    """
    async with contextlib.aclosing(source.looks()) as looks:
        screen = Screen(console, await anext(looks))
    with screen:
        feed = asyncio.create_task(screen.follow(source))
        ended = asyncio.create_task(screen.quit.wait())
        try:
            await asyncio.wait([feed, ended], return_when=asyncio.FIRST_COMPLETED)
            if feed.done():
                feed.result()  # it only ends by a defect of ours
        finally:
            for task in (feed, ended):
                task.cancel()
            await asyncio.gather(feed, ended, return_exceptions=True)
    return screen.end()


class Screen:
    """The terminal while the view has it.

    Attributes:
        quit: set when the person has seen enough.
    """

    def __init__(self, console: Console, seen: Seen) -> None:
        self.quit = asyncio.Event()
        self._console = console
        self._seen = seen
        self._lost = ""
        self._past: dict[str, deque[object]] = {}
        self._by: signal.Signals | None = None
        self._saved: list[Any] = []
        self._live: Live | None = None
        self._keys = sys.stdin.fileno()
        self._handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGINT: lambda: self._asked_to_end(signal.SIGINT),
            signal.SIGTERM: lambda: self._asked_to_end(signal.SIGTERM),
            signal.SIGHUP: lambda: self._asked_to_end(signal.SIGHUP),
            signal.SIGTSTP: self._pause,
            signal.SIGWINCH: self._draw,
        }

    def __enter__(self) -> Screen:
        loop = asyncio.get_running_loop()
        for number, handler in self._handlers.items():
            loop.add_signal_handler(number, handler)
        self._take()
        loop.add_reader(self._keys, self._key)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._keys)
        self._give_back()
        for number in self._handlers:
            loop.remove_signal_handler(number)

    def end(self) -> int:
        """Exit code, or the death that was asked for."""
        if self._by is None:
            return 0
        if self._by is not signal.SIGINT:
            signal.signal(self._by, signal.SIG_DFL)
            os.kill(os.getpid(), self._by)
        return 130

    async def follow(self, source: Source) -> None:
        """Show each look; what does not answer is asked again, and the last look stays meanwhile."""
        self._show(self._seen)
        while True:
            try:
                async with contextlib.aclosing(source.looks()) as looks:
                    async for seen in looks:
                        self._show(seen)
            except InferdockError as exc:
                self._lost = str(exc)
                self._draw()
            await asyncio.sleep(AGAIN_S)

    # -- Terminal ----------------------------------------------------------------------------------------------

    def _take(self) -> None:
        self._saved = termios.tcgetattr(self._keys)
        tty.setcbreak(self._keys, termios.TCSANOW)
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()
        self._draw()

    def _give_back(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            if self._live is not None:
                self._live.stop()
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._saved)
        self._live = None

    def _pause(self) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)  # here it stands until `fg`
        self._take()

    def _asked_to_end(self, number: signal.Signals) -> None:
        self._by = number
        self.quit.set()

    def _key(self) -> None:
        try:
            pressed = os.read(self._keys, 1024)
        except OSError:
            pressed = b""
        if not pressed or any(key in b"qQ" for key in _SEQUENCE.sub(b"", pressed)):
            self.quit.set()

    # -- Picture -----------------------------------------------------------------------------------------------

    def _show(self, seen: Seen) -> None:
        self._seen, self._lost = seen, ""
        for name, value in history(seen).items():
            self._past.setdefault(name, deque(maxlen=KEPT)).append(value)
        self._draw()

    def _draw(self) -> None:
        if self._live is None:
            return
        width, height = self._console.size
        past = {name: tuple(values) for name, values in self._past.items()}
        try:
            shown = picture(self._seen, past, width=width, height=height, lost=self._lost)
            self._live.update(shown, refresh=True)
        except OSError:  # nobody can see it any more
            self.quit.set()
