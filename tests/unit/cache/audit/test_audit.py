"""What the tier does about wrong hits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from inferdock.cache.audit import Audit, Rules, size_class

RULES = Rules(bound=0.02, min_samples=50, turn=10)


class Scene:
    """One model and size class; each outcome is of a partition of its own unless said otherwise."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.audit = Audit(rules)
        self.now = 0.0
        self._partitions: Iterator[int] = itertools.count()

    def take(self, outcomes: str, partition: bytes | None = None) -> None:
        """``.`` right, ``x`` wrong, ``?`` unsure; a second apart."""
        for letter in outcomes:
            self.now += 1
            key = b"p%d" % next(self._partitions) if partition is None else partition
            outcome = {".": "same", "x": "different", "?": "unsure"}[letter]
            self.audit.record("m", "<1k", key, outcome, self.now)  # type: ignore[arg-type]

    def kind(self, partition: bytes = b"any") -> str:
        return self.audit.action("m", "<1k", partition, self.now).kind

    def threshold(self, usual: float = 0.95) -> float:
        return self.audit.action("m", "<1k", b"any", self.now).threshold(usual)


@pytest.mark.parametrize(
    ("entries", "name"), [(0, "<1k"), (999, "<1k"), (1000, "1k-10k"), (10_000, "1k-10k"), (10_001, ">10k")]
)
def test_partitions_are_classed_by_size(entries: int, name: str) -> None:
    assert size_class(entries) == name


def test_without_samples_nothing_is_done_and_nothing_is_claimed() -> None:
    scene = Scene()
    assert scene.kind() == "normal"
    assert scene.threshold() == 0.95
    assert scene.audit.ratio("m", "<1k") is None
    assert scene.audit.report(0.0) == []


def test_unsure_outcomes_are_counted_and_decide_nothing() -> None:
    scene = Scene()
    scene.take("?" * 500)
    assert scene.kind() == "normal"
    (line,) = scene.audit.report(scene.now)
    assert (line.interval, line.unsure) == (None, 500)


def test_one_wrong_hit_among_the_first_is_no_alarm() -> None:
    scene = Scene()
    scene.take("..x..")
    assert scene.kind() == "normal"


def test_a_share_that_is_surely_too_high_leaves_equal_requests_only_for_a_while() -> None:
    scene = Scene()
    scene.take("..x..x..x")
    assert scene.kind() == "exact"
    assert "only equal requests hit" in scene.audit.action("m", "<1k", b"any", scene.now).reason
    scene.now += RULES.cool_off_s
    assert scene.kind() == "tightened"
    assert scene.threshold() == 0.99


def test_the_next_cool_off_lasts_longer() -> None:
    scene = Scene()
    scene.take("xxx")
    scene.now += RULES.cool_off_s
    scene.take("xxx")
    scene.now += RULES.cool_off_s
    assert scene.kind() == "exact"
    scene.now += RULES.cool_off_s
    assert scene.kind() == "tightened"


def test_other_models_and_sizes_are_not_touched() -> None:
    scene = Scene()
    scene.take("xxxxx")
    for model, size in (("m", "1k-10k"), ("other", "<1k")):
        assert scene.audit.action(model, size, b"any", scene.now).kind == "normal"


def test_a_share_that_looks_too_high_tightens_step_by_step() -> None:
    scene = Scene(Rules(bound=0.02, min_samples=50, turn=10, min_wrong=9))
    scene.take("." * 48 + "xx")
    assert scene.threshold() == pytest.approx(0.96)
    scene.take("." * 10)
    assert scene.threshold() == pytest.approx(0.97)
    assert "more than 2.00%" in scene.audit.action("m", "<1k", b"any", scene.now).reason


def test_a_share_that_is_surely_low_enough_sinks_the_threshold_step_by_step_to_the_usual_one() -> None:
    scene = Scene(Rules(bound=0.02, min_samples=50, turn=10, min_wrong=9))
    scene.take("." * 48 + "xx" + "." * 10)
    seen = [scene.threshold()]
    for _ in range(100):
        scene.take("." * 10)
        seen.append(scene.threshold())
    assert max(seen) > 0.96
    assert seen[-1] == 0.95
    assert seen[seen.index(max(seen)) :] == sorted(seen[seen.index(max(seen)) :], reverse=True)
    assert scene.kind() == "normal"


