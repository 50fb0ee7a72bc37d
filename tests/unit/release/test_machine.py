"""The table of transitions."""

from __future__ import annotations

import pytest

from inferdock.domain.errors import ConflictError
from inferdock.release.machine import OVER, TRANSITIONS, State, Trigger, allowed, follow, mermaid

EVERY = [(state, trigger) for state in State for trigger in Trigger]


@pytest.mark.parametrize(("state", "trigger"), EVERY, ids=lambda value: str(value))
def test_what_the_table_allows_is_followed_and_all_else_is_refused(state: State, trigger: Trigger) -> None:
    if allowed(state, trigger):
        assert follow(state, trigger) is TRANSITIONS[state][trigger]
    else:
        with pytest.raises(ConflictError, match=str(state)):
            follow(state, trigger)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_state_can_be_reached_and_can_come_to_an_end() -> None:
    reached, new = {State.PLANNED}, {State.PLANNED}
    while new:
        new = {target for state in new for target in TRANSITIONS[state].values()} - reached
        reached |= new
    assert reached == set(State)
    ends = set(OVER)
    while more := {s for s, moves in TRANSITIONS.items() if set(moves.values()) & ends} - ends:
        ends |= more
    assert ends == set(State)


def test_once_it_runs_a_release_can_always_be_gone_back_from_until_it_is_over() -> None:
    for state in set(State) - OVER - {State.ABORTING, State.FAILED}:
        assert TRANSITIONS[state][Trigger.ABORT] is State.ABORTING


def test_the_diagram_shows_every_transition() -> None:
    text = mermaid()
    for state, moves in TRANSITIONS.items():
        for trigger, target in moves.items():
            assert any(
                line.strip().startswith(f"{state} --> {target}:") and str(trigger) in line for line in text.splitlines()
            )
    assert text.count("--> [*]") == len(OVER)
