"""Laws of the figures that a release is judged by: broken answers, failed attempts, and shadow requests among them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from inferdock.domain.verdict import Verdict
from inferdock.release.judging.analysis import judge
from inferdock.release.judging.figures import NOTHING, Counts, Histogram, Shadows, since
from inferdock.release.judging.readings import counts_of
from inferdock.release.steps import Limits
from inferdock.telemetry.scrape import RevisionFigures, ShadowFigures

BOUNDS = (0.1, 0.5, 1.0)
KINDS = ("length", "refusal", "status", "text", "tool_call")
numbers = st.integers(0, 2000)


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    size = len(BOUNDS) + 1
    return Histogram(BOUNDS, tuple(draw(st.lists(st.integers(0, 400), min_size=size, max_size=size))))


@st.composite
def shadows(draw: st.DrawFn) -> Shadows:
    different = draw(st.dictionaries(st.sampled_from(KINDS), numbers))
    return Shadows(
        answered=draw(numbers),
        failed=draw(numbers),
        dropped=draw(numbers),
        equal=draw(numbers),
        different=dict(sorted(different.items())),
        ttft=draw(histograms()),
        tpot=draw(histograms()),
    )


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    requests, attempts = draw(numbers), draw(numbers)
    return Counts(
        requests=requests,
        errors=draw(st.integers(0, requests)),
        ttft=draw(histograms()),
        tpot=draw(histograms()),
        attempts=attempts,
        failures=draw(st.integers(0, attempts)),
        shadow=draw(shadows()),
    )


def _added(a: Histogram, b: Histogram) -> Histogram:
    return Histogram(BOUNDS, tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)))


def _shadows_added(a: Shadows, b: Shadows) -> Shadows:
    kinds = sorted({*a.different, *b.different})
    return Shadows(
        answered=a.answered + b.answered,
        failed=a.failed + b.failed,
        dropped=a.dropped + b.dropped,
        equal=a.equal + b.equal,
        different={kind: a.different.get(kind, 0) + b.different.get(kind, 0) for kind in kinds},
        ttft=_added(a.ttft, b.ttft),
        tpot=_added(a.tpot, b.tpot),
    )


@given(counts(), counts())
def test_what_was_counted_since_a_reading_and_the_reading_are_the_next_one(first: Counts, more: Counts) -> None:
    second = Counts(
        requests=first.requests + more.requests,
        errors=first.errors + more.errors,
        ttft=_added(first.ttft, more.ttft),
        tpot=_added(first.tpot, more.tpot),
        attempts=first.attempts + more.attempts,
        failures=first.failures + more.failures,
        shadow=_shadows_added(first.shadow, more.shadow),
    )
    found = since(first, second)
    absent = dict.fromkeys(sorted({*first.shadow.different} - {*more.shadow.different}), 0)
    kinds = dict(sorted((more.shadow.different | absent).items()))
    assert found == msgspec.structs.replace(more, shadow=msgspec.structs.replace(more.shadow, different=kinds))


@given(counts())
def test_a_reading_is_what_was_counted_since_nothing(now: Counts) -> None:
    assert since(NOTHING, now) == now


@given(counts(), counts())
def test_a_gateway_that_began_anew_is_never_subtracted_from(before: Counts, after: Counts) -> None:
    if after.attempts < before.attempts or after.shadow.answered < before.shadow.answered:
        assert since(before, after) == after


@given(counts())
def test_figures_with_shadows_survive_the_journal(now: Counts) -> None:
    assert msgspec.json.decode(msgspec.json.encode(now), type=Counts) == now


def test_journals_from_before_there_were_attempts_can_be_read() -> None:
    old = b'{"requests":3,"errors":1,"ttft":{"bounds":[],"counts":[0]},"tpot":{"bounds":[],"counts":[0]}}'
    assert msgspec.json.decode(old, type=Counts) == Counts(requests=3, errors=1)


@given(counts())
def test_more_failed_attempts_never_make_a_failure_pass(canary: Counts) -> None:
    worse = msgspec.structs.replace(canary, failures=canary.attempts)
    if judge(canary, None, Limits()).verdict is Verdict.FAIL:
        assert judge(worse, None, Limits()).verdict is Verdict.FAIL


@given(canary=counts(), other=shadows())
def test_shadow_requests_never_change_the_judgement_of_clients_requests(canary: Counts, other: Shadows) -> None:
    changed = msgspec.structs.replace(canary, shadow=other)
    assert judge(changed, canary, Limits()) == judge(canary, canary, Limits())


@given(canary=counts(), stable=st.none() | counts(), look=st.integers(0, 30))
def test_what_was_measured_lies_in_its_interval(canary: Counts, stable: Counts | None, look: int) -> None:
    for one in judge(canary, stable, Limits(), look=look).evidence["limits"]:
        low, point, high = one["low"], one["measured"], one["high"]
        assert low is None or point is None or low <= point + 1e-6
        assert high is None or point is None or point <= high + 1e-6


ONLY_COMPARED = Limits(error_rate=None, ttft_p95_s=None, tpot_p50_s=None)


@given(counts())
def test_a_revision_that_does_as_the_stable_one_does_never_fails_the_comparison(same: Counts) -> None:
    assert judge(same, same, ONLY_COMPARED).verdict is not Verdict.FAIL


outcomes = st.dictionaries(
    st.sampled_from(["answered", "failed", "cut", "cancelled", "stale", "moved", "new"]), numbers
)


@given(
    by_status=st.dictionaries(st.sampled_from([200, 400, 429, 499, 500, 503]), numbers),
    broken=numbers,
    attempts=outcomes,
    by_outcome=outcomes,
    by_kind=st.dictionaries(st.sampled_from([*KINDS, "equal", "not_compared"]), numbers),
)
def test_any_figures_of_a_gateway_make_counts(
    by_status: dict[int, int],
    broken: int,
    attempts: dict[str, int],
    by_outcome: dict[str, int],
    by_kind: dict[str, int],
) -> None:
    shadow = ShadowFigures(by_outcome=by_outcome, by_kind=by_kind)
    made = counts_of(RevisionFigures(by_status=by_status, broken=broken, attempts=attempts, shadow=shadow))
    assert 0 <= made.failures <= made.attempts
    assert made.shadow.sent + made.shadow.dropped == sum(by_outcome.values())
    assert made.shadow.compared == sum(by_kind.values()) - by_kind.get("not_compared", 0)
