"""Records docs/release-session.{cast,svg,md}: a release and its way back, on a platform of simulated engines.

``python -m scripts.record_release`` (needs ``pip install pyte``). Three terminals are real ones, with a shell in each;
what they show is drawn into one picture. Nothing is played: commands run, and times are those that it took. Only the
folder that everything happens in is called ``~/demo``.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import pyte

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
NAME: Final = "release-session"
PORT: Final = 18420
COLUMNS: Final = 118
PROMPT: Final = "$ "
FRAME_S: Final = 0.1
KEY_S: Final = 0.02
LONGEST_S: Final = 170.0
IDLE_S: Final = 2.0
"""Players show no longer pauses than this."""
COLORS: Final = {
    "black": "#1b1f24",
    "red": "#e5534b",
    "green": "#57ab5a",
    "brown": "#c69026",
    "blue": "#539bf5",
    "magenta": "#b083f0",
    "cyan": "#39c5cf",
    "white": "#adbac7",
}
CODES: Final = {name: number for number, name in enumerate(COLORS)}


@dataclass(frozen=True, slots=True)
class Said:
    """One command with what it showed in the end.

    Attributes:
        terminal: title of its terminal.
        why: what a reader should know.
        command: as it was typed.
        lines: what it showed.
    """

    terminal: str
    why: str
    command: str
    lines: tuple[str, ...]


class Terminal:
    """A shell in a terminal of its own.

    Args:
        title: for people.
        rows: of its part of the picture.
        folder: that the shell works in.
    """

    def __init__(self, title: str, rows: int, folder: Path) -> None:
        self.title, self.rows = title, rows
        self.screen = pyte.Screen(COLUMNS, rows)
        self._stream = pyte.Stream(self.screen)
        self._folder = folder
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end within a character
        self._whole = pyte.Screen(COLUMNS, 400)
        self._whole_stream = pyte.Stream(self._whole)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            _be_a_shell(folder)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))

    def take(self) -> None:
        """Show what the shell wrote."""
        text = self._decoder.decode(os.read(self.fd, 65536)).replace(str(self._folder), "~/demo")
        self._stream.feed(text)
        self._whole_stream.feed(text)

    def key(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def begin(self) -> None:
        """From here on another command is shown."""
        self._whole.reset()
        self._whole_stream.feed(PROMPT)

    @property
    def shown(self) -> tuple[str, ...]:
        """All that the command showed."""
        lines = [line.rstrip() for line in self._whole.display]
        while lines and lines[-1] in ("", PROMPT.rstrip()):
            lines.pop()
        return tuple(lines)

    @property
    def waits(self) -> bool:
        """Whether the shell waits for a command."""
        return self.screen.display[self.screen.cursor.y].rstrip() == PROMPT.rstrip()

    def end(self) -> None:
        """Close it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def _be_a_shell(folder: Path) -> None:
    os.chdir(folder)
    environment = {
        "HOME": str(folder),
        "INFERDOCK_REGISTRY__ACTOR": "ada",
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PS1": PROMPT,
        "TERM": "xterm-256color",
    }
    os.execvpe("bash", ["bash", "--norc", "--noprofile", "+m", "-i"], environment)


