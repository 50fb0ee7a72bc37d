"""Watches live figures while a release holds or bakes, and judges them (`analysis` says how).

A hold waits for time and samples, and ends early when a strict look says that the new revision is worse. During the
bake windows are judged one after the other: two that break a limit in a row roll back, and so does one that breaks it
beyond any doubt; a single bad window may be chance, and there are many. A revision that has traffic and no ready
replica for a while has failed whatever the figures say: requests that reached nothing are in nobody's figures.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from inferdock.domain.errors import InferdockError, UnreachableError
from inferdock.domain.verdict import Verdict
from inferdock.release.clock import Clock
from inferdock.release.driver import Driver
from inferdock.release.judging.analysis import STRICT_LOOK, judge
from inferdock.release.judging.figures import NOTHING, Counts, Meter, since
from inferdock.release.judging.gate import Finding
from inferdock.release.plan import Plan
from inferdock.release.steps import Bake, Hold

Figures = Mapping[str, Counts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a watch ends with.

    Attributes:
        finding: the verdict; None where nothing was to be judged yet.
        stable: the stable revision's figures in the window.
    """

    finding: Finding | None
    stable: Counts | None = None


class Watch:
    """Watches one release.

    Args:
        plan: the release.
        driver: tells whether replicas are ready.
        meter: tells the figures.
        clock: time.
        tick: waits a moment; raises when a command came in.
        say: told how far it is.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        driver: Driver,
        meter: Meter,
        clock: Clock,
        tick: Callable[[], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._driver = driver
        self._meter = meter
        self._clock = clock
        self._tick = tick
        self._say = say
        self._dark_since: float | None = None

    async def read(self) -> Figures | None:
        """The figures of both revisions now; None where nobody says them."""
        try:
            figures = await self._meter.read()
        except InferdockError:
            return None
        names = [target.revision for target in (self._plan.stable, self._plan.to) if target is not None]
        return {name: figures.get(name, NOTHING) for name in names}

    def window(self, mark: Figures, now: Figures) -> tuple[Counts, Counts | None]:
        """Figures of the new and the stable revision since a mark."""
        new = self._plan.to.revision
        stable = self._plan.stable.revision if self._plan.stable is not None else None
        counted = {name: since(mark.get(name, NOTHING), counts) for name, counts in now.items()}
        return counted.get(new, NOTHING), counted.get(stable, NOTHING) if stable is not None else None

    async def hold(self, step: Hold, mark: Figures, elapsed_s: float) -> Seen:
        """Wait; a finding is a failure.

        Args:
            step: how long.
            mark: figures when the hold began.
            elapsed_s: how long ago that was.
        """
        began = self._clock.monotonic() - elapsed_s
        look, looked_at = 0, 0
        while True:
            elapsed = self._clock.monotonic() - began
            if (finding := await self._dark()) is not None:
                return Seen(finding=finding)
            requests = 0
            if (now := await self.read()) is not None:
                new, stable = self.window(mark, now)
                requests = new.requests
                if new.seen >= max(2 * looked_at, self._plan.limits.min_to_fail):
                    look, looked_at = look + 1, new.seen
                    finding = judge(new, stable, self._plan.limits, look=look)
                    if finding.verdict is Verdict.FAIL:
                        return Seen(finding=finding, stable=stable)
            if (elapsed >= step.seconds and requests >= step.samples) or elapsed >= step.limit_s:
                return Seen(finding=None)
            self._say(f"holding: {elapsed:.0f} of {step.seconds:g} s, {requests} of {step.samples} requests")
            await self._pause()

    async def judge(self, mark: Figures, stable_seen: Counts | None) -> Seen:
        """The one look at the end of a hold.

        Raises:
            UnreachableError: nobody says the figures.
        """
        now = await self.read()
        if now is None:
            raise UnreachableError("The gateway does not say its figures.", cure="Resume when it does.")
        new, stable = self.window(mark, now)
        compared = stable if stable is not None and stable.requests else stable_seen
        return Seen(finding=judge(new, compared, self._plan.limits), stable=stable)

    async def bake(self, step: Bake, mark: Figures, elapsed_s: float, stable_seen: Counts | None) -> Seen:
        """Watch until the time is over, or until limits are broken.

        Args:
            step: how long.
            mark: figures when the bake began.
            elapsed_s: how long ago that was.
            stable_seen: what the stable revision did when it last had traffic.
        """
        limits = self._plan.limits
        began = self._clock.monotonic() - elapsed_s
        last = await self.read() or mark
        window_began, broken = self._clock.monotonic(), False
        while (elapsed := self._clock.monotonic() - began) < step.seconds:
            if (finding := await self._dark()) is not None:
                return Seen(finding=finding)
            now = await self.read()
            if now is not None and self._clock.monotonic() - window_began >= step.window_s:
                new, _ = self.window(last, now)
                gross = judge(new, stable_seen, limits, look=STRICT_LOOK)
                finding = judge(new, stable_seen, limits)
                bad = finding.verdict is Verdict.FAIL
                if gross.verdict is Verdict.FAIL or (bad and broken):
                    return Seen(finding=finding)
                if bad or new.requests >= limits.min_requests:  # too few: the window goes on
                    last, window_began, broken = now, self._clock.monotonic(), bad
            self._say(f"baking: {elapsed:.0f} of {step.seconds:g} s")
            await self._pause(step.seconds - elapsed)
        now = await self.read()
        new, _ = self.window(mark, now) if now is not None else (NOTHING, None)
        return Seen(finding=_at_the_end(judge(new, stable_seen, limits)))

    async def _pause(self, most_s: float = float("inf")) -> None:
        """Until the next reading; commands are looked at meanwhile."""
        end = self._clock.monotonic() + min(self._plan.patience.watch_s, most_s)
        while True:
            await self._tick()
            if self._clock.monotonic() >= end:
                return

    async def _dark(self) -> Finding | None:
        """A failure when the new revision has had no ready replica for longer than it may."""
        try:
            seen = await self._driver.observe()
        except InferdockError:
            return None  # nobody knows: that is no reason to go back
        revision, grace = self._plan.to.revision, self._plan.patience.grace_s
        if seen.ready(revision) or not seen.share(revision):
            self._dark_since = None
            return None
        now = self._clock.monotonic()
        self._dark_since = now if self._dark_since is None else self._dark_since
        if now - self._dark_since < grace:
            return None
        running = seen.of(revision)
        evidence = {"wanted": running.wanted if running else 0, "problem": running.problem if running else ""}
        reason = f"{self._plan.to.reference} has had no ready replica for {grace:g} s"
        return Finding(verdict=Verdict.FAIL, reason=reason, evidence=evidence)


def _at_the_end(finding: Finding) -> Finding:
    """The bake is over and no window broke a limit twice; what all of it amounts to is noted, not acted on."""
    if finding.verdict is Verdict.FAIL:
        return Finding(verdict=Verdict.INCONCLUSIVE, reason=finding.reason, evidence=finding.evidence)
    return finding
