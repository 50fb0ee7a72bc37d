"""What the console shows of releases: documents as JSON has them. Their journals lie in files or in a cluster."""

from __future__ import annotations

from typing import Any, Final

from inferdock.domain.errors import InferdockError
from inferdock.release.events import Begun, Done, Event, Judged, Turned, Way
from inferdock.release.plan import Plan
from inferdock.release.plan_text import say
from inferdock.release.progress import Progress, fold
from inferdock.release.records.journal import Journals

MOST_EVENTS: Final = 50
MOST_RELEASES: Final = 20


async def releases(journals: Journals) -> dict[str, Any]:
    """The release that is under way, or the last one, with what happened in it; and those before, in short."""
    rows: list[dict[str, Any]] = []
    for release in reversed((await journals.ids())[-MOST_RELEASES:]):
        try:
            rows.append(brief(await journals.progress(release)))
        except InferdockError as exc:
            rows.append({"id": release, "state": "damaged", "outcome": exc.message})
    return {"current": await current(journals), "releases": rows}


async def current(journals: Journals) -> dict[str, Any] | None:
    """The release that is under way, or the last one; asked once a second, it reads no more journals than it must."""
    ids = (await journals.ids())[-MOST_RELEASES:]
    for release in reversed(ids):
        try:
            events = await journals.events(release)
        except InferdockError:
            continue
        progress = fold(events)
        if not progress.over or release == ids[-1]:
            return whole(progress, events)
    return None


def brief(progress: Progress) -> dict[str, Any]:
    """A release in a row."""
    plan = progress.plan
    return {
        "id": plan.id,
        "kind": str(plan.kind),
        "from": plan.stable.reference if plan.stable is not None else None,
        "to": plan.to.reference,
        "state": str(progress.state),
        "over": progress.over,
        "outcome": progress.outcome,
        "flip_s": progress.flip_s,
        "time": progress.time,
    }


def whole(progress: Progress, events: list[Event]) -> dict[str, Any]:
    """A release with its steps, verdicts and events."""
    plan = progress.plan
    known = _names(plan)
    return {
        **brief(progress),
        "names": known,
        "next": progress.next,
        "steps": [{"text": say(step, known), "reason": step.reason} for step in plan.steps],
        "step": say(progress.step, known) if progress.step is not None else None,
        "verdicts": [
            {"gate": e.entry.gate, "verdict": str(e.entry.verdict), "reason": e.reason, "evidence": e.entry.evidence}
            for e in progress.judged
            if isinstance(e.entry, Judged)
        ],
        "events": [
            {"time": e.time, "actor": e.actor, "text": text} for e in events[-MOST_EVENTS:] if (text := line(e, plan))
        ],
    }


def line(event: Event, plan: Plan) -> str:
    """An event in words, "" for what only runners care about."""
    match event.entry:
        case Turned(trigger=trigger):
            return f"{trigger}: {event.reason}"
        case Judged(gate=gate, verdict=verdict):
            return f"gate {gate}: {verdict}. {event.reason}"
        case Done(seconds=seconds, flip_s=flip):
            back = f"; all traffic was back {flip:.2f} s after the decision" if flip is not None else ""
            return f"done in {seconds:.1f} s{back}"
        case Begun(way=Way.FORWARD, step=step) if step < len(plan.steps):
            return f"step {step + 1} of {len(plan.steps)}: {say(plan.steps[step], _names(plan))}"
        case Begun(way=Way.BACK, step=step):
            return f"way back, step {step + 1}: {event.reason}"
        case _:
            return ""


def _names(plan: Plan) -> dict[str, str]:
    return {one.revision: one.reference for one in (plan.stable, plan.to) if one is not None}
