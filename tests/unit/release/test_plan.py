"""Plans: what they hold, what they refuse, what they say."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from inferdock.domain.errors import ConfigError, InferdockError, ResourceError
from inferdock.release.plan import ID, Mode, Plan, new_id, standing, way_back
from inferdock.release.plan_text import describe
from inferdock.release.steps import (
    Bake,
    Check,
    Demote,
    Gate,
    Hold,
    Promote,
    Retire,
    Rules,
    Scale,
    Shift,
    Start,
)
from tests.support.releases import NEW, OLD, QUICK, plan, rollback


def kinds(made: Plan) -> list[str]:
    return [type(step).__name__.lower() for step in made.steps]


def test_files_are_checked_before_anything_starts_and_gates_asked_before_any_traffic() -> None:
    names = kinds(plan())
    assert names[0] == "check"
    assert names.index("start") < names.index("gate")
    first_traffic = next(n for n, step in enumerate(plan().steps) if isinstance(step, Shift) and len(step.weights) > 1)
    assert names.index("gate") < first_traffic


def test_each_weight_is_held_and_judged_before_the_next() -> None:
    steps = plan().steps
    shifts = [n for n, step in enumerate(steps) if isinstance(step, Shift) and NEW.revision in step.weights]
    assert [steps[n].weights[NEW.revision] for n in shifts] == [0.1, 0.5, 1.0]
    for n in shifts:
        assert isinstance(steps[n + 1], Hold)
        assert steps[n + 2] == Gate(gate="slo", reason=steps[n + 2].reason)


def test_the_predecessor_stays_until_the_bake_is_over() -> None:
    steps = plan().steps
    bake, retire = (next(n for n, s in enumerate(steps) if isinstance(s, kind)) for kind in (Bake, Retire))
    assert steps[retire].revision == OLD.revision
    assert bake < retire


def test_a_hundred_per_cent_follows_even_when_nobody_wrote_it() -> None:
    made = plan(rules=replace(QUICK, weights=(0.2,)))
    assert [s.weights for s in made.steps if isinstance(s, Shift)][-1] == {NEW.revision: 1.0}


def test_the_first_release_of_a_model_has_nothing_to_compare_with_and_nothing_to_retire() -> None:
    names = kinds(plan(stable=None, champion=""))
    assert names == ["check", "start", "gate", "shift", "promote"]


@pytest.mark.parametrize(("spare", "mode"), [(None, Mode.SURGE), (2, Mode.SURGE), (1, Mode.REPLACE), (0, Mode.REPLACE)])
def test_room_chooses_the_mode_and_the_plan_says_why(spare: int | None, mode: Mode) -> None:
    made = plan(spare=spare)
    assert made.mode is mode
    assert mode in made.notes[0].lower()
    assert any(isinstance(step, Scale) for step in made.steps) == (mode is Mode.REPLACE)


def test_a_single_replica_without_room_needs_leave_for_a_gap() -> None:
    one = {"stable": replace(OLD, replicas=1), "to": replace(NEW, replicas=1), "spare": 0}
    with pytest.raises(ResourceError, match="nothing answers") as caught:
        plan(**one)
    assert "--allow-gap" in caught.value.cure
    made = plan(**one, allow_gap=True)
    assert made.gap
    assert "gap" in made.notes[0]
    assert [s.weights for s in made.steps if isinstance(s, Shift)] == [{OLD.revision: 1.0}, {NEW.revision: 1.0}]


def test_leave_for_a_gap_is_not_used_where_there_is_another_way() -> None:
    assert not plan(spare=0, allow_gap=True).gap


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"to": replace(OLD)}, ConfigError, "serves already"),
        ({"to": replace(NEW, replicas=0)}, ConfigError, "at least one"),
        ({"to": replace(NEW, replicas=9), "spare": 1}, ResourceError, "room for 3"),
        ({"rules": replace(QUICK, weights=(0.5, 0.1))}, ConfigError, "must grow"),
        ({"rules": replace(QUICK, gates=("slo",))}, ConfigError, "by itself"),
        ({"rules": replace(QUICK, hold_limit_s=1)}, ConfigError, "longer"),
    ],
    ids=["itself", "no replica", "no room", "falling weights", "slo as a gate", "hold"],
)
def test_what_makes_no_release_is_refused(changes: dict[str, Any], error: type[InferdockError], says: str) -> None:
    with pytest.raises(error, match=says):
        plan(**changes)


def test_a_champion_that_does_not_serve_is_pointed_out_and_taken_over_from() -> None:
    made = plan(champion="m@0.9.0")
    assert any("0.9.0" in note for note in made.notes)
    assert next(s for s in made.steps if isinstance(s, Promote)).expect == "m@0.9.0"
    assert Demote(reference="m@0.9.0", leaving="m@1.1.0", reason=way_back(made, moved=True, cold=False)[2].reason) in (
        way_back(made, moved=True, cold=False)
    )


def test_a_warm_rollback_shifts_before_anything_that_takes_time() -> None:
    made = rollback()
    assert kinds(made) == ["start", "shift", "promote", "retire", "start"]
    assert "at once" in made.notes[0]


def test_a_cold_rollback_without_room_takes_one_replica_first() -> None:
    made = rollback(ready=0, spare=0)
    assert made.steps[0] == Scale(revision=NEW.revision, replicas=1, whole=False, reason=made.steps[0].reason)


def test_a_cold_rollback_with_room_for_one_needs_leave_for_a_gap() -> None:
    one = {"bad": replace(NEW, replicas=1), "to": replace(OLD, replicas=1), "ready": 0, "spare": 0}
    with pytest.raises(ResourceError, match="must stop before"):
        rollback(**one)
    assert rollback(**one, allow_gap=True).gap


def test_a_rollback_has_no_gates_and_no_holds() -> None:
    assert not any(isinstance(step, Gate | Hold | Check) for step in rollback().steps)


def test_the_way_back_flips_first_and_leaves_the_champion_that_never_moved() -> None:
    steps = way_back(plan(), moved=False, cold=False)
    assert [type(step) for step in steps] == [Start, Shift, Retire, Start]
    assert steps[0].target.replicas == 1


def test_with_nothing_to_go_back_to_the_new_revision_goes() -> None:
    steps = way_back(plan(stable=None, champion=""), moved=True, cold=False)
    assert [type(step) for step in steps] == [Demote, Retire]


def test_of_steps_that_were_done_the_last_of_each_kind_stands() -> None:
    steps = plan(spare=0).steps
    standing_now = standing(steps)
    assert [type(step).__name__ for step in standing_now] == ["Scale", "Start", "Shift"]
    assert standing_now[2] == [step for step in steps if isinstance(step, Shift)][-1]


def test_every_step_has_a_reason_and_the_plan_is_said_with_all_of_them() -> None:
    for made in (plan(), plan(spare=0), rollback(), rollback(ready=0, spare=0)):
        text = describe(made)
        assert all(step.reason and step.reason in text for step in made.steps)
        assert all(note in text for note in made.notes)
    for step in way_back(plan(), moved=True, cold=False):
        assert step.reason


def test_a_plan_is_read_back_as_it_was_written() -> None:
    for made in (plan(), plan(spare=0), rollback(), plan(stable=None, champion="")):
        assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


def _without_promotion(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [step for step in steps if step["do"] != "promote"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda d: d | {"steps": _without_promotion(d["steps"])},
        lambda d: d | {"steps": [*d["steps"], d["steps"][0]]},
        lambda d: d | {"steps": [{"do": "shift", "reason": "", "weights": {"a": 0.5}}, *d["steps"]]},
        lambda d: d | {"steps": [{"do": "gate", "reason": "", "gate": "slo"}, *d["steps"]]},
        lambda d: d | {"steps": d["steps"] * 100},
        lambda d: d | {"id": "../x"},
        lambda d: d | {"more": 1},
        lambda d: d | {"model": "a\nb"},
    ],
    ids=["no promotion", "check at the end", "weights", "slo without hold", "too many", "id", "unknown", "line break"],
)
def test_a_plan_that_makes_no_sense_is_not_read(harm: Any) -> None:
    document = msgspec.json.decode(msgspec.json.encode(plan()))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(harm(document)), type=Plan)


@pytest.mark.parametrize("version", ["1.1.0", "2.0.0-rc.1", "", "../../x", "ä" * 200, "-" * 50])
def test_ids_are_names_that_sort_by_time(version: str) -> None:
    early = new_id(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), version)
    late = new_id(datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC), "0")
    assert early < late
    assert re.fullmatch(ID, early)


def test_the_default_rules_make_a_plan() -> None:
    made = plan(rules=Rules())
    assert [step.gate for step in made.steps if isinstance(step, Gate)][:3] == ["health", "smoke", "quality"]
