"""Laws of the guard: it answers for any text, for a pair as for its mirror image, and in time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.cache.guard import Guard, surface_form
from inferdock.cache.thresholds import threshold

VOCABULARY = (
    "how what who is are was the a do can should i you not no and or of in from to by tom ann cat dogs best good more "
    'less before after 5 6 km $ c++ \'it "so" US us , ? ! : please hey, buy sell mean'
)
WORDS = st.sampled_from([*VOCABULARY.split(), "\n"])
PROMPTS = st.lists(WORDS, max_size=14).map(" ".join) | st.text(st.characters(), max_size=60)  # lone surrogates too
SCORES = st.floats(-1, 1) | st.sampled_from([float("nan"), float("inf"), float("-inf")])
SPACES = st.sampled_from(["", " ", "  ", "\u00a0"])

HOSTILE = {
    "a megabyte of words": "how do I buy a house " * 50_000,
    "a megabyte of one letter": "a" * 1_000_000,
    "spaces": "a" + " " * 30_000 + "b",
    "marks": "a" + "?" * 30_000 + "b",
    "marks and spaces": "a" + " ?" * 15_000 + " b",
    "quotes": "\"' " * 10_000,
    "lines": "a\n \n" * 8_000,
    "opening brackets": "x[" * 16_000,
    "statements without an end": "SELECT " * 4_000,
    "dollars": "$a " * 10_000,
    "backticks": "`" * 30_000,
    "please": "a" + " please" * 4_000,
    "control characters": "\0\x01\x1b" * 10_000,
    "surrogates": "\ud800" * 30_000,
    "accents": "e" + "\u0301" * 30_000,
    "what it reads at most": "do what mean " * 315,
    "joints at most": "a and b or " * 370,
    "prepositions at most": "of in to at " * 340,
    "digits at most": "1,234.5! " * 450,
    "apostrophes at most": "'a'b " * 800,
}


@given(PROMPTS, PROMPTS, SCORES, st.floats(0, 1))
def test_a_pair_and_its_mirror_image_get_one_verdict(one: str, other: str, score: float, limit: float) -> None:
    guard = Guard()

    there, back = guard.judge(one, other, score, threshold=limit), guard.judge(other, one, score, threshold=limit)

    assert (there.served, there.reason, there.grey) == (back.served, back.reason, back.grey)


@given(PROMPTS, SCORES)
def test_every_prompt_gets_its_own_answer(prompt: str, score: float) -> None:
    assert Guard().judge(prompt, prompt, score, threshold=1.0).served


@given(PROMPTS, SPACES, SPACES)
def test_space_around_a_prompt_never_counts(prompt: str, before: str, after: str) -> None:
    assert surface_form(before + prompt + after) == surface_form(prompt)


@given(PROMPTS, PROMPTS, st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_or_a_lower_threshold_never_refuses_more(
    one: str, other: str, score: float, limit: float, step: float
) -> None:
    guard = Guard()

    if guard.judge(one, other, score, threshold=limit).served:
        assert guard.judge(one, other, score + step, threshold=limit).served
        assert guard.judge(one, other, score, threshold=limit - step).served


@given(st.floats(0, 1), st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1))
def test_more_entries_never_lower_the_threshold(base: float, fewer: int, more: int, tightened: float) -> None:
    small, large = sorted((fewer, more))

    assert base <= threshold(base, small) <= threshold(base, large) <= threshold(base, large, tightened=tightened) <= 1


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_work_on_a_hostile_prompt_is_bounded(text: str) -> None:
    guard = Guard()
    guard.judge("What is rust?", "What is mould?", 0.96, threshold=0.95)
    started = time.perf_counter()

    guard.judge(text, text + "x", 1.0, threshold=0.95)
    guard.judge(text[:4096], text[:4095] + "x", 1.0, threshold=0.95)

    assert time.perf_counter() - started < 2
