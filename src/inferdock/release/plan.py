"""A release as data: what goes from which revision to which, in which steps, and why each is there. Pure.

`planner` makes plans of releases and rollbacks, :func:`way_back` says what undoes one. The runner adds nothing: what
is not a step here does not happen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferdock.release.judging.gate import SHADOW, SLO
from inferdock.release.steps import (
    WHOLE,
    Bake,
    Check,
    Demote,
    Gate,
    Hold,
    Limits,
    Mirror,
    Patience,
    Promote,
    Replicas,
    Retire,
    Scale,
    Shadow,
    Shift,
    Start,
    Step,
    Target,
    Text,
    Word,
)

MAX_STEPS: Final = 400
ID: Final = r"\A[a-z0-9][a-z0-9-]{0,62}\Z"
ReleaseId = Annotated[str, Meta(pattern=ID)]


def new_id(now: datetime, version: str) -> str:
    """An id for a release that begins now; ids sort by time.

    Args:
        now: the time.
        version: that it goes to, so that people know it by that.
    """
    label = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")[:40].strip("-")
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{label or 'release'}"


class Kind(StrEnum):
    """What a plan is for."""

    RELEASE = "release"
    ROLLBACK = "rollback"


class Mode(StrEnum):
    """How the new revision gets room."""

    SURGE = "surge"
    """Beside the old one, which keeps all its replicas."""
    REPLACE = "replace"
    """In place of some of the old one's replicas."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One release.

    Attributes:
        id: of the release; names its journal.
        kind: what for.
        model: name that clients use.
        stable: what serves before (spelt ``from`` in JSON); None for the first release of a model.
        to: what shall serve.
        mode: how it gets room.
        room: replicas of both revisions that there is room for; None: more than are asked for.
        gap: whether the person allowed that nothing serves for a while.
        champion: what is champion before, "" for none.
        notes: what a person should know before saying yes.
        steps: in order.
        limits: what live figures must keep to.
        patience: deadlines.
        shadow: how copies of requests are judged; None where none are sent.
    """

    id: ReleaseId
    kind: Kind = Kind.RELEASE
    model: Word
    stable: Target | None = msgspec.field(name="from")
    to: Target
    mode: Mode
    room: Replicas | None = None
    gap: bool = False
    champion: Annotated[str, Meta(max_length=500)] = ""
    notes: Annotated[tuple[Text, ...], Meta(max_length=20)] = ()
    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=MAX_STEPS)]
    limits: Limits = Limits()
    patience: Patience = Patience()
    shadow: Shadow | None = None

    def __post_init__(self) -> None:
        """Refuse steps that make no release."""
        if sum(isinstance(step, Promote) for step in self.steps) != 1:
            raise ValueError("a plan has one step `promote`")
        asks = any(isinstance(step, Gate) and step.gate == SHADOW for step in self.steps)
        if asks and self.shadow is None:
            raise ValueError(f"the gate `{SHADOW}` needs to know what it may find")
        if any(isinstance(step, Hold | Gate | Check) for step in self.steps[self.promotion :]):
            raise ValueError("checks, gates and holds come before `promote`")
        held = False
        for step in self.steps:
            held = held or isinstance(step, Hold)
            if isinstance(step, Gate) and step.gate == SLO and not held:
                raise ValueError(f"the gate `{SLO}` needs a hold before it")

    @property
    def promotion(self) -> int:
        """Index of the step `promote`."""
        return next(number for number, step in enumerate(self.steps) if isinstance(step, Promote))

    @property
    def hard_gap(self) -> bool:
        """Whether there is room for one replica only, so that one revision must go before the other can come."""
        return self.gap and self.room is not None and self.room < 2


def way_back(plan: Plan, *, moved: bool, cold: bool) -> tuple[Step, ...]:
    """What undoes a release, wherever it stands.

    Args:
        plan: the release.
        moved: whether the champion may have been moved.
        cold: whether the stable revision may be gone, or on its way.
    """
    new, stable = plan.to, plan.stable
    if stable is None:
        steps = [_demotion(plan)] if moved else []
        return (*steps, Retire(revision=new.revision, reason="There is nothing to go back to."))
    one = msgspec.structs.replace(stable, replicas=1)
    rest: list[Step] = [
        Retire(revision=new.revision, reason=f"{new.reference} has no traffic any more."),
        Start(target=stable, ready=1, reason=f"{stable.reference} gets all its replicas back."),
    ]
    return (
        *_room_for_stable(plan, cold=cold),
        Start(target=one, ready=1, reason=f"{stable.reference} must be ready before it gets the traffic."),
        Shift(weights={stable.revision: WHOLE}, reason=f"All traffic goes back to {stable.reference}."),
        *([NO_COPIES] if any(isinstance(step, Mirror) for step in plan.steps) else []),
        *([_demotion(plan)] if moved else []),
        *rest,
    )


NO_COPIES: Final = Mirror(reason="Nobody looks at answers to copies any more.")


def _room_for_stable(plan: Plan, *, cold: bool) -> Iterable[Step]:
    if plan.hard_gap:
        reason = f"There is room for one replica: {plan.to.reference} goes first, requests wait."
        yield Scale(revision=plan.to.revision, replicas=0, whole=False, reason=reason)
    elif cold and plan.room is not None and plan.to.replicas >= plan.room:
        reason = f"{plan.to.reference} makes room for one replica of the revision that takes over."
        yield Scale(revision=plan.to.revision, replicas=plan.room - 1, whole=False, reason=reason)


def _demotion(plan: Plan) -> Demote:
    reason = f"{plan.to.reference} did not keep its place." if plan.champion else "Nothing was champion before."
    return Demote(reference=plan.champion, leaving=plan.to.reference, reason=reason)


def standing(steps: Iterable[Step], begun: Step | None = None) -> tuple[Step, ...]:
    """Of steps that were done: those whose effect should still be there, the last of each kind and revision.

    A runner that takes over applies them again before it goes on. Where nothing happened meanwhile that changes
    nothing; where the platform was restarted it brings back what the next step rests on.
    """
    last: dict[tuple[str, str], Step] = {}
    stopped: set[str] = set()
    for step in steps:
        match step:
            case Scale(revision=revision, replicas=replicas):
                last["0 scale", revision] = step
                stopped |= {revision} if replicas == 0 else set()
            case Start(target=target):
                last["1 start", target.revision] = step
                stopped.discard(target.revision)
            case Shift():
                last["2 shift", ""] = step
            case Mirror():
                last["3 mirror", ""] = step
            case _:
                pass
    if isinstance(begun, Scale) and begun.replicas == 0:
        stopped.add(begun.revision)
    shift = last.get(("2 shift", ""))
    if isinstance(shift, Shift) and stopped & shift.weights.keys():
        del last["2 shift", ""]  # in a gap: what has the traffic was stopped, and waits for the next shift
    return tuple(last[key] for key in sorted(last))


def bake_of(plan: Plan) -> Bake | None:
    """Its bake, None where there is none."""
    return next((step for step in plan.steps if isinstance(step, Bake)), None)
