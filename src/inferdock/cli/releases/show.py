"""``inferdock release status`` and ``history``."""

from __future__ import annotations

from typing import Any

import click
import msgspec
from rich.text import Text

from inferdock.app.release_places import Place
from inferdock.cli.models.options import cell, table
from inferdock.cli.models.options import show as print_it
from inferdock.cli.output import note, output_option, print_json
from inferdock.cli.releases.options import Where, at_place, document, line_of, names_of, platform_options
from inferdock.domain.errors import IntegrityError
from inferdock.domain.verdict import Verdict
from inferdock.release.events import Event, Judged, Planned
from inferdock.release.machine import State
from inferdock.release.plan import Kind
from inferdock.release.plan_text import say
from inferdock.release.progress import Progress

STATE_STYLES = {
    State.COMPLETED: "green",
    State.ABORTED: "red",
    State.ROLLED_BACK: "red",
    State.FAILED: "bold red",
    State.PAUSED: "yellow",
}
VERDICT_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow"}


@click.command()
@platform_options
@output_option
def status(where: Where, output: str) -> None:
    """Show the release that is under way, or the last one: where it is, what the gates said, what comes next.

    \b
    Example:
      inferdock release status
      inferdock release status -o json | jq .verdicts
    """

    async def look(place: Place) -> Progress | None:
        if (progress := await place.journals.unfinished()) is not None:
            return progress
        ids = await place.journals.ids()
        return await place.journals.progress(ids[-1]) if ids else None

    progress = at_place(where, look)
    if output == "json":
        print_json(None if progress is None else document(progress))
        return
    if progress is None:
        note("No release was made here yet. `inferdock release start NAME@VERSION` makes one.")
        return
    _show(progress)


def _show(progress: Progress) -> None:
    plan = progress.plan
    _head(progress)
    if progress.outcome:
        print_it(cell(f"  {progress.outcome}"))
    names = names_of(plan)
    for number, step in enumerate(plan.steps):
        mark = "✓" if number < progress.next else "▸" if number == progress.next and progress.begun else " "
        print_it(cell(f"  {mark} {say(step, names)}", "" if number >= progress.next else "dim"))
    for event in progress.judged:
        if isinstance(event.entry, Judged):
            judged = event.entry
            style = VERDICT_STYLES[judged.verdict]
            print_it(
                Text.assemble(
                    "  gate ", (judged.gate, "bold"), " ", (str(judged.verdict), style), ": ", cell(event.reason)
                )
            )
    if progress.flip_s is not None:
        print_it(cell(f"  traffic was back {progress.flip_s:.2f} s after the decision"))


@click.command()
@platform_options
@click.argument("release", required=False, metavar="[ID]")
@output_option
def history(where: Where, release: str | None, output: str) -> None:
    """List the releases of this platform; with an ID every event of one: who, from where, what, why, evidence.

    \b
    Example:
      inferdock release history
      inferdock release history 20260131-120000-1-1-0 -o json
    """
    if release is not None:
        _show_events(at_place(where, lambda place: place.journals.events(release)), output)
        return
    found = at_place(where, _all)
    if output == "json":
        print_json([document(progress) for progress in found])
        return
    for progress in found:
        _head(progress)
        print_it(cell(f"  {progress.outcome}"))
    if not found:
        note("No release was made here yet.")


async def _all(place: Place) -> list[Progress]:
    """Every release that can be read; the others are told of."""
    found = []
    for name in await place.journals.ids():
        try:
            found.append(await place.journals.progress(name))
        except IntegrityError as exc:
            note(f"warning: {exc}")
    return found


def _head(progress: Progress) -> None:
    """Id, from, to and state in a line."""
    plan = progress.plan
    state = Text(str(progress.state), style=STATE_STYLES.get(progress.state, "cyan"))
    before = plan.stable.reference if plan.stable is not None else "nothing"
    what = "rollback " if plan.kind is Kind.ROLLBACK else ""
    print_it(Text.assemble((plan.id, "bold"), f"  {what}{before} → {plan.to.reference}  ", state))


def _show_events(events: list[Event], output: str) -> None:
    if output == "json":
        documents: list[dict[str, Any]] = [msgspec.to_builtins(event) for event in events]
        print_json(documents)
        return
    first = events[0].entry if events else None
    plan = first.plan if isinstance(first, Planned) else None
    made = table("#", "time", "by", "what", right=("#",), wide=("by", "what"))
    for event in events:
        time = event.time[:19].replace("T", " ")
        who = f"{event.actor} ({event.origin})" if event.actor else event.origin
        what = line_of(event, plan) or event.reason or type(event.entry).__name__.lower()
        made.add_row(cell(event.seq), cell(time), cell(who), cell(what))
    print_it(made)
