"""Makes the plans of releases and rollbacks from what is wanted and what there is room for. Pure.

With ``w`` the canary's share and ``M`` the replicas it shall have, it gets ``ceil(w M)`` of them before it gets that
share. With room for both fleets (surge) the stable revision keeps all of its own. Without (replace) it drains as many
as the canary needs, but keeps one to the end of the bake: so that something is ready at every moment, and a rollback
is a flip. Room for a single replica leaves no such plan; then nothing serves for a while, and a person must allow it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from inferdock.domain.errors import ConfigError, ResourceError
from inferdock.release.judging.analysis import needed
from inferdock.release.judging.gate import SHADOW, SLO
from inferdock.release.plan import Kind, Mode, Plan
from inferdock.release.plan_text import percent
from inferdock.release.steps import (
    MAX_SECONDS,
    WHOLE,
    Bake,
    Check,
    Gate,
    Hold,
    Mirror,
    Patience,
    Promote,
    Retire,
    Rules,
    Scale,
    Shadow,
    Shift,
    Start,
    Step,
    Target,
)


def make_release(
    *,
    id: str,
    model: str,
    stable: Target | None,
    to: Target,
    rules: Rules,
    champion: str,
    spare: int | None,
    why: str = "",
    allow_gap: bool = False,
) -> Plan:
    """Plan a gated rollout.

    Args:
        id: of the release.
        model: name that clients use.
        stable: what serves now, with the replicas it has; None when nothing does.
        to: what shall serve, with the replicas it shall have.
        rules: weights, gates, times and limits.
        champion: reference of the registry's champion now, "" for none.
        spare: replicas that there is room for beside those that run; None: as many as it takes.
        why: how that is known, in a sentence.
        allow_gap: whether nothing may serve for a while where there is no other way.

    Raises:
        ConfigError: there is nothing to release, or the weights make no sense.
        ResourceError: there is no room for it, or only with a gap that was not allowed.
    """
    _check(stable, to, rules)
    room = None if spare is None else (stable.replicas if stable is not None else 0) + spare
    if room is not None and to.replicas > room:
        raise ResourceError(
            _because(f"{to.reference} shall have {to.replicas} replicas, and there is room for {room}.", why),
            cure="Ask for fewer with --replicas, or make room.",
        )
    mode = _mode(stable, to, room)
    gap = mode is Mode.REPLACE and room is not None and room < 2
    if gap and not allow_gap:
        raise ResourceError(
            _because(
                "There is room for one replica only: the old revision must stop before the new one can start, and "
                "nothing answers until it is ready; a rollback takes a cold start as well.",
                why,
            ),
            cure="Make room for a second replica, or allow it with --allow-gap.",
        )
    draft = _Draft(stable=stable, to=to, rules=rules, mode=mode, room=room, why=why, gap=gap, champion=champion)
    return Plan(
        id=id,
        model=model,
        stable=stable,
        to=to,
        mode=mode,
        room=room,
        gap=gap,
        champion=champion,
        notes=tuple(draft.notes()),
        steps=tuple(draft.steps()),
        limits=rules.limits,
        patience=draft.patience,
        shadow=draft.shadow,
    )


def _check(stable: Target | None, to: Target, rules: Rules) -> None:
    if stable is not None and stable.revision == to.revision:
        raise ConfigError(f"{to.reference} serves already.", cure="Name another version.")
    if to.replicas < 1 or (stable is not None and stable.replicas < 1):
        raise ConfigError("A revision that serves has at least one replica.", cure="Choose another --replicas.")
    if list(rules.weights) != sorted(set(rules.weights)):
        raise ConfigError("The weights of a canary must grow.", cure="Write for instance 0.1, 0.5, 1.")
    for gate, needs in ((SLO, "follows each weight"), (SHADOW, "comes with copies of requests (--shadow)")):
        if gate in rules.gates:
            raise ConfigError(f"The gate `{gate}` {needs} by itself.", cure="Leave it out of the gates.")
    if rules.hold_limit_s < rules.hold_s or (rules.shadow and rules.shadow.hold_limit_s < rules.shadow.hold_s):
        raise ConfigError("A hold is to last longer than it may.", cure="Raise hold_limit_s above hold_s.")


def _mode(stable: Target | None, to: Target, room: int | None) -> Mode:
    if stable is None or room is None or room >= stable.replicas + to.replicas:
        return Mode.SURGE
    return Mode.REPLACE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """What a release's steps are made from."""

    stable: Target | None
    to: Target
    rules: Rules
    mode: Mode
    room: int | None
    why: str
    gap: bool
    champion: str

    @property
    def shadow(self) -> Shadow | None:
        """How copies of requests try the new revision; None where both revisions never serve at once."""
        return None if self.stable is None or self.gap else self.rules.shadow

    @property
    def patience(self) -> Patience:
        """Deadlines; a gate that waits for copies gets the time that it takes."""
        patience = self.rules.patience
        least = self.shadow.hold_limit_s + patience.gate_s if self.shadow is not None else 0.0
        return replace(patience, gate_s=max(patience.gate_s, min(least, MAX_SECONDS)))

    def notes(self) -> Iterator[str]:
        """What a person should know first."""
        to, stable = self.to.reference, self.stable
        if stable is None:
            yield f"Nothing serves yet: {to} gets all traffic once the gates are passed."
        elif self.mode is Mode.SURGE:
            room = "no limit is known" if self.room is None else f"there is room for {self.room} replicas"
            yield _because(f"Surge: {room}, so {stable.reference} keeps its {stable.replicas}.", self.why)
        elif self.gap:
            yield _because(
                f"Replace with a gap: there is room for one replica. {stable.reference} stops, then {to} starts; "
                "requests wait or are refused until it is ready, and going back takes a cold start.",
                self.why,
            )
        else:
            yield _because(
                f"Replace: there is room for {self.room} replicas, not for {stable.replicas} + {self.to.replicas}, "
                f"so {stable.reference} gives up replicas as {to} takes over. It keeps one to the end of the bake.",
                self.why,
            )
        if self.rules.shadow is not None and self.shadow is None:
            yield "No copies of requests are sent: both revisions do not serve at the same time."
        if stable is not None and self.champion != stable.reference:
            yield f"The champion is {self.champion or 'not set'}, not {stable.reference}, which serves."

    def steps(self) -> Iterator[Step]:
        """All of them."""
        to, stable = self.to, self.stable
        yield Check(reason=f"Nothing starts on files that are not those of {to.reference}'s manifest.")
        if stable is not None:
            reason = f"{to.reference} gets no traffic before it has passed the gates."
            yield Shift(weights={stable.revision: WHOLE}, reason=reason)
        have = 0
        for number, weight in enumerate(self._weights()):
            wanted = self._replicas(weight)
            if wanted > have:
                yield from self._grow(have, wanted, weight)
                have = wanted
            if number == 0:
                yield from (Gate(gate=gate, reason=_why(gate, to, stable)) for gate in self.rules.gates)
                yield from self._shadowed()
            yield from self._stage(weight)
        expect = f" takes over from {self.champion}" if self.champion else ""
        yield Promote(
            reference=to.reference, expect=self.champion, reason=f"It passed every gate: {to.reference}{expect}."
        )
        yield from self._after(have)

    def _weights(self) -> Sequence[float]:
        if self.stable is None or self.gap:
            return (WHOLE,)
        weights = self.rules.weights
        return weights if weights and weights[-1] == WHOLE else (*weights, WHOLE)

    def _replicas(self, weight: float) -> int:
        """Of the canary, before it gets a share."""
        wanted = max(1, math.ceil(weight * self.to.replicas - 1e-9))
        if self.mode is Mode.SURGE or self.gap or self.room is None:
            return wanted
        return min(wanted, self.room - 1)

    def _grow(self, have: int, wanted: int, weight: float) -> Iterator[Step]:
        stable, to = self.stable, self.to
        if stable is not None and self.mode is Mode.REPLACE and self.room is not None:
            left, before = self.room - wanted, min(stable.replicas, self.room - have)
            if left < before:
                what = "all of it stops" if left == 0 else f"{before - left} of {before} drain"
                reason = f"There is no room for {wanted} of {to.reference} beside {stable.reference}: {what}."
                yield Scale(revision=stable.revision, replicas=left, whole=left > 0, reason=reason)
        reason = f"{wanted} of {to.replicas} replicas serve {percent(weight)} of the traffic."
        yield Start(target=replace(to, replicas=wanted), ready=wanted, reason=reason)

    def _stage(self, weight: float) -> Iterator[Step]:
        to, stable, rules = self.to, self.stable, self.rules
        weights = {to.revision: WHOLE}
        if stable is not None and weight < WHOLE:
            weights = {stable.revision: WHOLE - weight, to.revision: weight}
        yield Shift(weights=weights, reason=f"{percent(weight)} of new requests go to {to.reference}.")
        if stable is None:
            return
        samples = needed(rules.limits)
        reason = f"Live figures gather: fewer than {samples} requests cannot show that the limits are kept."
        yield Hold(seconds=rules.hold_s, samples=samples, limit_s=rules.hold_limit_s, reason=reason)
        yield Gate(gate=SLO, reason=f"Errors, TTFT and TPOT of {to.reference} are held against the limits.")

    def _shadowed(self) -> Iterator[Step]:
        shadow, to = self.shadow, self.to
        if shadow is None:
            return
        reason = f"{to.reference} is tried with what clients really ask, and nobody gets its answers."
        yield Mirror(revision=to.revision, share=shadow.share, reason=reason)
        yield Gate(gate=SHADOW, reason=f"Answers and times of {to.reference} are held against those that clients got.")
        yield Mirror(reason="The canary gets requests of its own from here on.")

    def _after(self, have: int) -> Iterator[Step]:
        to, stable, rules = self.to, self.stable, self.rules
        if stable is None:
            return
        if rules.bake_s > 0:
            warm = "cold" if self.gap else "warm"
            reason = (
                f"{stable.reference} stays {warm}: a rollback is at hand, and broken limits bring it by themselves."
            )
            yield Bake(seconds=rules.bake_s, window_s=rules.window_s, reason=reason)
        yield Retire(revision=stable.revision, reason=f"{stable.reference} is not needed any more.")
        if have < to.replicas:
            reason = f"{to.reference} takes the room that {stable.reference} leaves."
            yield Start(target=to, ready=1, reason=reason)


