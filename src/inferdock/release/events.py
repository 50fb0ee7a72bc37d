"""What a release's journal holds, entry by entry: the plan, each step begun and done, each verdict, each command."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from inferdock.domain.moment import PATTERN
from inferdock.domain.verdict import Verdict
from inferdock.release.judging.figures import Counts
from inferdock.release.machine import Trigger
from inferdock.release.plan import MAX_STEPS, Plan
from inferdock.release.steps import Seconds, Text, Word

NO_EVENT: Final = "0" * 64
"""What the first event names as the one before."""
MAX_EVENTS: Final = 10_000
"""Of a journal."""
CROWDED: Final = 8_000
"""From so many events on a release is no longer paused and resumed, so that there is room to end it."""

Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Moment = Annotated[str, Meta(pattern=PATTERN)]
"""UTC with milliseconds, as the registry's histories spell it."""
Person = Annotated[str, Meta(max_length=500)]
RequestId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
PerhapsRequestId = Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")]
Index = Annotated[int, Meta(ge=0, lt=MAX_STEPS)]


class Way(StrEnum):
    """Which list of steps: the plan's, or what undoes it."""

    FORWARD = "forward"
    BACK = "back"


class Planned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag="planned"):
    """The release exists; the first entry of every journal."""

    plan: Plan


class Turned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag="turned"):
    """The release goes to another state.

    Attributes:
        trigger: why, as `machine` has it.
        request: id of the command that asked for it, "" where the runner found itself.
    """

    trigger: Trigger
    request: PerhapsRequestId = ""


class Begun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag="begun"):
    """A step is about to be applied, perhaps again."""

    way: Way
    step: Index


class Done(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag="done"):
    """A step is done.

    Attributes:
        seconds: it took, since it was begun or taken up again.
        note: what is worth knowing about it, "" for nothing.
        flip_s: seconds from the decision to go back until all traffic was back; only with the step that did it.
    """

    way: Way
    step: Index
    seconds: Seconds
    note: Text = ""
    flip_s: Seconds | None = None


class Judged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag="judged"):
    """A gate's verdict.

    Attributes:
        step: that asked for it.
        gate: its name.
        verdict: what it said.
        evidence: what the verdict rests on.
        stable: figures of the stable revision in the window, where the gate was about live figures.
    """

    step: Index
    gate: Word
    verdict: Verdict
    evidence: dict[str, Any]
    stable: Counts | None = None


class Marked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag="marked"):
    """Live figures when a window began; what is counted later is held against them."""

    step: Index
    counts: Annotated[dict[Word, Counts], Meta(max_length=100)]


class Refused(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag="refused"):
    """A command could not be followed; the event's reason says why."""

    request: RequestId


class Taken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag="taken"):
    """A runner took the release up where another one had left it."""

    request: PerhapsRequestId = ""


Entry = Planned | Turned | Begun | Done | Judged | Marked | Refused | Taken


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a journal.

    Attributes:
        seq: 1 for the first, then one more each time.
        time: when, never before the event before.
        actor: who, "" for the runner itself.
        origin: from where: host and process, or an address.
        reason: why.
        previous: SHA-256 of the line before.
        entry: what.
    """

    seq: Annotated[int, Meta(ge=1)]
    time: Moment
    actor: Person
    origin: Person
    reason: Text
    previous: Sha256
    entry: Entry
