"""How faults are written, and which requests they meet."""

from __future__ import annotations

import pytest

from inferdock.domain.errors import ConfigError
from inferdock.sim.faults import KINDS, Fault, Faults, parse_fault

SPELLINGS = {
    "hang": Fault("hang", None, 0, None),
    "hang:3": Fault("hang", 3, 0, None),
    "die": Fault("die", 1, 0, None),
    "die:20": Fault("die", 20, 0, None),
    "status": Fault("status", 500, 0, None),
    "status:503@3x2": Fault("status", 503, 2, 2),
    "slow:2.5": Fault("slow", 2.5, 0, None),
    "cut:4x1%50": Fault("cut", 4, 0, 1, 0.5),
    "refuse%0.5": Fault("refuse", None, 0, None, 0.005),
    "badjson@2": Fault("badjson", 1, 1, None),
}
WRONG = [
    "", "die:", "die:x", "die:0", "die:1.5", "explode", "status:200", "status:42", "status:500.5", "hang x2", "cut@",
    "slow:0", "garbage:3", "refuse:1", "unhealthy:1", "diex0", "die%0", "die%101", "die:1x2@3", "DIE",
]  # fmt: skip


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_fault_is_read(text):
    assert parse_fault(text) == SPELLINGS[text]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_written_bare(kind):
    assert parse_fault(kind).kind == kind


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_fault_is_refused_with_a_cure(text):
    with pytest.raises(ConfigError) as caught:
        parse_fault(text)
    assert f"`{text}`" in caught.value.message
    assert caught.value.cure


def test_an_unknown_kind_is_told_all_kinds():
    with pytest.raises(ConfigError) as caught:
        parse_fault("explode")
    assert all(kind in caught.value.cure for kind in KINDS)


def hits(*texts: str, requests: int = 6, chance: float = 0.0) -> list[str | None]:
    faults = Faults([parse_fault(text) for text in texts], chance=lambda: chance)
    found = [faults.next_request() for _ in range(requests)]
    return [fault and fault.kind for fault in found]


def test_a_fault_without_limits_meets_every_request():
    assert hits("hang", requests=3) == ["hang"] * 3


def test_a_fault_starts_at_its_request_and_ends_after_its_count():
    assert hits("cut@3x2") == [None, None, "cut", "cut", None, None]


def test_the_first_of_two_faults_wins_and_the_second_waits():
    assert hits("cut@2x1", "die@2x1") == [None, "cut", "die", None, None, None]


def test_chance_decides():
    assert hits("die%50", requests=2, chance=0.49) == ["die", "die"]
    assert hits("die%50", requests=2, chance=0.5) == [None, None]


def test_a_fault_missed_by_chance_is_not_used_up():
    rolls = iter([0.9, 0.9, 0.1, 0.1])
    faults = Faults([parse_fault("diex1%50")], chance=lambda: next(rolls))
    assert [faults.next_request() is not None for _ in range(4)] == [False, False, True, False]


def test_unhealthy_meets_no_request():
    assert hits("unhealthy", requests=2) == [None, None]
    assert Faults([parse_fault("unhealthy")]).unhealthy()
