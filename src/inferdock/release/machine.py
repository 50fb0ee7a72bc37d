"""The states of a release and the one table of what may follow what. Pure.

A release goes forward (planned, running, promoting, baking, completed), stops (paused), or goes back (aborting). Going
back is one state whatever began it, because the work is the same: traffic to the stable revision, the alias if it had
moved, the new revision away. It ends as ``aborted`` if the champion never moved and as ``rolled_back`` if it had.

``failed`` means that it could not go all the way back. A person retries, or closes it as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from inferdock.domain.errors import ConflictError


class State(StrEnum):
    """Where a release is."""

    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    PROMOTING = "promoting"
    BAKING = "baking"
    COMPLETED = "completed"
    ABORTING = "aborting"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


class Trigger(StrEnum):
    """What moves a release from one state to the next."""

    BEGIN = "begin"
    PAUSE = "pause"
    INCONCLUSIVE = "inconclusive"
    RESUME = "resume"
    REBAKE = "rebake"
    PROMOTE = "promote"
    PROMOTED = "promoted"
    BAKED = "baked"
    FAIL = "fail"
    ABORT = "abort"
    RESTORED = "restored"
    ROLLED_BACK = "rolled_back"
    STUCK = "stuck"
    RETRY = "retry"
    CLOSE = "close"


TRANSITIONS: Final[Mapping[State, Mapping[Trigger, State]]] = MappingProxyType(
    {
        State.PLANNED: {Trigger.BEGIN: State.RUNNING, Trigger.ABORT: State.ABORTING},
        State.RUNNING: {
            Trigger.PAUSE: State.PAUSED,
            Trigger.INCONCLUSIVE: State.PAUSED,
            Trigger.PROMOTE: State.PROMOTING,
            Trigger.FAIL: State.ABORTING,
            Trigger.ABORT: State.ABORTING,
        },
        State.PAUSED: {
            Trigger.RESUME: State.RUNNING,
            Trigger.REBAKE: State.BAKING,
            Trigger.PROMOTE: State.PROMOTING,
            Trigger.ABORT: State.ABORTING,
        },
        State.PROMOTING: {
            Trigger.PROMOTED: State.BAKING,
            Trigger.INCONCLUSIVE: State.PAUSED,
            Trigger.FAIL: State.ABORTING,
            Trigger.ABORT: State.ABORTING,
        },
        State.BAKING: {
            Trigger.BAKED: State.COMPLETED,
            Trigger.INCONCLUSIVE: State.PAUSED,
            Trigger.FAIL: State.ABORTING,
            Trigger.ABORT: State.ABORTING,
        },
        State.ABORTING: {
            Trigger.RESTORED: State.ABORTED,
            Trigger.ROLLED_BACK: State.ROLLED_BACK,
            Trigger.STUCK: State.FAILED,
        },
        State.FAILED: {Trigger.RETRY: State.ABORTING, Trigger.CLOSE: State.ABORTED},
        State.COMPLETED: {},
        State.ABORTED: {},
        State.ROLLED_BACK: {},
    }
)
"""State to what may happen in it, to what follows. Nothing follows the states that are over."""

OVER: Final = frozenset({State.COMPLETED, State.ABORTED, State.ROLLED_BACK})
"""Nothing is left to be done, and nothing can be."""
RESTING: Final = OVER | {State.PAUSED, State.FAILED}
"""A runner ends in these: what comes next is for a person to say."""


def allowed(state: State, trigger: Trigger) -> bool:
    """Whether this may happen in that state."""
    return trigger in TRANSITIONS[state]


def follow(state: State, trigger: Trigger) -> State:
    """The state that follows.

    Raises:
        ConflictError: that cannot happen in this state.
    """
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise ConflictError(
            f"A release that is {state} takes no `{trigger}`.", cure="Look at `inferdock release status`."
        ) from None


def mermaid() -> str:
    """The table as a state diagram in Mermaid's notation; docs/ holds what this returns."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.PLANNED}"]
    for state, moves in TRANSITIONS.items():
        by_target: dict[State, list[str]] = {}
        for trigger, target in moves.items():
            by_target.setdefault(target, []).append(str(trigger))
        lines += [f"    {state} --> {target}: {', '.join(triggers)}" for target, triggers in by_target.items()]
    lines += [f"    {state} --> [*]" for state in TRANSITIONS if state in OVER]
    return "\n".join(lines) + "\n"