def test_a_wrong_hit_does_not_sink_the_threshold_even_while_the_share_is_low() -> None:
    scene = Scene(Rules(bound=0.3, min_samples=10, turn=1, min_wrong=1000, max_steps=19))
    scene.take("x" * 40)
    raised = scene.threshold(0.8)
    while scene.threshold(0.8) == raised:
        scene.take(".")
    scene.take("." * 9)
    sinking = scene.threshold(0.8)
    scene.take("x")
    assert scene.threshold(0.8) == sinking
    scene.take(".")
    assert scene.threshold(0.8) < sinking


@pytest.mark.parametrize("bound", [0.003, 0.0005])
def test_however_low_the_bound_enough_right_hits_bring_the_usual_threshold_back(bound: float) -> None:
    scene = Scene(Rules(bound=bound, min_wrong=9))
    scene.take("." * 59 + "x")
    assert scene.kind() == "tightened"
    scene.take("." * 100_000)
    assert scene.kind() == "normal"


def test_no_threshold_is_raised_above_the_tightest_nor_lowered() -> None:
    scene = Scene(Rules(min_wrong=10_000))
    scene.take("x." * 500)
    for usual, expected in [(0.85, 0.93), (0.95, 0.99), (0.99, 0.99), (0.995, 0.995), (1.0, 1.0)]:
        assert scene.threshold(usual) == pytest.approx(expected)


def test_a_bad_partition_is_set_aside_and_the_others_go_on() -> None:
    scene = Scene()
    scene.take("." * 20)
    scene.take("x..x", b"bad")
    assert scene.kind(b"bad") == "exact"
    assert "this partition" in scene.audit.action("m", "<1k", b"bad", scene.now).reason
    assert scene.kind(b"good") == "normal"
    assert scene.audit.isolated(scene.now) == 1
    scene.take("xxxxxx", b"bad")  # checks that were under way
    assert scene.kind(b"good") == "normal"


def test_a_partition_that_was_set_aside_comes_back() -> None:
    scene = Scene()
    scene.take("xx", b"bad")
    scene.now += RULES.cool_off_s
    assert scene.kind(b"bad") == "normal"
    scene.take(".", b"bad")
    assert scene.kind(b"bad") == "normal"
    scene.take("xx", b"bad")
    assert scene.kind(b"bad") == "exact"


def test_a_large_partition_with_few_wrong_hits_is_not_set_aside() -> None:
    scene = Scene(Rules(bound=0.02))
    scene.take("." * 300 + "x" + "." * 300 + "x", b"large")
    assert scene.kind(b"large") == "normal"


def test_the_published_ratio_counts_bad_partitions_too() -> None:
    scene = Scene()
    scene.take("." * 8)
    scene.take("xx", b"bad")
    interval = scene.audit.ratio("m", "<1k")
    assert interval is not None
    assert interval.point == pytest.approx(0.2, abs=0.01)


def test_old_outcomes_weigh_less() -> None:
    scene = Scene()
    scene.take("xx" + "." * 98)
    scene.now += RULES.half_life_s
    scene.take("." * 100)
    interval = scene.audit.ratio("m", "<1k")
    assert interval is not None
    assert interval.point == pytest.approx(1 / 150, rel=0.15)
    assert interval.samples == pytest.approx(150, rel=0.15)


def test_a_clock_that_goes_back_does_no_harm() -> None:
    scene = Scene()
    scene.take("...")
    scene.now = -1e9
    scene.take("...")
    interval = scene.audit.ratio("m", "<1k")
    assert interval is not None
    assert interval.samples == pytest.approx(6, rel=0.01)


def test_memory_is_bounded() -> None:
    audit = Audit(RULES)
    for number in range(50_000):
        key = number.to_bytes(4, "big")
        audit.record(f"m{number % 9000}", "<1k", key, "different" if number % 3 else "same", 1.0)
        if number % 2:
            audit.record("m", "<1k", key, "different", 1.0)
    for number in range(25_000):
        audit.record("m", "<1k", b"good %d" % number, "same", 1.0)
    assert len(audit.report(1.0)) <= 4096
    assert audit.isolated(1.0) <= 20_000


def test_lines_say_what_is_done_and_why() -> None:
    scene = Scene()
    scene.take("xxx")
    (line,) = scene.audit.report(scene.now)
    assert (line.model, line.size, line.action.kind) == ("m", "<1k", "exact")
    assert line.action.reason == (
        "at least 43.8% of checked hits were wrong, more than 2.00%: only equal requests hit for 900 s"
    )
