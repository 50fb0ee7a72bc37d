"""Draws ``inferdock status``: a picture that fits a terminal, or plain lines for pipes and files. Pure.

States are words and never a colour alone, so nothing is lost without colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich import box
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from inferdock.app.status import Seen
from inferdock.cli.output import printable
from inferdock.cli.platform_view import shares, worker_lines
from inferdock.cli.status.figures import age, count, share, sparkline
from inferdock.cli.status.table import columns, fitted, lines
from inferdock.cli.status.words import (
    Group,
    Release,
    Row,
    clock,
    groups,
    notices,
    problems,
    ready,
    release,
    replicas,
)

NARROWEST: Final = 72
"""Below this, or below :data:`LOWEST` lines, panels make no sense and lines are shown."""
LOWEST: Final = 20
WIDE: Final = 150
"""From here on all panels stand in one row."""
_PANEL: Final = 6
_BAR: Final = 24

Past = Mapping[str, Sequence[object]]
"""Values of the last looks by the name of their curve."""


def picture(seen: Seen, past: Past, *, width: int, height: int, lost: str = "") -> RenderableType:
    """Everything on one screen.

    Args:
        past: for the curves.
        width, height: of the terminal, in cells.
        lost: why there is nothing newer, "" while all is well.
    """
    if width < NARROWEST or height < LOWEST:
        return Stack(*_small(seen, lost, width, height))
    across = 4 if width >= WIDE else 2
    top = [*_heading(seen, width), *_warnings(seen, lost)]
    panels = _panels(groups(seen), past, across, width // across)
    used = len(top) + _PANEL * (4 // across) + 1
    rows = len(replicas(seen)) + len(problems(replicas(seen))) + 1
    airy = _release_lines(release(seen), airy=True)
    middle = airy if used + len(airy) + rows <= height else _release_lines(release(seen), airy=False)
    return Stack(*top, panels, *middle, *_replicas(seen, width, height - used - len(middle)), _foot(seen, width))


def plain(seen: Seen) -> list[str]:
    """The same as lines, whole and without colours."""
    found = [f"{_title(seen)}  {_where(seen)}".rstrip()]
    found += notices(seen)
    for group in groups(seen):
        name = group.title.partition(" ")[0].lower()
        found += [f"{name:<9} {group.note}"] if group.note else []
        for at, row in enumerate(group.rows):
            said = "  ".join(" ".join(pair).strip() for pair in _pairs(group, row))
            found.append(f"{'' if at else name:<9} {row.name:<13}  {said:<22}  {row.detail}".rstrip())
    going = release(seen)
    if going is not None:
        found.append(f"release   {going.title}" + (f", {going.step}" if going.step else ""))
        found += [f"          {name} {share(part)}" for name, part in going.shares]
    rows = replicas(seen)
    if rows:
        found += ["", *(line.plain for line in lines(fitted(columns(rows), 10_000, 2), 2))]
    return [printable(line) for line in (*found, *worker_lines(seen.gateway), *problems(rows))]


def _pairs(group: Group, row: Row) -> list[tuple[str, str]]:
    titles = group.columns or ("",) * len(row.cells)
    return list(zip(titles, row.cells, strict=True))


# -- Heading and foot ----------------------------------------------------------------------------------------------


def _title(seen: Seen) -> str:
    weights = seen.live.get("weights")
    revision = shares(str(seen.live.get("revision") or ""), weights if isinstance(weights, Mapping) else {})
    return printable(f"{seen.live.get('model') or 'no model'}  {revision}".rstrip())


def _where(seen: Seen) -> str:
    url, engine = seen.state.get("url"), seen.state.get("engine")
    if url:
        return f"{url}/v1" + (f"  ({engine})" if engine else "")
    return f"gateway alone, admin at {seen.state.get('admin_url')}" if seen.state.get("admin_url") else ""


def _heading(seen: Seen, width: int) -> list[RenderableType]:
    title = Text(_title(seen), style="bold", no_wrap=True, overflow="ellipsis")
    return [_sides(title, Text(_where(seen), style="cyan", no_wrap=True, overflow="ellipsis"), width)]


def _warnings(seen: Seen, lost: str) -> list[RenderableType]:
    found = [Text(one, style="bold yellow", no_wrap=True, overflow="ellipsis") for one in notices(seen)]
    if lost:
        said = f"No contact since {clock(seen)}: {printable(lost)}"
        found.insert(0, Text(said, style="bold red", no_wrap=True, overflow="ellipsis"))
    return list(found)


def _foot(seen: Seen, width: int) -> RenderableType:
    whole = seen.live.get("figures")
    since = ""
    if isinstance(whole, Mapping):
        requests, failed = (count(whole.get(f"{name}_total")) for name in ("requests", "failed"))
        up = age(seen.live.get("uptime_s"))
        since = f"gateway up {up}: {requests} requests, {failed} failed"
    left = Text.assemble(("q", "bold"), (" quits   ", "dim"), (since, "dim"), no_wrap=True, overflow="ellipsis")
    return _sides(left, Text(clock(seen), style="dim"), width)


def _sides(left: Text, right: Text, width: int) -> RenderableType:
    """One line: text at the left, and at the right as far as it fits."""
    room = width - right.cell_len - 2
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    if room < min(left.cell_len, width // 2):
        grid.add_row(left)
        return grid
    grid.add_column(no_wrap=True, justify="right", width=right.cell_len)
    grid.add_row(left, right)
    return grid


# -- Panels --------------------------------------------------------------------------------------------------------


def _panels(found: Sequence[Group], past: Past, across: int, width: int) -> RenderableType:
    grid = Table.grid(expand=True)
    for _ in range(across):
        grid.add_column(ratio=1)
    panels = [_panel(group, past, width - 4) for group in found]
    for at in range(0, len(panels), across):
        grid.add_row(*panels[at : at + across])
    return grid


def _panel(group: Group, past: Past, inner: int) -> Panel:
    body: RenderableType = Text(printable(group.note), style="yellow") if group.note else _figures(group, past, inner)
    return Panel(
        body,
        title=Text(group.title, style="bold"),
        title_align="left",
        box=box.ROUNDED,
        border_style="dim",
        height=_PANEL,
    )


def _figures(group: Group, past: Past, inner: int) -> Table:
    """Name, figures, and a curve where one is kept, else what the figure refers to."""
    name = max(len(row.name) for row in group.rows)
    widths = [
        max(len(text) for text in (title, *(row.cells[at] for row in group.rows)))
        for at, title in enumerate(group.columns or ("",))
    ]
    room = inner - name - sum(widths) - 2 * (len(widths) + 1)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=name, style="dim", no_wrap=True)
    for width in widths:
        table.add_column(width=width, justify="right", no_wrap=True)
    if room >= 4:
        table.add_column(width=room, no_wrap=True, overflow="ellipsis")
    if group.columns:
        table.add_row("", *(Text(title, style="dim") for title in group.columns))
    for row in group.rows:
        curve = sparkline(past.get(row.curve, ()), min(room, 30)) if row.curve else ""
        more = Text(curve, style="cyan") if curve else Text("" if row.curve else row.detail, style="dim")
        cells = [Text(cell, style="bold") for cell in row.cells]
        table.add_row(row.name, *cells, *([more] if room >= 4 else []))
    return table


# -- Release -------------------------------------------------------------------------------------------------------


def _release_lines(going: Release | None, *, airy: bool) -> list[RenderableType]:
    """Airy: with empty lines around, and a line for each revision."""
    empty: list[RenderableType] = [Text("")] if airy else []
    if going is None:
        return empty
    style = "red" if going.problem else "dim" if going.over else "bold yellow"
    title = Text.assemble(("release  ", "dim"), (printable(going.title), style), no_wrap=True, overflow="ellipsis")
    if going.step and going.over:
        title.append(f", {printable(going.step)}", style="dim")
    found: list[RenderableType] = [title]
    if going.step and not going.over:
        found.append(Text(f"         {printable(going.step)}", no_wrap=True, overflow="ellipsis"))
    if going.shares:
        found += [_share(name, part, going) for name, part in going.shares] if airy else [_together(going)]
    return [*empty, *found, *empty]


def _share(name: str, part: float, going: Release) -> Text:
    longest = min(40, max(len(one) for one, _ in going.shares))
    filled = round(_BAR * max(0.0, min(1.0, part)))
    bar = "█" * filled + "░" * (_BAR - filled)
    return Text.assemble("         ", f"{printable(name)[:longest]:<{longest}}  ", (bar, "cyan"), f"  {share(part)}")


def _together(going: Release) -> Text:
    line = Text("         ", no_wrap=True, overflow="ellipsis")
    for at, (name, part) in enumerate(going.shares):
        filled = round(10 * max(0.0, min(1.0, part)))
        line.append(("   " if at else "") + f"{printable(name)[:24]} ")
        line.append("█" * filled + "░" * (10 - filled), style="cyan")
        line.append(f" {share(part)}")
    return line


# -- Replicas ------------------------------------------------------------------------------------------------------


def _replicas(seen: Seen, width: int, room: int) -> list[RenderableType]:
    """As many as there is room for, those that are not ready first where some are left out; then what went wrong."""
    rows = replicas(seen)
    if not rows or room < 2:
        return []
    wrong = [Text(printable(one), style="red", no_wrap=True, overflow="ellipsis") for one in problems(rows)]
    wrong = wrong[: max(0, min(len(wrong), room - 1 - min(len(rows), 2), room // 3))]
    room -= len(wrong) + 1
    left_out = ""
    if len(rows) > room:
        rows = sorted(rows, key=lambda row: row.get("state") == "ready")
        hidden, rows = rows[room - 1 :], rows[: room - 1]
        left_out = f"… and {len(hidden)} more, {ready(hidden)} of them ready"
    gap = 2
    found: list[RenderableType] = [*lines(fitted(columns(rows), width, gap), gap)] if rows else []
    for line in found:
        if isinstance(line, Text):
            line.no_wrap, line.overflow = True, "ellipsis"
    if left_out:
        found.append(Text(left_out, style="dim"))
    free = room - len(found) + 1
    return [*found, *wrong, *(Text("") for _ in range(max(0, free)))]


def _small(seen: Seen, lost: str, width: int, height: int) -> list[RenderableType]:
    """Lines, for terminals that hold no panels."""
    said = [f"No contact since {clock(seen)}: {lost}"] if lost else []
    said += [line for line in plain(seen) if line]
    shown = said[: max(1, height - 1)]
    return [Text(line[:width], no_wrap=True, overflow="ellipsis") for line in (*shown, "q quits")]
