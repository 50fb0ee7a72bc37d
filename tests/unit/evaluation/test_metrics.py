"""Metrics on answers whose scores are known."""

from __future__ import annotations

import math
import sys

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from inferdock.domain.errors import ConfigError, ResourceError
from inferdock.domain.refusals import refuses
from inferdock.evaluation.answers import Answer
from inferdock.evaluation.divergence import Divergence
from inferdock.evaluation.metrics import METRICS, passes
from inferdock.evaluation.tasks import Contains, Exact, Regex
from inferdock.evaluation.texts import SLOW_SEARCHES, Texts
from tests.support.evaluation_values import RIGHT, outcome, task

TEXTS = Texts()
ANSWERS = ["the small ship sails to the south at night", RIGHT, "a ship", "", "no", f"{RIGHT}, says the captain."]


def total(metric: str, *outcomes) -> tuple[float, ...]:
    rows = [METRICS[metric].row(o, TEXTS) for o in outcomes]
    return METRICS[metric].statistic(TEXTS)([sum(column) for column in zip(*rows, strict=True)])


def test_bleu_is_sacrebleus_corpus_bleu_on_either_side():
    before, after, difference, relative = total("bleu", *(outcome(RIGHT, text) for text in ANSWERS))
    assert before == pytest.approx(100.0)
    assert after == pytest.approx(BLEU().corpus_score(ANSWERS, [[RIGHT] * len(ANSWERS)]).score)
    assert (difference, relative) == (pytest.approx(after - before), pytest.approx(after / before - 1))


def test_bleu_between_takes_the_champions_answers_as_references():
    champions = [*ANSWERS[1:3], ANSWERS[0]]
    candidates = ANSWERS[:3]
    (found,) = total("bleu_between", *(outcome(b, a) for b, a in zip(champions, candidates, strict=True)))
    assert found == pytest.approx(BLEU().corpus_score(candidates, [champions]).score)


def test_chrf_is_the_mean_of_sacrebleus_scores():
    _, after, _, _ = total("chrf", *(outcome(RIGHT, text) for text in ANSWERS))
    scores = [CHRF().sentence_score(text, [RIGHT]).score for text in ANSWERS]
    assert after == pytest.approx(sum(scores) / len(scores))


@pytest.mark.parametrize(
    ("check", "text", "met"),
    [
        (Exact(), f"  {RIGHT}\n", True),
        (Exact(), RIGHT.upper(), False),
        (Exact(value="YES", ignore_case=True), "yes", True),
        (Contains(value="north"), RIGHT, True),
        (Contains(value="NORTH"), RIGHT, False),
        (Contains(value="NORTH", ignore_case=True), RIGHT, True),
        (Regex(pattern=r"\bship\b.*north"), RIGHT, True),
        (Regex(pattern="^north"), RIGHT, False),
        (Regex(pattern="SHIP", ignore_case=True), RIGHT, True),
    ],
)
def test_a_check_is_met_or_not(check, text, met):
    assert passes(check, task(), text, TEXTS) is met


def test_all_checks_of_a_kind_must_be_met():
    both = task(checks=(Contains(value="ship"), Contains(value="north")))
    assert total("contains", outcome(RIGHT, "a ship", task=both)) == (1.0, 0.0, -1.0, -1.0)


def test_a_metric_that_a_task_does_not_ask_for_has_no_row():
    bare = outcome(task=task(reference=None, checks=()))
    assert [name for name in ("exact", "contains", "regex", "bleu", "chrf", "logprob", "kl")
            if METRICS[name].row(bare, TEXTS) is not None] == []  # fmt: skip


def test_a_candidate_that_failed_counts_as_failed_and_nowhere_else():
    lost = outcome(candidate=Answer(error="HTTP 500"))
    assert {name: row for name, metric in METRICS.items() if (row := metric.row(lost, TEXTS))} == {"failed": (1.0, 1.0)}


def test_a_task_that_the_champion_failed_does_not_count():
    lost = outcome(champion=Answer(error="HTTP 500"))
    assert not any(metric.row(lost, TEXTS) for metric in METRICS.values())


