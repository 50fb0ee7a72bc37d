"""Exact match and BLEU against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from scripts.demo_model.scores import corpus_bleu, exact_match, tokens


def test_tokens_are_words_and_single_punctuation_marks() -> None:
    assert tokens("Run `inferdock up`.") == ["Run", "`", "inferdock", "up", "`", "."]


def test_exact_match_is_the_share_of_equal_answers() -> None:
    assert exact_match(["a", " b ", "C"], ["a", "b", "c"]) == pytest.approx(2 / 3)


def test_exact_match_of_nothing_is_zero() -> None:
    assert exact_match([], []) == 0


def test_answers_and_references_must_be_equally_many() -> None:
    with pytest.raises(ValueError, match="shorter"):
        exact_match(["a"], [])


def test_equal_texts_have_bleu_100() -> None:
    assert corpus_bleu(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(100)


def test_precisions_are_pooled_over_the_corpus() -> None:
    # 1-grams 8 of 9, 2-grams 6 of 7, 3-grams 4 of 5, 4-grams 2 of 3; both sides have 9 tokens.
    bleu = corpus_bleu(["a b c d e", "f g h x"], ["a b c d e", "f g h i"])
    assert bleu == pytest.approx(100 * (8 / 9 * 6 / 7 * 4 / 5 * 2 / 3) ** 0.25)


def test_short_answers_pay_the_brevity_penalty() -> None:
    assert corpus_bleu(["a b c d"], ["a b c d e f"]) == pytest.approx(100 * math.exp(1 - 6 / 4))


def test_a_repeated_word_counts_only_as_often_as_in_the_reference() -> None:
    answer, reference = "a a a a b c d e", "a b c d e"
    # n-grams: 5 of 8, 4 of 7, 3 of 6, 2 of 5; longer than the reference, so no penalty.
    assert corpus_bleu([answer], [reference]) == pytest.approx(100 * (5 / 8 * 4 / 7 * 3 / 6 * 2 / 5) ** 0.25)


def test_no_common_4_gram_scores_zero() -> None:
    assert corpus_bleu(["a b c"], ["a b c"]) == 0
