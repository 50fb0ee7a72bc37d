"""What a journal amounts to: in which state the release is, and what comes next. Pure.

Every event is held against the table of transitions and the order of the steps, so a journal that could not have been
written by a runner is refused, not followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from inferdock.domain.errors import ConflictError, IntegrityError
from inferdock.release.events import Begun, Done, Event, Judged, Marked, Planned, Refused, Taken, Turned, Way
from inferdock.release.judging.figures import Counts
from inferdock.release.machine import OVER, State, Trigger, follow
from inferdock.release.plan import Plan, way_back
from inferdock.release.steps import Retire, Scale, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Live figures when a window began.

    Attributes:
        step: index of the step that began it.
        time: when.
        counts: totals then, by revision.
        used: whether a gate has judged the window already.
    """

    step: int
    time: str
    counts: Mapping[str, Counts]
    used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A release so far.

    Attributes:
        plan: the plan.
        state: where it is.
        seq: number of the last event.
        time: its time.
        next: index of the plan's first step that is not done.
        begun: whether that step was begun.
        back: steps of the way back, empty while the release goes forward.
        back_next, back_begun: the same for them.
        moved: whether the champion may have been moved.
        cold: whether the stable revision may be gone.
        mark: the last window.
        stable_seen: the last figures of the stable revision that were judged.
        judged: verdicts, in order, each with its event.
        turned: the last change of state.
        flip_s: seconds that the flip back took; None while there was none.
        answered: ids of commands that were followed or refused, and the event that says so.
        taken: whether the last event is that a runner took over.
    """

    plan: Plan
    state: State = State.PLANNED
    seq: int = 1
    time: str = ""
    next: int = 0
    begun: bool = False
    back: tuple[Step, ...] = ()
    back_next: int = 0
    back_begun: bool = False
    moved: bool = False
    cold: bool = False
    mark: Mark | None = None
    stable_seen: Counts | None = None
    judged: tuple[Event, ...] = ()
    turned: Event | None = None
    flip_s: float | None = None
    answered: dict[str, Event] = field(default_factory=dict)
    taken: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        return self.state in OVER

    @property
    def step(self) -> Step | None:
        """The step that is next, on whichever way; None when there is none."""
        if self.state in (State.ABORTING, State.FAILED):
            return self.back[self.back_next] if self.back_next < len(self.back) else None
        return self.plan.steps[self.next] if self.next < len(self.plan.steps) else None

    @property
    def past_promotion(self) -> bool:
        """Whether the champion has been moved for good."""
        return self.next > self.plan.promotion

    @property
    def outcome(self) -> str:
        """Why it is in its state, in the words of the last change."""
        return self.turned.reason if self.turned is not None else ""


def fold(events: Iterable[Event]) -> Progress:
    """What the events amount to.

    Raises:
        IntegrityError: they are none that a runner writes.
    """
    progress: Progress | None = None
    for event in events:
        progress = begin(event) if progress is None else after(progress, event)
    if progress is None:
        raise IntegrityError("The journal is empty.", cure="Remove it: the release never began.")
    return progress


def begin(event: Event) -> Progress:
    """What the first event amounts to."""
    if not isinstance(event.entry, Planned):
        raise _wrong(event, "it does not begin with a plan")
    return Progress(plan=event.entry.plan, seq=event.seq, time=event.time)


def after(progress: Progress, event: Event) -> Progress:
    """What one more event makes of it.

    Raises:
        IntegrityError: it cannot follow.
    """
    now = replace(progress, seq=event.seq, time=event.time, taken=isinstance(event.entry, Taken))
    match event.entry:
        case Turned():
            return _turn(now, event, event.entry)
        case Begun() | Done():
            return _walk(now, event, event.entry)
        case Judged(stable=stable):
            seen = stable if stable is not None and stable.requests else now.stable_seen
            mark = replace(now.mark, used=True) if now.mark is not None else None
            return replace(now, judged=(*now.judged, event), stable_seen=seen, mark=mark)
        case Marked(step=step, counts=counts):
            return replace(now, mark=Mark(step=step, time=event.time, counts=counts))
        case Refused(request=request):
            return replace(now, answered={**now.answered, request: event})
        case Taken(request=request):
            return replace(now, answered={**now.answered, request: event} if request else now.answered)
        case Planned():
            raise _wrong(event, "it has two plans")


def _turn(now: Progress, event: Event, turned: Turned) -> Progress:
    try:
        state = follow(now.state, turned.trigger)
    except ConflictError as exc:
        raise _wrong(event, f"`{turned.trigger}` cannot follow `{now.state}`") from exc
    if turned.request:
        now = replace(now, answered={**now.answered, turned.request: event})
    now = replace(now, state=state, turned=event)
    if state is State.ABORTING:
        steps = way_back(now.plan, moved=now.moved, cold=now.cold)
        return replace(now, back=steps, back_next=0, back_begun=False)
    _check_turn(now, event, turned.trigger)
    return now


def _check_turn(now: Progress, event: Event, trigger: Trigger) -> None:
    """States promise how far a release is; hold them to it."""
    all_done = now.next == len(now.plan.steps)
    all_back = now.back_next == len(now.back)
    wrong = {
        Trigger.RESUME: now.past_promotion,
        Trigger.PROMOTE: now.past_promotion,
        Trigger.REBAKE: not now.past_promotion,
        Trigger.PROMOTED: not now.past_promotion,
        Trigger.BAKED: not all_done,
        Trigger.RESTORED: not all_back or now.moved,
        Trigger.ROLLED_BACK: not all_back or not now.moved,
    }
    if wrong.get(trigger, False):
        raise _wrong(event, f"`{trigger}` comes at the wrong step")


def _walk(now: Progress, event: Event, entry: Begun | Done) -> Progress:
    back = entry.way is Way.BACK
    states = (State.ABORTING,) if back else (State.RUNNING, State.PROMOTING, State.BAKING)
    place, begun, steps = (now.back_next, now.back_begun, now.back) if back else (now.next, now.begun, now.plan.steps)
    early = now.state is State.RUNNING and place >= now.plan.promotion
    late = now.state is State.BAKING and not now.past_promotion
    if now.state not in states or entry.step != place or place >= len(steps) or early or late:
        raise _wrong(event, f"step {entry.step} is not the next one")
    if isinstance(entry, Begun):
        if back:
            return replace(now, back_begun=True)
        now = replace(now, begun=True, moved=now.moved or place == now.plan.promotion)
        return replace(now, cold=now.cold or _cools(now.plan, steps[place]))
    if not begun:
        raise _wrong(event, f"step {entry.step} is done before it was begun")
    flip = entry.flip_s if entry.flip_s is not None else now.flip_s
    if back:
        return replace(now, back_next=place + 1, back_begun=False, flip_s=flip)
    return replace(now, next=place + 1, begun=False, flip_s=flip)


def _cools(plan: Plan, step: Step) -> bool:
    """Whether the stable revision may be gone after this step."""
    if plan.stable is None or not isinstance(step, Retire | Scale) or step.revision != plan.stable.revision:
        return False
    return isinstance(step, Retire) or step.replicas == 0


def _wrong(event: Event, why: str) -> IntegrityError:
    return IntegrityError(
        f"The journal makes no sense at event {event.seq}: {why}.",
        cure="Restore it from a backup, or look for who wrote it.",
    )
