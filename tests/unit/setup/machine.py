"""A machine for tests of set-up: programs answer from a table, and what was run is written down."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

from scripts.setup_shell import Reporter, Result

Answer = Callable[[str], Result | None]


class FakeRunner:
    """Answers each command line with the first rule that knows it; unknown programs are not there (127).

    Args:
        rules: part of a command line to exit code and output; later rules are asked first.
    """

    def __init__(self, rules: Mapping[str, tuple[int, str]] | None = None) -> None:
        self.rules = dict(rules or {})
        self.commands: list[str] = []
        self.environments: list[Mapping[str, str]] = []

    def run(
        self, args: Sequence[str], *, env: Mapping[str, str] | None = None, busy: Callable[[str], None] | None = None
    ) -> Result:
        line = " ".join(args)
        self.commands.append(line)
        self.environments.append(env or {})
        for part, (code, output) in reversed(self.rules.items()):
            if part in line:
                return Result(code, output)
        return Result(127, f"{args[0]}: No such file or directory")

    def ran(self, part: str) -> list[str]:
        """Command lines that contain a text."""
        return [line for line in self.commands if part in line]


def quiet_report() -> tuple[Reporter, io.StringIO]:
    """A reporter whose clock stands still, and what it writes."""
    out = io.StringIO()
    return Reporter(out=out, clock=lambda: 0.0), out