class Recorder:
    """Draws terminals below each other, and keeps each change with its time."""

    def __init__(self, terminals: Sequence[Terminal]) -> None:
        self.terminals = terminals
        self.events: list[tuple[float, str]] = []
        self.said: list[Said] = []
        self._began = time.monotonic()
        self._frame: list[str] = []

    @property
    def rows(self) -> int:
        """Of the picture."""
        return sum(terminal.rows + 1 for terminal in self.terminals)

    def run(self, terminal: Terminal, command: str, why: str = "", *, until: Callable[[], bool] | None = None) -> None:
        """Type a command, and wait until it ends, or until something is to be seen."""
        self.type(terminal, command)
        self.wait(until or (lambda: terminal.waits))
        self.keep(terminal, command, why)

    def type(self, terminal: Terminal, command: str) -> None:
        """Type a command as a person does."""
        terminal.begin()
        for letter in command:
            terminal.key(letter)
            self._pump(KEY_S)
        terminal.key("\n")
        self._pump(0.3)

    def keep(self, terminal: Terminal, command: str, why: str) -> None:
        """Keep what a command shows now for the page."""
        typed = -(-(len(PROMPT) + len(command)) // COLUMNS)  # lines that the command itself takes
        self.said.append(Said(terminal.title, why, command, terminal.shown[typed:]))

    def wait(self, until: Callable[[], bool]) -> None:
        """Record until something is to be seen.

        Raises:
            TimeoutError: it never was.
        """
        end = time.monotonic() + LONGEST_S
        while not until():
            if time.monotonic() > end:
                raise TimeoutError("\n".join(line for one in self.terminals for line in one.screen.display))
            self._pump(FRAME_S)
        self._pump(FRAME_S)

    def _pump(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([terminal.fd for terminal in self.terminals], [], [], left)
            for terminal in self.terminals:
                if terminal.fd in ready:
                    terminal.take()
        self._draw()

    def _draw(self) -> None:
        frame: list[str] = []
        for terminal in self.terminals:
            frame.append(f"\x1b[7m {terminal.title}".ljust(COLUMNS + 4) + "\x1b[0m")
            frame += [_ansi(terminal.screen, row) for row in range(terminal.rows)]
        before = self._frame or [""] * len(frame)
        changed = [n for n, (old, new) in enumerate(zip(before, frame, strict=True)) if old != new]
        if changed:
            text = "".join(f"\x1b[{n + 1};1H{frame[n]}\x1b[0m\x1b[K" for n in changed)
            self.events.append((time.monotonic() - self._began, text))
        self._frame = frame


def _runs(screen: pyte.Screen, row: int) -> list[tuple[int, str, str, bool]]:
    """Column, text, colour and weight of each piece of a line."""
    cells = [screen.buffer[row][column] for column in range(COLUMNS)]
    found, column = [], 0
    for (color, bold), group in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
        text = "".join(cell.data for cell in group)
        found.append((column, text, color, bold))
        column += len(text)
    return found


def _ansi(screen: pyte.Screen, row: int) -> str:
    text = ""
    for _, piece, color, bold in _runs(screen, row):
        code = f";{30 + CODES[color]}" if color in CODES else ""
        text += f"\x1b[0{';1' if bold else ''}{code}m{piece}"
    return text.rstrip()  # the rest of the line is cleared in any case


def cast(recorder: Recorder) -> str:
    """The recording as an asciicast, version 2."""
    header = {
        "version": 2,
        "width": COLUMNS,
        "height": recorder.rows,
        "idle_time_limit": IDLE_S,
        "title": "A release with Inferdock, and its way back",
        "env": {"TERM": "xterm-256color", "SHELL": "/bin/bash"},
    }
    lines: list[Any] = [header, *([round(at, 3), "o", text] for at, text in recorder.events)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def picture(recorder: Recorder) -> str:
    """What the terminals show now, as SVG."""
    wide, high, size = 7.8, 17, 13
    parts, line = [], 0
    for terminal in recorder.terminals:
        parts.append(f'<rect y="{line * high}" width="{COLUMNS * wide:g}" height="{high}" fill="#444c56"/>')
        parts.append(_text(0, line, f" {terminal.title}", "#cdd9e5", True, wide, high))
        for row in range(terminal.rows):
            line += 1
            for column, text, color, bold in _runs(terminal.screen, row):
                if text.strip():
                    parts.append(_text(column, line, text, COLORS.get(color, COLORS["white"]), bold, wide, high))
        line += 1
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {COLUMNS * wide + 16:g} {line * high + 16:g}" '
        f'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="{size}">\n'
        '<rect x="-8" y="-8" width="100%" height="100%" rx="6" fill="#22272e"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(column: int, line: int, text: str, color: str, bold: bool, wide: float, high: int) -> str:
    left = len(text) - len(text.lstrip())
    text = text.strip()
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{(column + left) * wide:g}" y="{line * high + 13}" textLength="{len(text) * wide:g}" '
        f'xml:space="preserve" fill="{color}"{weight}>{escape(text)}</text>'
    )


def page(said: Sequence[Said]) -> str:
    """The recording as text."""
    parts = [
        "<!-- Written by scripts/record_release.py from a run; do not edit. -->\n",
        "# A release and its way back, as they were\n",
        "Three terminals on one machine. Engines are simulated (`--engine sim`), so this runs anywhere; everything "
        f"else is what serves real models. [The recording]({NAME}.cast) plays with `asciinema play "
        f"docs/{NAME}.cast`; [Releases](releases.md) explains each step.\n",
        f"![The three terminals after the rollback]({NAME}.svg)\n",
    ]
    for one in said:
        parts.append(f"**{one.terminal[:1].upper()}{one.terminal[1:]}.** {one.why}\n")
        shown = "\n".join([f"$ {one.command}", *one.lines])
        parts.append(f"```console\n{shown}\n```\n")
    return "\n".join(parts)


def story(recorder: Recorder) -> None:
    """What happens."""
    platform, release, other = recorder.terminals

    def sees(terminal: Terminal, text: str) -> Callable[[], bool]:
        def look() -> bool:
            if any(line.startswith("error:") for line in terminal.shown):
                raise RuntimeError("\n".join(terminal.shown))
            return any(text in line for line in terminal.shown)

        return look

    push = "inferdock model push demo --name answers --version"
    recorder.run(
        release,
        f"{push} 1.0.0 --alias champion",
        "A folder becomes a version of the registry, which never changes again. `champion` is the one that serves.",
    )
    recorder.run(
        release,
        f"{push} 1.1.0 --alias candidate --engine-arg=--seed=1",
        "The next version. Here it has the same weights and other arguments, so nothing is stored twice.",
    )
    up = "inferdock up --model answers@champion --engine sim --replicas 2"
    recorder.type(platform, up)
    recorder.wait(sees(platform, "is served at"))
    recorder.wait(lambda: sum("ready" in line for line in platform.shown) >= 2)
    recorder.keep(platform, up, "The platform: gateway and replicas. Every byte is verified before an engine starts.")
    load = f"inferdock bench http://127.0.0.1:{PORT}/v1 --rate 25 --duration 150 --output-tokens 20 > bench.txt 2>&1 &"
    recorder.run(other, load, "Clients: 25 streams a second from now on, whatever happens.")
    start = (
        "inferdock release start answers@1.1.0 --gates health --weights 20,50,100 --hold 5 --bake 300 "
        '--max-errors 0.05 --ttft-p95 0 --reason "new prices"'
    )
    recorder.type(release, start)
    recorder.wait(sees(release, "/17 traffic answers@1.0.0 50"))
    recorder.wait(sees(release, "holding: 4 of 5 s"))
    recorder.wait(lambda: "holding: 2 of 5 s" in release.screen.display[release.screen.cursor.y - 1])
    recorder.run(
        other, "inferdock release status", "Anybody may look: the new version has half of the requests, and is watched."
    )
    recorder.run(
        other,
        'inferdock release promote --reason "seen enough"',
        "A person may shorten it: promoted without the gates and holds that are left.",
    )
    recorder.wait(sees(release, "baking:"))
    recorder.keep(
        release,
        start,
        "Meanwhile: the plan with its reasons, then each step as it is done. It ends in the bake: 1.1.0 has all "
        "requests, and 1.0.0 stays warm.",
    )
    recorder.run(other, "inferdock model alias answers champion", "The registry says so too.")
    recorder.run(
        other,
        'inferdock release rollback 1.0.0 --reason "wrong prices in answers"',
        "Something is wrong after all. All traffic goes back first; then the seconds that it took are printed.",
    )
    recorder.wait(lambda: release.waits)
    recorder.keep(release, start, "The release ends where it was taken back, with exit code 8.")
    recorder.run(other, "inferdock model alias answers champion", "The champion is who it was.")
    recorder.run(
        other, "inferdock release history", "What happened stays on record; with an id: every event, by whom and why."
    )
    recorder.run(other, "wait; tail -n 7 bench.txt", "And the clients: not one request failed.")


def _shorter(said: Sequence[Said]) -> list[Said]:
    """The release is kept twice; the second time only what came after."""
    found: list[Said] = []
    for one in said:
        before = next((early for early in found if early.command == one.command and len(early.lines) > 12), None)
        if before is not None:
            same = sum(1 for a, b in zip(before.lines, one.lines, strict=False) if a == b)
            one = Said(one.terminal, one.why, one.command, ("...", *one.lines[same:]))
        found.append(one)
    return found


def main() -> None:
    """Record, and write the three files."""
    folder = Path(tempfile.mkdtemp(prefix="inferdock-session-"))
    shutil.copytree(ROOT / "models" / "demo", folder / "demo")
    settings = {
        "gateway": {"port": PORT},
        "registry": {"url": str(folder / "registry"), "cache_dir": str(folder / "cache")},
        "state_dir": str(folder / "state"),
    }
    (folder / "inferdock.yaml").write_text(json.dumps(settings), encoding="utf-8")
    terminals = [
        Terminal("terminal 1: the platform", 13, folder),
        Terminal("terminal 2: the release", 24, folder),
        Terminal("terminal 3: a colleague", 17, folder),
    ]
    recorder = Recorder(terminals)
    try:
        story(recorder)
        (DOCS / f"{NAME}.svg").write_text(picture(recorder), encoding="utf-8")
    finally:
        for terminal in terminals:
            terminal.key("\x03")
        recorder.wait(lambda: all(terminal.waits for terminal in terminals))  # nothing is left running
        for terminal in terminals:
            terminal.end()
        shutil.rmtree(folder, ignore_errors=True)
    (DOCS / f"{NAME}.cast").write_text(cast(recorder), encoding="utf-8")
    (DOCS / f"{NAME}.md").write_text(page(_shorter(recorder.said)), encoding="utf-8")


if __name__ == "__main__":
    main()