def make_rollback(
    *,
    id: str,
    model: str,
    bad: Target,
    to: Target,
    champion: str,
    ready: int,
    spare: int | None,
    why: str = "",
    patience: Patience | None = None,
    allow_gap: bool = False,
) -> Plan:
    """Plan the way to an earlier revision: traffic first, everything else after, no quality gate.

    Args:
        id: of the release.
        model: name that clients use.
        bad: what serves now, with the replicas it has.
        to: where to go, with the replicas it shall have.
        champion: reference of the registry's champion now, "" for none.
        ready: replicas of ``to`` that are ready now; with one or more the rollback is a flip.
        spare: replicas that there is room for beside those that run; None: as many as it takes.
        why: how that is known, in a sentence.
        patience: deadlines.
        allow_gap: whether nothing may serve for a while where there is no other way.

    Raises:
        ConfigError: there is nothing to roll back.
        ResourceError: there is no room for it, or only with a gap that was not allowed.
    """
    _check(bad, to, Rules())
    room = None if spare is None else bad.replicas + ready + spare
    if room is not None and to.replicas > room:
        raise ResourceError(
            _because(f"{to.reference} shall have {to.replicas} replicas, and there is room for {room}.", why),
            cure="Ask for fewer with --replicas, or make room.",
        )
    gap = ready == 0 and room is not None and room < 2
    if gap and not allow_gap:
        raise ResourceError(
            _because(
                f"There is room for one replica only: {bad.reference} must stop before {to.reference} can start.", why
            ),
            cure="Make room for a second replica, or allow it with --allow-gap.",
        )
    return Plan(
        id=id,
        kind=Kind.ROLLBACK,
        model=model,
        stable=bad,
        to=to,
        mode=_mode(bad, to, room),
        room=room,
        gap=gap,
        champion=champion,
        notes=(_because(_rollback_note(to, ready, gap=gap), "" if ready else why),),
        steps=tuple(_rollback_steps(bad, to, ready, room)),
        patience=patience or Patience(),
    )


