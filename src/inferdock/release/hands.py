"""Applies the steps that change the platform or the champion: look, act only if needed, look until it is so.

Nothing here is remembered, so a step may be applied again by a runner that does not know what the last one had done.
What guards availability is here as well: all traffic is only given to what is ready, and what has traffic, or is alone
in being ready, is not taken away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from inferdock.domain.errors import ConfigError, ConflictError, InferdockError, ResourceError, UnreachableError
from inferdock.release.catalog import Catalog
from inferdock.release.clock import Clock
from inferdock.release.driver import Driver, Observed
from inferdock.release.outcome import StepFailedError, UnsureError
from inferdock.release.plan import Kind, Plan
from inferdock.release.steps import Demote, Mirror, Promote, Retire, Scale, Shift, Start

DONE: Final = ""
"""What an attempt says when nothing is left to wait for."""
_PASSING: Final = (UnreachableError, ResourceError, ConflictError)


class Hands:
    """What a runner does with.

    Args:
        plan: the release.
        driver: the platform.
        catalog: the champion.
        clock: for deadlines.
        guard: called before each change; raises when the lease was lost.
        tick: waits a moment; raises when a command came in.
        say: told what is waited for.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        driver: Driver,
        catalog: Catalog,
        clock: Clock,
        guard: Callable[[], Awaitable[None]],
        tick: Callable[[], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._driver = driver
        self._catalog = catalog
        self._clock = clock
        self._guard = guard
        self._tick = tick
        self._say = say

    async def start(self, step: Start) -> str:
        """See to it that replicas run and are ready."""
        target = step.target

        async def attempt() -> str:
            running = (await self._driver.observe()).of(target.revision)
            if running is None or running.wanted < target.replicas:
                await self._guard()
                await self._driver.start(target)
                return f"{target.reference} is being started"
            if running.ready >= step.ready:
                return DONE
            if running.given_up:
                raise StepFailedError(f"{target.reference} does not start: {running.problem or 'no reason is known'}")
            problem = f": {running.problem}" if running.problem else ""
            return f"{running.ready} of {step.ready} replicas of {target.reference} are ready{problem}"

        await self._until(attempt, self._plan.patience.start_s)
        return ""

    async def scale(self, step: Scale) -> str:
        """Make a fleet smaller, and wait until it is."""

        async def attempt() -> str:
            running = (await self._driver.observe()).of(step.revision)
            if running is None:
                return DONE
            if running.wanted <= step.replicas:  # one that drains still has the room that was to be made
                return f"{step.revision} drains" if running.ready > step.replicas or running.stopping else DONE
            if step.replicas == 0 and not self._plan.gap:
                raise StepFailedError(f"{step.revision} would be gone, and nobody allowed a gap")
            if step.whole and running.ready < running.wanted:
                return (
                    f"{step.revision} has {running.ready} of {running.wanted} replicas ready, too few to take one away"
                )
            await self._guard()
            await self._driver.scale(step.revision, step.replicas)
            return f"{step.revision} drains"

        await self._until(attempt, self._plan.patience.drain_s)
        return ""

    async def shift(self, step: Shift) -> str:
        """Divide traffic; only among revisions that are ready."""

        async def attempt() -> str:
            seen = await self._driver.observe()
            dark = [name for name, weight in step.weights.items() if weight > 0 and not seen.ready(name)]
            if dark:
                return f"{' and '.join(dark)} has no ready replica"
            if _in_force(seen, step):
                return DONE
            await self._guard()
            await self._driver.shift(step.weights)
            return DONE if _in_force(await self._driver.observe(), step) else "the weights are not in force yet"

        await self._until(attempt, self._plan.patience.shift_s)
        return ""

    async def mirror(self, step: Mirror) -> str:
        """Send copies, or none; said again even where it is so, for a platform may not show it."""

        async def attempt() -> str:
            await self._guard()
            try:
                await self._driver.mirror(step.revision or None, step.share)
            except ConfigError:
                if step.revision:
                    raise
            return DONE  # a platform that cannot send copies sends none

        await self._until(attempt, self._plan.patience.shift_s)
        return ""

    async def retire(self, step: Retire) -> str:
        """Take a revision away that has no traffic, while another one is there to serve."""

        async def attempt() -> str:
            seen = await self._driver.observe()
            if seen.of(step.revision) is None:
                return DONE
            if seen.share(step.revision) > 0 and self._plan.stable is not None:
                return f"{step.revision} still has traffic"
            serving = any(seen.ready(name) and seen.share(name) > 0 for name in seen.weights)
            if not serving and self._plan.stable is not None:
                return "nothing else is ready"
            await self._guard()
            await self._driver.retire(step.revision)
            return f"{step.revision} drains"

        await self._until(attempt, self._plan.patience.drain_s)
        return ""

    async def promote(self, step: Promote) -> str:
        """Move the champion by compare-and-set.

        A rollback takes over from whichever version is champion, and never fails here: traffic is where it should be,
        and that must not be undone because a registry does not answer.
        """
        lenient = self._plan.kind is Kind.ROLLBACK

        async def attempt() -> str:
            present = await self._catalog.champion()
            if present == step.reference:
                return DONE
            if step.expect is not None and present != step.expect:
                raise StepFailedError(
                    f"the champion is {present or 'unset'}, not {step.expect or 'unset'}: somebody moved it meanwhile"
                )
            await self._guard()
            await self._catalog.move(step.reference, expect=present, reason=self._why(step))
            return DONE

        try:
            await self._until(attempt, self._plan.patience.alias_s)
        except _TooLateError as exc:
            raise UnsureError(f"traffic goes to {step.reference}, but the champion could not be moved: {exc}") from exc
        except StepFailedError as exc:
            if lenient:
                raise UnsureError(f"traffic is back, but the champion could not be moved: {exc}") from exc
            raise
        return ""

    async def demote(self, step: Demote) -> str:
        """Give the champion back, unless it is not ours to give."""
        note = ""

        async def attempt() -> str:
            nonlocal note
            present = await self._catalog.champion()
            if present == step.leaving:
                await self._guard()
                await self._catalog.move(step.reference, expect=present, reason=self._why(step))
            elif present != step.reference:
                note = f"the champion is {present or 'unset'}: somebody moved it, so it stays"
            return DONE

        await self._until(attempt, self._plan.patience.alias_s)
        return note

    def _why(self, step: Promote | Demote) -> str:
        """For the registry's history: it names the release, whose journal says the rest."""
        return f"release {self._plan.id}: {step.reason}"

    async def _until(self, attempt: Callable[[], Awaitable[str]], deadline_s: float) -> None:
        """Attempt until nothing is left to wait for.

        Raises:
            StepFailedError: it is of no use, or took too long (then :class:`_TooLateError`).
        """
        end = self._clock.monotonic() + deadline_s
        said = ""
        while True:
            try:
                waiting = await attempt()
            except _PASSING as exc:
                waiting = exc.message.rstrip(".")
            except InferdockError as exc:
                raise StepFailedError(str(exc)) from exc
            if waiting == DONE:
                return
            if self._clock.monotonic() >= end:
                raise _TooLateError(f"after {deadline_s:g} s {waiting}")
            if waiting != said:
                self._say(waiting)
                said = waiting
            await self._tick()


class _TooLateError(StepFailedError):
    """The deadline has passed."""


def _in_force(seen: Observed, step: Shift) -> bool:
    names = seen.weights.keys() | step.weights.keys()
    if not sum(seen.weights.values()) > 0:
        return False
    return all(
        abs((seen.share(name) if name in seen.weights else 0.0) - step.weights.get(name, 0.0)) < 1e-6 for name in names
    )
