"""Applies a plan: journals each step before and after, asks the gates, goes back when one fails, pauses when unsure.

A runner may be cancelled or killed at any point. The next one, on the same journal and under the lease, takes the
release up at the first step that is not journalled as done, and applies it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inferdock.domain.errors import ConflictError, InferdockError
from inferdock.domain.moment import unspell
from inferdock.domain.verdict import Verdict
from inferdock.release.catalog import Catalog
from inferdock.release.clock import Clock
from inferdock.release.driver import Driver
from inferdock.release.events import Begun, Done, Entry, Event, Judged, Marked, Refused, Taken, Turned, Way
from inferdock.release.hands import Hands
from inferdock.release.judging.consult import Consult, keepable
from inferdock.release.judging.figures import Counts, Meter
from inferdock.release.judging.gate import DIGESTS, SLO, Gate
from inferdock.release.judging.watch import Seen, Watch
from inferdock.release.machine import RESTING, State, Trigger
from inferdock.release.outcome import AskedError, StepFailedError, UnsureError
from inferdock.release.plan import Kind, standing
from inferdock.release.progress import Progress
from inferdock.release.records.journal import MAX_TEXT, By, Journal, clean
from inferdock.release.records.lease import Lease
from inferdock.release.records.mailbox import Mailbox, Request, Wish, trigger_of
from inferdock.release.steps import (
    MAX_SECONDS,
    WHOLE,
    Bake,
    Check,
    Demote,
    Hold,
    Mirror,
    Promote,
    Retire,
    Scale,
    Shift,
    Start,
    Step,
)
from inferdock.release.steps import Gate as GateStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told how a release goes.

    Attributes:
        event: called with each event once it is in the journal.
        waiting: called with a few words while something is waited for.
    """

    event: Callable[[Event], None] = lambda event: None
    waiting: Callable[[str], None] = lambda text: None


