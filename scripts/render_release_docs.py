"""Writes the diagram of states into docs/releases.md: `make docs`. `tests/docs` compares the page with `render()`."""

from __future__ import annotations

import re
from pathlib import Path

from inferdock.release.machine import mermaid

PAGE = Path(__file__).resolve().parents[1] / "docs" / "releases.md"
BLOCK = re.compile(r"(<!-- states:[^\n]*-->\n).*?(<!-- end of states -->\n)", re.DOTALL)


def render(page: str) -> str:
    """The page with the diagram as it is now.

    Raises:
        ValueError: the page has no place for it.
    """
    rendered, found = BLOCK.subn(lambda match: f"{match[1]}```mermaid\n{mermaid()}```\n{match[2]}", page)
    if found != 1:
        raise ValueError(f"{PAGE.name} has {found} places for the diagram of states, not one")
    return rendered


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.name}")
