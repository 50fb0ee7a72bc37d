"""Asks gates: in time, with commands answered meanwhile, and with every failure of a gate turned into a verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from inferdock.domain.errors import (
    CheckFailedError,
    ConfigError,
    EngineError,
    InferdockError,
    IntegrityError,
    ModelError,
)
from inferdock.domain.verdict import Verdict
from inferdock.release.clock import Clock
from inferdock.release.driver import Driver
from inferdock.release.judging.gate import DIGESTS, SLO, Context, Finding, Gate
from inferdock.release.plan import Plan
from inferdock.release.steps import Check
from inferdock.release.steps import Gate as GateStep

MAX_EVIDENCE_BYTES: Final = 128 * 1024
"""Of one verdict; a gate with more to say writes a report and names it."""
_CANCEL_S: Final = 10
"""Real seconds that a gate gets to end when it is cancelled."""
_DEFINITE: Final = (IntegrityError, ModelError, CheckFailedError, EngineError)
"""What a gate may raise that is a verdict on the revision; other errors say that the gate could not tell."""


class Consult:
    """The gates of one release.

    Args:
        plan: the release.
        driver: says where replicas are.
        gates: by name.
        clock: time.
        check: looks at lease and commands; raises when we may not go on.

    Raises:
        ConfigError: a gate of the plan is missing.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        driver: Driver,
        gates: Mapping[str, Gate],
        clock: Clock,
        check: Callable[[], Awaitable[None]],
    ) -> None:
        self._plan = plan
        self._driver = driver
        self._gates = gates
        self._clock = clock
        self._check = check
        named = {step.gate for step in plan.steps if isinstance(step, GateStep)} - {SLO}
        if any(isinstance(step, Check) for step in plan.steps):
            named.add(DIGESTS)
        if missing := sorted(named - gates.keys()):
            raise ConfigError(
                f"There is no gate {' or '.join(missing)}.",
                cure=f"Gates are {', '.join(sorted({*gates} - {DIGESTS}))}.",
            )

    async def ask(self, name: str) -> Finding:
        """A gate's verdict; whatever is wrong with the gate itself is ``inconclusive``."""
        limit = self._plan.patience.gate_s
        end = self._clock.monotonic() + limit
        task = asyncio.ensure_future(self._verdict(name))
        try:
            while not task.done():
                if self._clock.monotonic() >= end:
                    return Finding(verdict=Verdict.INCONCLUSIVE, reason=f"it did not end within {limit:g} s")
                await self._moment(task)
                if not task.done():
                    await self._check()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_S)

    async def _moment(self, task: asyncio.Future[Finding]) -> None:
        """Wait for the gate, but not for long."""
        sleeper = asyncio.ensure_future(self._clock.sleep(self._plan.patience.poll_s))
        try:
            both: set[asyncio.Future[Any]] = {task, sleeper}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()

    async def _verdict(self, name: str) -> Finding:
        try:
            return await self._gates[name].check(self._plan.to, await self._context(name))
        except _DEFINITE as exc:
            return Finding(verdict=Verdict.FAIL, reason=str(exc), evidence={"error": type(exc).__name__})
        except InferdockError as exc:
            return Finding(verdict=Verdict.INCONCLUSIVE, reason=str(exc), evidence={"error": type(exc).__name__})
        except Exception as exc:  # a gate that breaks has said nothing about the revision
            reason = f"the gate itself failed: {type(exc).__name__}"
            return Finding(verdict=Verdict.INCONCLUSIVE, reason=reason, evidence={"error": repr(exc)[:2000]})

    async def _context(self, name: str) -> Context:
        plan = self._plan
        early = name == DIGESTS  # nothing of the new revision runs yet
        return Context(
            release=plan.id,
            model=plan.model,
            addresses=() if early else await self._driver.address(plan.to.revision),
            stable=plan.stable,
            stable_addresses=() if early or plan.stable is None else await self._driver.address(plan.stable.revision),
        )


def keepable(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence as a journal can hold it; what it cannot hold is left out, and that is said."""
    try:
        data = msgspec.json.encode(dict(evidence))
        if len(data) <= MAX_EVIDENCE_BYTES:
            return msgspec.json.decode(data, type=dict[str, Any])
        return {"left_out": f"{len(data)} bytes, more than {MAX_EVIDENCE_BYTES}"}
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as exc:
        return {"left_out": f"it is no JSON: {str(exc)[:200]}"}