class Runner:
    """Runs one release. Whoever makes one holds the lease.

    Args:
        journal: of the release.
        driver: the platform.
        catalog: the champion.
        gates: by name; ``digests`` and all that the plan names must be there, ``slo`` is the runner's own.
        meter: live figures.
        lease: held by the caller.
        mailbox: where commands come in.
        clock: time.
        by: who runs it.
        listener: who is told.

    Raises:
        ConfigError: a gate of the plan is missing.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        driver: Driver,
        catalog: Catalog,
        gates: Mapping[str, Gate],
        meter: Meter,
        lease: Lease,
        mailbox: Mailbox,
        clock: Clock,
        by: By,
        listener: Listener | None = None,
    ) -> None:
        self._journal = journal
        self._lease = lease
        self._mailbox = mailbox
        self._clock = clock
        self._by = by
        self._listener = listener or Listener()
        self._decided: float | None = None
        plan = journal.progress.plan
        say = self._listener.waiting
        self._hands = Hands(
            plan=plan, driver=driver, catalog=catalog, clock=clock, guard=lease.check, tick=self._tick, say=say
        )
        self._consult = Consult(plan=plan, driver=driver, gates=gates, clock=clock, check=self._check)
        self._watch = Watch(plan=plan, driver=driver, meter=meter, clock=clock, tick=self._tick, say=say)

    @property
    def progress(self) -> Progress:
        """How far the release is."""
        return self._journal.progress

    async def run(self) -> Progress:
        """Go on until the release is over, paused or stuck.

        Raises:
            ConflictError: the lease was lost.
            ResourceError: the journal cannot be written.
        """
        await self._lease.check()
        unsettled = self.progress.seq > 1
        if unsettled and self.progress.state not in RESTING and not self.progress.taken:
            await self._note(Taken(), reason="A runner takes the release up.")
        while True:
            await self._answer_mail()
            if self.progress.state in RESTING:
                return self.progress
            await self._guarded(settle=unsettled)
            unsettled = False

    async def ask(self, request: Request) -> Progress:
        """Follow a command where no other runner is at it, and go on from there.

        Raises:
            ConflictError: the release as it stands cannot follow it.
        """
        await self._lease.check()
        if request.id not in self.progress.answered:
            trigger = trigger_of(request.wish, self.progress)
            if trigger is not None:
                await self._turn(trigger, said(request), request=request)
            elif request.wish is Wish.RESUME and self.progress.state not in RESTING:
                await self._note(Taken(request=request.id), by=_by(request), reason=request.reason)
            else:
                raise ConflictError(cannot(request, self.progress), cure="Look at `inferdock release status`.")
        return await self.run()

    # -- from state to state ---------------------------------------------------------------------------------

    async def _guarded(self, *, settle: bool) -> None:
        """One state, and what comes of it."""
        state = self.progress.state
        sorry = Trigger.STUCK if state is State.ABORTING else Trigger.INCONCLUSIVE
        settled = not settle
        try:
            if settle:
                await self._settle()
                settled = True
            trigger, why = await self._stay()
            await self._turn(trigger, why)
        except AskedError as asked:
            await self._turn(asked.trigger, said(asked.request), request=asked.request)
        except UnsureError as exc:
            await self._turn(sorry, str(exc))
        except StepFailedError as exc:
            await self._turn(Trigger.FAIL if settled and self._to_blame(state) else sorry, str(exc))

    def _to_blame(self, state: State) -> bool:
        """Whether the new revision is to blame for a step that failed, so that going back mends it.

        Not after the promotion, but for what the bake shows; nor once a rollback has brought the traffic home.
        """
        if state is State.BAKING:
            return isinstance(self.progress.step, Bake)
        return state is State.RUNNING or (state is State.PROMOTING and self.progress.plan.kind is Kind.RELEASE)

    async def _stay(self) -> tuple[Trigger, str]:
        """All that is done in the present state; says what ends it."""
        plan = self.progress.plan
        match self.progress.state:
            case State.PLANNED:
                return Trigger.BEGIN, f"{plan.kind} of {plan.to.reference}"
            case State.RUNNING:
                await self._forward(plan.promotion)
                return Trigger.PROMOTE, "every gate is passed"
            case State.PROMOTING:
                await self._forward(plan.promotion + 1)
                return Trigger.PROMOTED, f"{plan.to.reference} is champion"
            case State.BAKING:
                await self._forward(len(plan.steps))
                return Trigger.BAKED, f"{plan.to.reference} serves"
            case _:
                return await self._backward()

    async def _forward(self, until: int) -> None:
        """The plan's steps up to one."""
        hasty = self.progress.state is State.PROMOTING
        while (index := self.progress.next) < until:
            step = self.progress.plan.steps[index]
            if hasty and isinstance(step, GateStep | Hold):
                await self._begin(Way.FORWARD, index)
                await self._note(Done(way=Way.FORWARD, step=index, seconds=0, note="left out: promoted by hand"))
            else:
                await self._apply(Way.FORWARD, index, step)

    async def _backward(self) -> tuple[Trigger, str]:
        """What undoes the release."""
        while (index := self.progress.back_next) < len(self.progress.back):
            await self._apply(Way.BACK, index, self.progress.back[index])
        plan = self.progress.plan
        stands = plan.stable.reference if plan.stable is not None else "nothing"
        why = f"{stands} serves as before: {self.progress.outcome}"
        return (Trigger.ROLLED_BACK, why) if self.progress.moved else (Trigger.RESTORED, why)

    async def _settle(self) -> None:
        """Bring back what the next step rests on, where the platform lost it while no runner was there."""
        progress = self.progress
        done = progress.back[: progress.back_next] if progress.back else progress.plan.steps[: progress.next]
        begun = progress.back_begun if progress.back else progress.begun
        for step in standing(done, progress.step if begun else None):
            await self._do(-1, step)

    # -- one step --------------------------------------------------------------------------------------------

    async def _apply(self, way: Way, index: int, step: Step) -> None:
        await self._begin(way, index)
        began = self._clock.monotonic()
        note = await self._do(index, step)
        now = self._clock.monotonic()
        flip = self._since_decision() if self._flips(way, step) else None
        took = min(max(0.0, now - began), MAX_SECONDS)
        await self._note(Done(way=way, step=index, seconds=took, note=clean(note, MAX_TEXT), flip_s=flip))

    async def _begin(self, way: Way, index: int) -> None:
        back = way is Way.BACK
        if not (self.progress.back_begun if back else self.progress.begun):
            await self._note(Begun(way=way, step=index), reason=self.progress.back[index].reason if back else "")

    async def _do(self, index: int, step: Step) -> str:
        """Apply a step; what is worth noting about it."""
        match step:
            case Check():
                return await self._pass(index, DIGESTS)
            case GateStep(gate=gate):
                return await self._judge_figures(index) if gate == SLO else await self._pass(index, gate)
            case Start():
                return await self._hands.start(step)
            case Scale():
                return await self._hands.scale(step)
            case Shift():
                return await self._hands.shift(step)
            case Mirror():
                return await self._hands.mirror(step)
            case Retire():
                return await self._hands.retire(step)
            case Promote():
                return await self._hands.promote(step)
            case Demote():
                return await self._hands.demote(step)
            case Hold():
                mark, elapsed = await self._mark(index)
                return await self._judged(index, await self._watch.hold(step, mark, elapsed))
            case Bake():
                mark, elapsed = await self._mark(index)
                seen = await self._watch.bake(step, mark, elapsed, self.progress.stable_seen)
                return await self._judged(index, seen, lenient=True)

    # -- verdicts --------------------------------------------------------------------------------------------

    async def _pass(self, index: int, name: str) -> str:
        """Ask a gate."""
        finding = await self._consult.ask(name)
        return await self._judged(index, Seen(finding=finding), gate=name)

    async def _judge_figures(self, index: int) -> str:
        """The runner's own gate: the figures since the last hold began.

        Where that window was judged before, and nobody could tell, the hold is repeated with a new one: who resumes
        wants to know how it is now.
        """
        mark, plan = self.progress.mark, self.progress.plan
        if mark is None or mark.used or mark.step == index:
            hold = next(step for step in reversed(plan.steps[:index]) if isinstance(step, Hold))
            counts, elapsed = await self._mark(index)
            await self._judged(index, await self._watch.hold(hold, counts, elapsed))
        else:
            counts = mark.counts
        try:
            seen = await self._watch.judge(counts, self.progress.stable_seen)
        except InferdockError as exc:
            raise UnsureError(str(exc)) from exc
        return await self._judged(index, seen)

    async def _mark(self, index: int) -> tuple[Mapping[str, Counts], float]:
        """Figures when this step's window began, and the seconds since; they are in the journal."""
        mark = self.progress.mark
        if mark is not None and mark.step == index and not mark.used:
            return mark.counts, max(0.0, (self._clock.now() - unspell(mark.time)).total_seconds())
        end = self._clock.monotonic() + self.progress.plan.patience.shift_s
        while (figures := await self._watch.read()) is None:
            if self._clock.monotonic() >= end:
                raise UnsureError("nobody says the figures of the gateway")
            self._listener.waiting("the gateway does not say its figures")
            await self._tick()
        await self._note(Marked(step=index, counts=dict(figures)))
        return figures, 0.0

    async def _judged(self, index: int, seen: Seen, *, gate: str = SLO, lenient: bool = False) -> str:
        """Keep a verdict with its evidence, and act on it."""
        finding = seen.finding
        if finding is None:
            return ""
        entry = Judged(
            step=index, gate=gate, verdict=finding.verdict, evidence=keepable(finding.evidence), stable=seen.stable
        )
        await self._note(entry, reason=finding.reason)
        if finding.verdict is Verdict.FAIL:
            raise StepFailedError(f"{gate}: {finding.reason}")
        if finding.verdict is Verdict.INCONCLUSIVE and not lenient:
            raise UnsureError(f"{gate}: {finding.reason}")
        return finding.reason

    # -- journal and commands --------------------------------------------------------------------------------

    async def _note(self, entry: Entry, *, reason: str = "", by: By | None = None) -> None:
        event = await self._journal.append(entry, by or self._by, self._clock.now(), reason=reason)
        self._listener.event(event)

    async def _turn(self, trigger: Trigger, reason: str, *, request: Request | None = None) -> None:
        """Go to another state."""
        by = _by(request) if request is not None else None
        await self._note(Turned(trigger=trigger, request=request.id if request else ""), reason=reason, by=by)
        if request is not None:
            await self._mailbox.remove(request)
        rollback = self.progress.plan.kind is Kind.ROLLBACK
        if self.progress.state is State.ABORTING or (trigger is Trigger.BEGIN and rollback):
            waited = (self._clock.now() - unspell(request.time)).total_seconds() if request is not None else 0.0
            self._decided = self._clock.monotonic() - max(0.0, waited)

    def _since_decision(self) -> float:
        """Seconds since it was said, or found, that the release goes back."""
        if self._decided is not None:
            return min(max(0.0, self._clock.monotonic() - self._decided), MAX_SECONDS)
        turned = self.progress.turned
        waited = (self._clock.now() - unspell(turned.time)).total_seconds() if turned is not None else 0.0
        return min(max(0.0, waited), MAX_SECONDS)

    def _flips(self, way: Way, step: Step) -> bool:
        """Whether a step is the one that brings all traffic back."""
        plan = self.progress.plan
        home = plan.stable if way is Way.BACK else plan.to if plan.kind is Kind.ROLLBACK else None
        return home is not None and isinstance(step, Shift) and step.weights.get(home.revision) == WHOLE

    async def _tick(self) -> None:
        """Wait a moment, then see whether we may go on."""
        await self._clock.sleep(self.progress.plan.patience.poll_s)
        await self._check()

    async def _check(self) -> None:
        """See whether we may go on.

        Raises:
            ConflictError: the lease was lost.
            AskedError: a command came in.
        """
        await self._lease.check()
        for request in await self._mailbox.waiting():
            if request.id in self.progress.answered:
                await self._mailbox.remove(request)
                continue
            trigger = trigger_of(request.wish, self.progress)
            if trigger is not None:
                raise AskedError(request, trigger)
            await self._note(Refused(request=request.id), by=_by(request), reason=cannot(request, self.progress))
            await self._mailbox.remove(request)

    async def _answer_mail(self) -> None:
        """Follow the commands that wait, one after the other."""
        while True:
            try:
                return await self._check()
            except AskedError as asked:
                await self._turn(asked.trigger, said(asked.request), request=asked.request)


def _by(request: Request) -> By:
    return By(actor=request.actor, origin=request.origin)


def said(request: Request) -> str:
    """Why, in the person's words, or at least what."""
    return f"{request.wish}: {request.reason}" if request.reason else str(request.wish)


def cannot(request: Request, progress: Progress) -> str:
    """Why a command is not followed."""
    return f"Release {progress.plan.id} is {progress.state}, and cannot {request.wish}."
