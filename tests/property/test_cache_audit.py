"""Laws of the bound on wrong answers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from inferdock.cache.audit import Action, Audit, Rules
from inferdock.cache.compare import compare
from inferdock.domain.interval import wilson

COUNTS = st.floats(0, 1e6) | st.integers(0, 10**6)
WIDTHS = st.floats(1.0, 4.0)
RULES = st.builds(
    Rules,
    bound=st.floats(0.001, 0.5),
    window=st.integers(10, 2000),
    half_life_s=st.floats(1, 1e6),
    min_samples=st.integers(1, 60),
    turn=st.integers(1, 30),
    max_steps=st.integers(1, 20),
    min_wrong=st.integers(1, 5),
    partition_wrong=st.integers(1, 4),
    cool_off_s=st.floats(1, 1e4),
)
OUTCOMES = st.lists(st.sampled_from(["same", "different", "unsure"]), max_size=150)
TEXTS = st.text(st.sampled_from("yesno 12.,-'*\n") | st.characters(), max_size=30)


def strictness(action: Action) -> float:
    return 1000.0 if action.kind == "exact" else action.tighten


@given(COUNTS, COUNTS, WIDTHS)
def test_an_interval_holds_its_point_and_stays_within_0_and_1(wrong: float, right: float, z: float) -> None:
    interval = wilson(wrong, right, z)
    assert 0 <= interval.low <= interval.point <= interval.high <= 1


@given(st.integers(0, 10**5), st.integers(0, 10**5), WIDTHS)
def test_a_wrong_hit_more_raises_all_bounds_and_a_right_one_lowers_them(wrong: int, right: int, z: float) -> None:
    before, worse, better = wilson(wrong, right, z), wilson(wrong + 1, right, z), wilson(wrong, right + 1, z)
    slack = 1e-12
    assert better.low <= before.low + slack <= worse.low + 2 * slack
    assert better.high <= before.high + slack <= worse.high + 2 * slack


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(2, 10))
def test_more_samples_of_the_same_share_tell_more(wrong: int, right: int, times: int) -> None:
    few, many = wilson(wrong, right), wilson(wrong * times, right * times)
    assert many.high - many.low <= few.high - few.low + 1e-12


@settings(max_examples=200, deadline=None)
@given(RULES, OUTCOMES, st.lists(st.floats(0, 1e4), min_size=1), st.floats(0.8, 1), st.integers(1, 50))
def test_thresholds_stay_between_the_usual_and_the_tightest(
    rules: Rules, outcomes: list, gaps: list[float], usual: float, partitions: int
) -> None:
    audit, now = Audit(rules), 0.0
    for number, outcome in enumerate(outcomes):
        now += gaps[number % len(gaps)]
        audit.record("m", "<1k", b"%d" % (number % partitions), outcome, now)
        action = audit.action("m", "<1k", b"0", now)
        assert usual <= action.threshold(usual) <= max(usual, rules.tightest)
        assert action.reason
        interval = audit.ratio("m", "<1k")
        assert interval is None or 0 <= interval.low <= interval.point <= interval.high <= 1


@settings(max_examples=200, deadline=None)
@given(RULES, OUTCOMES, st.lists(st.floats(0, 1e4), min_size=1), st.integers(1, 50))
def test_a_wrong_hit_never_loosens(rules: Rules, outcomes: list, gaps: list[float], partitions: int) -> None:
    audit, now = Audit(rules), 0.0
    for number, outcome in enumerate(outcomes):
        now += gaps[number % len(gaps)]
        partition = b"%d" % (number % partitions)
        before = [strictness(audit.action("m", "<1k", key, now)) for key in (partition, b"other")]
        audit.record("m", "<1k", partition, outcome, now)
        after = [strictness(audit.action("m", "<1k", key, now)) for key in (partition, b"other")]
        if outcome == "different":
            assert after >= before
            assert after[1] >= before[1]
        elif outcome == "unsure":
            assert after == before


@settings(max_examples=300, deadline=None)
@given(RULES, st.lists(st.booleans(), min_size=1, max_size=150), st.data())
def test_of_two_histories_the_one_with_more_wrong_hits_is_never_the_looser(
    rules: Rules, wrong: list[bool], data: st.DataObject
) -> None:
    """Until the worse one has had its cool-off, after which it gets a fresh trial."""
    worse = [was or data.draw(st.booleans()) for was in wrong]
    better_audit, worse_audit, now = Audit(rules), Audit(rules), 0.0
    for number, (one, other) in enumerate(zip(wrong, worse, strict=True)):
        now += 1.0
        key = b"%d" % number
        better_audit.record("m", "<1k", key, "different" if one else "same", now)
        worse_audit.record("m", "<1k", key, "different" if other else "same", now)
        strict = strictness(worse_audit.action("m", "<1k", b"any", now))
        if strict == 1000.0:
            return
        assert strict >= strictness(better_audit.action("m", "<1k", b"any", now))


@settings(max_examples=100, deadline=None)
@given(RULES, st.integers(0, 300))
def test_right_hits_alone_change_nothing(rules: Rules, count: int) -> None:
    audit = Audit(rules)
    for number in range(count):
        audit.record("m", "<1k", b"%d" % (number % 7), "same", float(number))
    assert audit.action("m", "<1k", b"0", float(count)).kind == "normal"


@given(TEXTS, TEXTS, st.none() | st.floats(-1, 1))
def test_a_comparison_has_no_sides_and_an_answer_equals_itself(one: str, other: str, similarity: float | None) -> None:
    assert compare(one, other, similarity) == compare(other, one, similarity)
    assert compare(one, one, similarity) == "same"


@given(TEXTS, TEXTS, st.floats(-1, 1), st.floats(-1, 1))
def test_more_similar_answers_are_never_judged_more_different(one: str, other: str, a: float, b: float) -> None:
    order = ["different", "unsure", "same"]
    low, high = sorted((a, b))
    assert order.index(compare(one, other, low)) <= order.index(compare(one, other, high))
