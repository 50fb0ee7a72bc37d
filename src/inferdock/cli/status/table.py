"""The replicas of ``inferdock status`` as columns that fit a width: the least important ones go first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from inferdock.cli.output import printable
from inferdock.cli.platform_view import STATE_STYLE
from inferdock.cli.status.figures import age, count, share

ALWAYS: Final = 0
LONGEST: Final = 40
"""Of a cell; names and revisions come from people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        title: above it.
        cells: one for each replica.
        right: numbers are aligned at the right.
        goes: the higher, the sooner it is left out; :data:`ALWAYS` stays.
        styles: of the cells; empty: none.
    """

    title: str
    cells: tuple[str, ...]
    right: bool = False
    goes: int = ALWAYS
    styles: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """In cells of a terminal."""
        return max(cell_len(one) for one in (self.title, *self.cells))


def columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Everything that there is to say of replicas."""
    several = len({row.get("revision") for row in rows}) > 1

    def texts(name: str) -> tuple[str, ...]:
        return tuple(printable(str(row.get(name) or ""))[:LONGEST] for row in rows)

    def counts(name: str) -> tuple[str, ...]:
        return tuple(count(row.get(name)) for row in rows)

    urls = texts("url")
    found = [
        Column(title="revision", cells=texts("revision"), goes=ALWAYS if several else 6),
        Column(title="replica", cells=texts("name")),
        Column(
            title="state",
            cells=texts("state"),
            styles=tuple(STATE_STYLE.get(str(row.get("state")), "") for row in rows),
        ),
        Column(title="for", cells=tuple(age(row.get("since_s")) for row in rows), right=True, goes=2),
        Column(title="in flight", cells=counts("in_flight"), right=True),
        Column(title="running", cells=counts("running"), right=True, goes=1),
        Column(title="waiting", cells=counts("waiting"), right=True),
        Column(title="KV", cells=tuple(share(row.get("kv_cache_usage_ratio")) for row in rows), right=True),
        Column(title="restarts", cells=counts("restarts"), right=True, goes=3),
        Column(title="port", cells=tuple(url.rpartition(":")[2] for url in urls), right=True, goes=4),
        Column(title="url", cells=urls, goes=5),
    ]
    known = [one for one in found if any(cell not in ("", "–") for cell in one.cells) or one.goes == ALWAYS]
    return [one for one in known if one.title != "revision" or any(one.cells)]


def fitted(found: Sequence[Column], width: int, gap: int) -> list[Column]:
    """As many columns as fit; the port is part of the URL, so there is one of them."""
    kept = list(found)
    while sum(one.width + gap for one in kept) - gap > width:
        least = max(kept, key=lambda one: one.goes)
        if least.goes == ALWAYS:
            break
        kept.remove(least)
    if any(one.title == "url" for one in kept):
        kept = [one for one in kept if one.title != "port"]
    return kept


def lines(kept: Sequence[Column], gap: int) -> list[Text]:
    """A line of titles and one for each replica."""
    height = len(kept[0].cells) if kept else 0
    found = [Text((" " * gap).join(_cell(one, one.title) for one in kept).rstrip(), style="dim")]
    for at in range(height):
        line = Text()
        for number, one in enumerate(kept):
            line.append(" " * (gap if number else 0))
            line.append(_cell(one, one.cells[at]), style=one.styles[at] if one.styles else "")
        line.rstrip()
        found.append(line)
    return found


def _cell(column: Column, text: str) -> str:
    pad = " " * (column.width - cell_len(text))
    return pad + text if column.right else set_cell_size(text, column.width)
