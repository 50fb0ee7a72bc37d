"""The words that plans are made of: targets, steps, limits and deadlines. Plain data, stored in journals as JSON.

Lengths and ranges are bounded here, so that whoever reads a journal need not ask again.
"""

from __future__ import annotations

import math
from typing import Annotated, Final

import msgspec
from msgspec import Meta

MAX_SECONDS: Final = 10_000_000
"""Of any wait: about four months."""
MAX_REPLICAS: Final = 10_000
WHOLE: Final = 1.0

Text = Annotated[str, Meta(max_length=2000)]
Word = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]
"""A name: of a model, a revision, a version, a gate."""
Seconds = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
Replicas = Annotated[int, Meta(ge=0, le=MAX_REPLICAS)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A revision and how much of it.

    Attributes:
        reference: ``name@version``, or the folder it is served from.
        revision: as endpoints and answers carry it.
        replicas: how many.
    """

    reference: Word
    revision: Word
    replicas: Replicas


class _Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """``reason``: why the step is there, for people."""

    reason: Text


class Check(_Step, frozen=True, tag="check"):
    """The new version's files are those of its manifest; before anything starts."""


class Start(_Step, frozen=True, tag="start"):
    """So many replicas run.

    Attributes:
        target: what; never fewer than run already.
        ready: replicas that must be ready for the step to be done.
    """

    target: Target
    ready: Replicas


class Scale(_Step, frozen=True, tag="scale"):
    """Fewer replicas of a revision, to make room.

    Attributes:
        whole: only when all its replicas are ready; a fleet that is not well is not made smaller.
    """

    revision: Word
    replicas: Replicas
    whole: bool = True


class Gate(_Step, frozen=True, tag="gate"):
    """A gate must be passed."""

    gate: Word


class Shift(_Step, frozen=True, tag="shift"):
    """New requests are divided so; revisions that are not named get none."""

    weights: Annotated[dict[Word, Share], Meta(min_length=1, max_length=10)]

    def __post_init__(self) -> None:
        """Refuse weights that do not add up."""
        if not math.isclose(sum(self.weights.values()), WHOLE, abs_tol=1e-6):
            raise ValueError("weights must add up to 1")


class Mirror(_Step, frozen=True, tag="mirror"):
    """Copies of new requests go to a revision too, whose answers nobody gets.

    Attributes:
        revision: which; "" for none.
        share: of the requests, 0-1.
    """

    revision: Annotated[str, Meta(max_length=500)] = ""
    share: Share = 0.0


class Hold(_Step, frozen=True, tag="hold"):
    """Wait while live figures gather; ends early when they show that the new revision is worse.

    Attributes:
        seconds: at least.
        samples: requests of the new revision, at least.
        limit_s: at most; with fewer samples than wanted the gate that follows is inconclusive.
    """

    seconds: Seconds
    samples: Annotated[int, Meta(ge=0)]
    limit_s: Seconds


class Promote(_Step, frozen=True, tag="promote"):
    """The new version becomes champion.

    Attributes:
        reference: which.
        expect: champion that it must take over from, "" for none; None: whichever it is (a rollback).
    """

    reference: Word
    expect: Annotated[str, Meta(max_length=500)] | None


class Demote(_Step, frozen=True, tag="demote"):
    """The champion becomes again what it was, unless somebody else has moved it since.

    Attributes:
        reference: what it was, "" for none.
        leaving: what the release had made of it.
    """

    reference: Annotated[str, Meta(max_length=500)]
    leaving: Word


class Bake(_Step, frozen=True, tag="bake"):
    """Watch the new revision while the old one stays warm; broken limits roll back.

    Attributes:
        seconds: how long.
        window_s: figures of so many seconds are judged at a time.
    """

    seconds: Seconds
    window_s: Annotated[float, Meta(gt=0, le=MAX_SECONDS)]


class Retire(_Step, frozen=True, tag="retire"):
    """A revision without traffic drains and goes."""

    revision: Word


Step = Check | Start | Scale | Gate | Shift | Mirror | Hold | Promote | Demote | Bake | Retire


class Patience(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the runner waits for what, in seconds.

    Attributes:
        poll_s: between two looks at the platform while something is awaited, and at commands.
        watch_s: between two readings of live figures.
        start_s: until new replicas are ready; loading a large model takes minutes.
        shift_s: until weights are in force.
        drain_s: until replicas that were told to go are gone; long answers are waited for.
        gate_s: for one gate.
        alias_s: for the registry to answer.
        grace_s: that a revision with traffic may be without a ready replica before that counts against it.
    """

    poll_s: Annotated[float, Meta(gt=0, le=3600)] = 0.5
    watch_s: Annotated[float, Meta(gt=0, le=3600)] = 2.0
    start_s: Seconds = 900.0
    shift_s: Seconds = 60.0
    drain_s: Seconds = 900.0
    gate_s: Seconds = 3600.0
    alias_s: Seconds = 60.0
    grace_s: Seconds = 30.0


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What live figures of a new revision must keep to; None switches a limit off. How they are judged: `analysis`.

    Attributes:
        error_rate: failed requests, as a share of all.
        error_increase: how much greater that share may be than the stable revision's, in absolute terms.
        ttft_p95_s, tpot_p50_s: seconds; the defaults are those of the service level objectives.
        ttft_ratio, tpot_ratio: how many times the stable revision's they may be.
        min_requests: fewer say nothing good about a revision.
        min_to_fail: fewer say nothing bad about it either.
        confidence: of each interval (two-sided).
    """

    error_rate: Annotated[float, Meta(gt=0, lt=1)] | None = 0.02
    error_increase: Annotated[float, Meta(gt=0, lt=1)] | None = 0.02
    ttft_p95_s: Annotated[float, Meta(gt=0, le=3600)] | None = 0.5
    tpot_p50_s: Annotated[float, Meta(gt=0, le=3600)] | None = 0.05
    ttft_ratio: Annotated[float, Meta(ge=1, le=1000)] | None = 1.5
    tpot_ratio: Annotated[float, Meta(ge=1, le=1000)] | None = 1.5
    min_requests: Annotated[int, Meta(ge=1, le=10**9)] = 50
    min_to_fail: Annotated[int, Meta(ge=1, le=10**9)] = 10
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95


class Shadow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How copies of requests try a revision before anybody gets its answers.

    Attributes:
        share: of the requests that are copied.
        hold_s: copies are sent so long, at least.
        hold_limit_s: at most; with fewer samples than wanted the gate is inconclusive.
        max_difference: share of comparable answers that may differ from those that clients got; None: not judged.
        min_samples: copies below which nothing good is said, and comparable answers as well.
    """

    share: Annotated[float, Meta(gt=0, le=1)]
    hold_s: Seconds = 60.0
    hold_limit_s: Seconds = 600.0
    max_difference: Share | None = None
    min_samples: Annotated[int, Meta(ge=1, le=10**9)] = 50


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How releases of a model go.

    Attributes:
        weights: shares of the canary, growing; the last is 1, and is added where it is missing.
        gates: to be passed before the canary gets traffic, in this order.
        hold_s: at each weight, at least.
        hold_limit_s: at each weight, at most.
        bake_s: that the predecessor stays warm.
        window_s: figures of so many seconds are judged at a time during the bake.
        limits: what live figures must keep to.
        patience: deadlines.
        shadow: copies of requests before the canary; None: none.
    """

    weights: Annotated[tuple[Annotated[float, Meta(gt=0, le=1)], ...], Meta(max_length=50)] = (0.1, 0.5, 1.0)
    gates: Annotated[tuple[Word, ...], Meta(max_length=20)] = ("health", "smoke", "quality")
    hold_s: Seconds = 60.0
    hold_limit_s: Seconds = 600.0
    bake_s: Seconds = 600.0
    window_s: Annotated[float, Meta(gt=0, le=MAX_SECONDS)] = 30.0
    limits: Limits = Limits()
    patience: Patience = Patience()
    shadow: Shadow | None = None