def test_the_common_beginning_is_counted_in_token_ids():
    pair = outcome(champion=Answer(text="a", ids=(5, 6, 7, 8)), candidate=Answer(text="b", ids=(5, 6, 9)))
    assert total("prefix", pair) == (2.0,)


def test_without_token_ids_the_common_beginning_is_counted_in_words():
    assert total("prefix", outcome("the red house", "the red door")) == (2.0,)


def test_agreement_does_not_mind_white_space_at_the_ends():
    assert total("agreement", outcome("yes\n", " yes"), outcome("yes", "no")) == (0.5,)


def test_length_is_the_engines_count_and_words_without_one():
    counted = outcome(champion=Answer(text="a", output_tokens=10), candidate=Answer(text="a b c"))
    assert total("length", counted) == (10.0, 3.0, -7.0, pytest.approx(-0.7))


def test_pace_is_time_by_tokens_on_either_side_and_only_where_both_are_known():
    def timed(before, after, tokens=10):
        return outcome(
            champion=Answer(text="x", output_tokens=tokens, seconds=before),
            candidate=Answer(text="x", output_tokens=10, seconds=after),
        )

    assert total("pace", timed(0.1, 0.2), timed(0.3, 0.2)) == pytest.approx((20.0, 20.0, 0.0, 0.0))
    for unknown in (timed(None, 0.2), timed(0.1, None), timed(0.1, 0.2, tokens=None), timed(0.1, 0.2, tokens=0)):
        assert METRICS["pace"].row(unknown, TEXTS) is None


def test_divergence_is_a_mean_over_tokens_not_over_tasks():
    long = outcome(divergence=Divergence(tokens=9, logprob=-0.9, kl=0.9))
    short = outcome(divergence=Divergence(tokens=1, logprob=0.0, kl=0.0))
    assert total("kl", long, short) == (pytest.approx(0.09),)
    assert total("logprob", long, short) == (pytest.approx(-0.09),)


def test_a_change_from_nothing_is_infinite_and_from_nothing_to_nothing_is_none():
    assert total("exact", outcome("no", RIGHT))[3] == math.inf
    assert total("exact", outcome("no", "nor"))[3] == 0.0


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I cannot help with that.", True),
        ("I\u2019m sorry, I can\u2019t do this.", True),
        ("As an AI language model, I do not know.", True),
        ("Unfortunately, I am unable to say.", True),
        ("You can do it with `inferdock up`.", False),
        ("Say you are sorry.", False),
        ("", False),
        ("x" * 5_000 + " I cannot", False),
    ],
)
def test_a_refusal_is_seen_at_the_beginning(text, refused):
    assert refuses(text) is refused


def test_a_pattern_without_end_is_given_up_and_then_tried_no_more():
    texts, evil = Texts(), r"(?:a|a|aa)+$"
    assert [texts.found(evil, "a" * 60 + "b", ignore_case=False) for _ in range(SLOW_SEARCHES + 50)] == [False] * (
        SLOW_SEARCHES + 50
    )


@pytest.mark.parametrize("pattern", ["(", "[", "a{2,1}", "(?P<x>a)(?P<x", "\\", "(?R)", "a" * 9 + "**"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ConfigError, match="no regular expression"):
        TEXTS.compile(pattern)


@pytest.mark.parametrize("pattern", ["(?:a{1000}){1000}", "((a{0,99}){0,99}){99}", "a{1" + "0" * 900 + "}"])
def test_a_pattern_that_would_fill_the_memory_is_refused(pattern):
    with pytest.raises(ConfigError):
        TEXTS.compile(pattern)


@pytest.mark.parametrize("pattern", [r"^\d{4}-\d{2}-\d{2}$", r"(?i)yes|no", r"\b\w{1,1000}\b", "{}", "a{,3}"])
def test_what_people_write_is_a_pattern(pattern):
    TEXTS.compile(pattern)


@pytest.mark.parametrize("module", ["sacrebleu.metrics.bleu", "regex"])
def test_a_missing_package_is_a_sentence_with_the_cure(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ResourceError) as caught:
        Texts()
    assert caught.value.cure == "pip install 'inferdock[eval]'"