def _rollback_note(to: Target, ready: int, *, gap: bool) -> str:
    if ready:
        return f"{to.reference} is warm ({ready} ready): traffic flips at once."
    stops = " after the other revision has stopped; requests wait meanwhile" if gap else ""
    return f"{to.reference} is cold: it starts first{stops}."


def _rollback_steps(bad: Target, to: Target, ready: int, room: int | None) -> Iterator[Step]:
    if ready == 0 and room is not None and bad.replicas >= room:
        reason = f"{bad.reference} makes room for one replica of {to.reference}."
        yield Scale(revision=bad.revision, replicas=room - 1, whole=False, reason=reason)
    one = replace(to, replicas=1)
    yield Start(target=one, ready=1, reason=f"{to.reference} must be ready before it gets the traffic.")
    yield Shift(weights={to.revision: WHOLE}, reason=f"All traffic goes to {to.reference}.")
    yield Promote(reference=to.reference, expect=None, reason=f"{bad.reference} is rolled back.")
    yield Retire(revision=bad.revision, reason=f"{bad.reference} has no traffic any more.")
    yield Start(target=to, ready=1, reason=f"{to.reference} gets all its replicas.")


def _why(gate: str, to: Target, stable: Target | None) -> str:
    known = {
        "health": f"Every replica of {to.reference} must answer a real request.",
        "smoke": "Clients' libraries must get what they expect: chat, completion, stream, models, structured output.",
        "quality": f"{to.reference} must not answer worse than {stable.reference if stable else 'the limits allow'}.",
    }
    return known.get(gate, f"{to.reference} must pass `{gate}`.")


def _because(text: str, why: str) -> str:
    return f"{text} {why[:1].upper()}{why[1:]}".rstrip()
