"""Copies of requests: steps of a plan, the verdict on them, and the gate that waits for enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from inferdock.app.release_gates import ShadowGate
from inferdock.domain.errors import ConfigError, UnreachableError
from inferdock.domain.verdict import Verdict
from inferdock.release.driver import Room, room_for
from inferdock.release.judging.figures import Counts, Histogram, Shadows
from inferdock.release.judging.gate import SHADOW, Context
from inferdock.release.judging.shadow import judge_copies
from inferdock.release.plan import Mode, Plan, standing, way_back
from inferdock.release.plan_text import describe
from inferdock.release.steps import Gate, Limits, Mirror, Promote, Retire, Shadow, Shift, Start
from tests.support.fake_driver import World
from tests.support.releases import NEW, NO_LIMITS, OLD, QUICK, plan

WANTED = Shadow(share=0.1, hold_s=10, hold_limit_s=60, min_samples=20)
COPIED = replace(QUICK, shadow=WANTED)
BOUNDS = (0.1, 0.5, 1.0)


def times(seconds: float, number: int) -> Histogram:
    counts = [number * (seconds <= bound and (n == 0 or seconds > BOUNDS[n - 1])) for n, bound in enumerate(BOUNDS)]
    return Histogram(BOUNDS, (*counts, number - sum(counts)))


def copies(answered: int = 100, **given: Any) -> Shadows:
    return Shadows(answered=answered, **given)


# -- the plan ------------------------------------------------------------------------------------------------


def test_copies_are_sent_and_judged_before_the_first_request_of_a_client() -> None:
    steps = plan(rules=COPIED).steps
    first = next(n for n, step in enumerate(steps) if isinstance(step, Mirror))
    assert steps[first].revision == NEW.revision
    assert steps[first].share == 0.1
    assert steps[first + 1] == Gate(gate=SHADOW, reason=steps[first + 1].reason)
    assert steps[first + 2] == Mirror(reason=steps[first + 2].reason)
    canary = next(n for n, step in enumerate(steps) if isinstance(step, Shift) and NEW.revision in step.weights)
    assert canary == first + 3
    assert isinstance(steps[first - 1], Gate)


def test_without_the_option_nothing_is_copied() -> None:
    assert not any(isinstance(step, Mirror) for step in plan().steps)
    assert plan().shadow is None


def test_where_both_revisions_never_serve_at_once_nothing_is_copied_and_that_is_said() -> None:
    one = {"stable": replace(OLD, replicas=1), "to": replace(NEW, replicas=1), "spare": 0, "allow_gap": True}
    made = plan(rules=COPIED, **one)
    assert not any(isinstance(step, Mirror) for step in made.steps)
    assert any("No copies" in note for note in made.notes)


def test_the_way_back_ends_the_copies_after_the_flip_and_before_the_revision_goes() -> None:
    kinds = [type(step) for step in way_back(plan(rules=COPIED), moved=False, cold=False)]
    assert kinds == [Start, Shift, Mirror, Retire, Start]


def test_a_runner_that_takes_over_sends_copies_again_where_they_should_be_sent() -> None:
    steps = plan(rules=COPIED).steps
    first = next(n for n, step in enumerate(steps) if isinstance(step, Mirror))
    assert standing(steps[: first + 1])[-1] == steps[first]
    assert standing(steps[: first + 3])[-1] == steps[first + 2]


def test_a_gate_that_waits_for_copies_gets_the_time_that_it_takes() -> None:
    rules = replace(COPIED, shadow=replace(WANTED, hold_s=5000, hold_limit_s=6000))
    assert plan(rules=rules).patience.gate_s > 6000


def test_such_a_plan_is_read_back_and_said() -> None:
    made = plan(rules=COPIED)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made
    assert "copies of 10 % to m@1.1.0" in describe(made)
    assert "no more copies" in describe(made)


def test_the_gate_without_limits_to_judge_by_is_no_plan() -> None:
    document = msgspec.json.decode(msgspec.json.encode(plan(rules=COPIED))) | {"shadow": None}
    with pytest.raises(msgspec.ValidationError, match="needs to know"):
        msgspec.json.decode(msgspec.json.encode(document), type=Plan)


@pytest.mark.parametrize(
    "rules",
    [replace(QUICK, gates=(SHADOW,)), replace(QUICK, shadow=replace(WANTED, hold_s=61))],
    ids=["as a gate", "holds too long"],
)
def test_what_makes_no_sense_is_refused(rules: Any) -> None:
    with pytest.raises(ConfigError):
        plan(rules=rules)


# -- room ----------------------------------------------------------------------------------------------------


@dataclass
class Silent(World):
    async def room(self, target: Any) -> Room:
        raise UnreachableError("It does not answer.")


async def test_room_is_what_a_person_says_else_what_the_platform_says() -> None:
    world = World(fits=3)
    world.serve(OLD)
    assert (await room_for(world, NEW, None)).replicas == 1
    told = await room_for(world, NEW, 5)
    assert (told.replicas, "--spare" in told.reason) == (5, True)
    silent = await room_for(Silent(), NEW, None)
    assert (silent.replicas, "does not answer" in silent.reason) == (None, True)


@pytest.mark.parametrize(("spare", "mode"), [(None, Mode.SURGE), (2, Mode.SURGE), (1, Mode.REPLACE)])
def test_the_plan_says_how_the_room_is_known(spare: int | None, mode: Mode) -> None:
    made = plan(spare=spare, why="one GPU and it is taken.")
    assert made.mode is mode
    assert made.notes[0].endswith("One GPU and it is taken.")


# -- the verdict ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "wanted", "verdict", "says"),
    [
        (copies(100, equal=60), WANTED, Verdict.PASS, "0 of 60 comparable answers differ, which is not judged"),
        (copies(100, different={"text": 60}), WANTED, Verdict.PASS, "60 of 60"),
        (copies(5), WANTED, Verdict.INCONCLUSIVE, "answered only 5"),
        (copies(15), WANTED, Verdict.INCONCLUSIVE, "15 samples"),
        (copies(0, dropped=900), WANTED, Verdict.INCONCLUSIVE, "answered only 0"),
        (copies(60, failed=40), WANTED, Verdict.FAIL, "error"),
        (copies(100, equal=100), replace(WANTED, max_difference=0.1), Verdict.PASS, "10.0% may"),
        (copies(100, different={"text": 60}, equal=40), replace(WANTED, max_difference=0.1), Verdict.FAIL, "60 of 100"),
        (
            copies(100, different={"text": 2}, equal=18),
            replace(WANTED, max_difference=0.1),
            Verdict.INCONCLUSIVE,
            "may",
        ),
        (
            copies(100, equal=3),
            replace(WANTED, max_difference=0.1),
            Verdict.INCONCLUSIVE,
            "3 answers could be compared",
        ),
        (copies(60, failed=40, equal=3), replace(WANTED, max_difference=0.1), Verdict.FAIL, "error"),
    ],
    ids=[
        "alike",
        "unjudged",
        "few",
        "below the wish",
        "dropped",
        "failures",
        "all equal",
        "differ",
        "perhaps",
        "greedy",
        "worst",
    ],
)
def test_copies_are_judged_by_what_failed_and_where_wanted_by_what_differs(
    seen: Shadows, wanted: Shadow, verdict: Verdict, says: str
) -> None:
    limits = Limits(error_rate=0.1, error_increase=None)
    found = judge_copies(seen, None, limits, wanted)
    assert found.verdict is verdict, found.reason
    assert says in found.reason
    assert found.evidence["copies"]["answered"] == seen.answered
    msgspec.json.encode(found.evidence)


def test_copies_that_are_slow_fail_and_are_compared_with_what_clients_waited() -> None:
    slow = copies(200, ttft=times(0.9, 200))
    stable = Counts(requests=200, ttft=times(0.05, 200))
    found = judge_copies(slow, stable, Limits(), WANTED)
    assert found.verdict is Verdict.FAIL
    assert "ttft" in found.reason


def test_looks_on_the_way_say_nothing_of_answers_that_differ() -> None:
    differing = copies(100, different={"text": 100})
    assert judge_copies(differing, None, NO_LIMITS, replace(WANTED, max_difference=0.1), look=1).verdict is Verdict.PASS


# -- the gate ------------------------------------------------------------------------------------------------


@dataclass
class Traffic(World):
    """Copies come in at a rate, and fail or differ as the test says."""

    copied: float = 5.0
    failing: float = 0.0
    said: list[str] = field(default_factory=list)

    async def read(self) -> Mapping[str, Counts]:
        number = int(self.time * self.copied)
        failed = int(number * self.failing)
        return {NEW.revision: Counts(shadow=Shadows(answered=number - failed, failed=failed, equal=number - failed))}

    def gate(self, wanted: Shadow = WANTED) -> ShadowGate:
        return ShadowGate(wanted=wanted, limits=Limits(), meter=self, clock=self, say=self.said.append)


CONTEXT = Context(release="r1", model="m", addresses=(), stable=OLD, stable_addresses=())


async def test_the_gate_waits_for_time_and_copies() -> None:
    world = Traffic(copied=100.0)
    found = await world.gate().check(NEW, CONTEXT)
    assert found.verdict is Verdict.PASS, found.reason
    assert WANTED.hold_s <= world.time < WANTED.hold_limit_s
    assert "copying" in world.said[0]


async def test_as_many_copies_are_waited_for_as_it_takes_to_show_that_the_limits_are_kept() -> None:
    world = Traffic(copied=10.0)
    found = await world.gate().check(NEW, CONTEXT)
    assert (found.verdict, found.evidence["copies"]["answered"] >= 189) == (Verdict.PASS, True), found.reason


async def test_too_few_copies_are_waited_for_and_then_nobody_can_tell() -> None:
    world = Traffic(copied=0.1)
    assert (await world.gate().check(NEW, CONTEXT)).verdict is Verdict.INCONCLUSIVE
    assert world.time >= WANTED.hold_limit_s


async def test_what_fails_beyond_doubt_is_not_waited_for() -> None:
    world = Traffic(copied=50.0, failing=0.8)
    found = await world.gate(replace(WANTED, hold_s=1000, hold_limit_s=1000)).check(NEW, CONTEXT)
    assert found.verdict is Verdict.FAIL
    assert world.time < 100


async def test_asked_again_it_looks_at_new_copies_only() -> None:
    world = Traffic(copied=50.0, failing=1.0)
    assert (await world.gate().check(NEW, CONTEXT)).verdict is Verdict.FAIL
    world.time, world.copied = world.time + 1, 0.0
    assert (await world.gate().check(NEW, CONTEXT)).verdict is Verdict.INCONCLUSIVE


def test_promote_is_one_step_of_such_a_plan() -> None:
    assert sum(isinstance(step, Promote) for step in plan(rules=COPIED).steps) == 1
