"""Laws of the evaluation: intervals contain their value, and a model is as good as itself."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from inferdock.domain.errors import ConfigError
from inferdock.domain.verdict import Verdict
from inferdock.evaluation.answers import MalformedAnswerError, read_answer
from inferdock.evaluation.bootstrap import Drawing, estimates
from inferdock.evaluation.divergence import diverge, read_positions
from inferdock.evaluation.limits import parse_limit, rules
from inferdock.evaluation.report import changed_words
from inferdock.evaluation.texts import Texts
from inferdock.evaluation.verdict import judge, measure, overall
from tests.support.evaluation_values import outcome

TEXTS = Texts()
DRAWING = Drawing(resamples=200)
numbers = st.floats(-1e6, 1e6)
words = st.text(alphabet="ab é日.\n", max_size=30)
pairs = st.lists(st.tuples(words, words), min_size=1, max_size=12)
NAMES = ["choices", "message", "content", "text", "usage", "token_ids"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(numbers, min_size=1, max_size=40), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_an_interval_contains_its_value(values, level):
    rows = [(1.0, value) for value in values]
    (found,) = estimates(rows, lambda sums: (sums[1] / sums[0],), Drawing(resamples=200, level=level))
    assert found.low <= found.value <= found.high


@settings(max_examples=30)
@given(pairs)
def test_every_measure_contains_its_value_and_none_is_nan(answers):
    outcomes = [outcome(before, after, name=str(i)) for i, (before, after) in enumerate(answers)]
    for found in measure(outcomes, (), TEXTS, DRAWING).values():
        for estimate in filter(None, (found.champion, found.candidate, found.difference, found.relative)):
            assert not any(map(math.isnan, (estimate.value, estimate.low, estimate.high)))
            assert estimate.low <= estimate.value <= estimate.high


@settings(max_examples=30)
@given(st.lists(words, min_size=30, max_size=40))
def test_a_model_is_as_good_as_itself(answers):
    outcomes = [outcome(text, text, name=str(i)) for i, text in enumerate(answers)]
    measures = measure(outcomes, (), TEXTS, DRAWING)
    assert measures["", "agreement"].candidate.low == 1.0
    assert {(m.difference.low, m.difference.high) for m in measures.values() if m.difference} == {(0.0, 0.0)}
    assert overall(judge(measures, rules([]), ())) is Verdict.PASS


@given(st.lists(st.floats(-20, 0), min_size=2, max_size=6), st.lists(st.floats(-20, 0), min_size=2, max_size=6))
def test_a_divergence_is_finite_and_its_kl_not_below_zero(before, after):
    def positions(values):
        entries = {str(token): {"logprob": value} for token, value in enumerate(values)}
        return read_positions(json.dumps({"choices": [{"prompt_logprobs": [entries]}]}).encode(), 1)

    found = diverge([0], positions(before), positions(after))
    assert found.kl >= 0
    assert math.isfinite(found.kl)
    assert math.isfinite(found.logprob)
    assert diverge([0], positions(before), positions(before)).logprob == 0


@given(json_values, st.booleans())
def test_any_json_is_an_answer_or_refused(value, chat):
    try:
        answer = read_answer(json.dumps(value).encode(), chat=chat)
    except MalformedAnswerError:
        return
    assert isinstance(answer.text, str)


@given(st.text(max_size=40) | st.from_regex(r"[a-z]{2,9} ?[<>]= ?[+-]?[0-9]{1,3}%?", fullmatch=True))
def test_any_text_is_a_limit_or_refused(text):
    try:
        limit = parse_limit(text)
    except ConfigError:
        return
    assert math.isfinite(limit.number)


@given(words, words)
def test_the_marked_pieces_are_the_texts(before, after):
    left, right = changed_words(before, after)
    assert " ".join(text for text, _ in left) == before
    assert " ".join(text for text, _ in right) == after
