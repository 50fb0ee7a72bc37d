"""``inferdock model history``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from inferdock.cli.models.options import Where, cell, moment, registry_options, table
from inferdock.cli.models.options import show as print_it
from inferdock.cli.output import note, output_option, print_json
from inferdock.registry.event import Alias, Delete, Event, Push
from inferdock.registry.ledger import State
from inferdock.registry.names import CHAMPION, check_name


@click.command()
@registry_options
@click.argument("name")
@click.option("--at", metavar="TIME", help="What was live then: 2026-01-31T12:00 (UTC), with an offset, or 12h ago.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the last so many events.")
@output_option
def history(where: Where, name: str, at: str | None, limit: int | None, output: str) -> None:
    """Show who pushed, moved and deleted what, when and why; or with --at what every alias meant at a time.

    Nothing is ever taken out of a history: its events are chained by their digests.

    \b
    Example:
      inferdock model history mistral-7b
      inferdock model history mistral-7b --at 2026-01-31T12:00
    """
    registry = where.registry()
    check_name(name)
    if at is not None:
        then = moment(at, datetime.now(UTC))
        _show_state(registry.state(name, at=then), then, output)
        return
    events = registry.history(name)[-(limit or 0) :]
    if output == "json":
        print_json([_document(event) for event in events])
        return
    made = table("#", "time", "by", "what", "why", right=("#",), wide=("by", "what", "why"))
    for event in events:
        time = event.time[:19].replace("T", " ")
        made.add_row(cell(event.seq), cell(time), cell(event.actor), cell(what(event)), cell(event.reason or "–"))
    print_it(made)


def what(event: Event) -> str:
    """An event in words."""
    match event.change:
        case Push(version=version, revision=revision):
            return f"pushed {version} ({revision[:12]})"
        case Delete(version=version):
            return f"deleted {version}"
        case Alias(moves=moves):
            return ", ".join(f"{m.alias}: {m.before or 'none'} → {m.after or 'none'}" for m in moves)


def _document(event: Event) -> dict[str, Any]:
    document = dict(msgspec.to_builtins(event))
    return {**{key: value for key, value in document.items() if key != "change"}, **document["change"]}


def _show_state(state: State, then: str, output: str) -> None:
    if output == "json":
        versions = {version: released.push.revision for version, released in state.versions.items()}
        print_json({"name": state.name, "at": then, "aliases": dict(state.aliases), "versions": versions})
        return
    note(f"{state.name} at {then}:")
    live = state.aliases.get(CHAMPION)
    print_it(cell(f"live (champion): {_revision(state, live) if live else 'nothing'}", "bold"))
    for alias, version in sorted(state.aliases.items()):
        if alias != CHAMPION:
            print_it(cell(f"{alias}: {_revision(state, version)}"))
    print_it(cell(f"versions: {', '.join(state.versions) or 'none'}"))


def _revision(state: State, version: str) -> str:
    released = state.versions.get(version)
    return f"{version} ({released.push.revision[:12]})" if released else version
