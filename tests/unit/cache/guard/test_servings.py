"""Pairs that ask the same in other words are served where their vectors are near."""

from __future__ import annotations

import pytest

from inferdock.cache.guard import Guard

PAIRS = """
How do I buy a house? | What is the best way to buy a house?
How do I buy a house? | how to purchase a house
How can I learn to knit? | What are some good ways to learn to knit?
What is the capital of France? | what's the capital of France
Can you explain recursion? | Please explain recursion.
Could you please tell me how to reset my password? | How do I reset my password?
I would like to know why the sea is salty | Why is the sea salty?
What is the difference between cats and dogs? | What is the difference between dogs and cats?
What is the difference between black tea and green tea? | What is the difference between green tea and black tea?
How is a crow different from a raven? | What is the difference between a crow and a raven?
Is Ann a nurse or a doctor? | Is Ann a doctor or a nurse?
Is there a way to recover my password? | How can I recover my password?
What colour is the sky? | What color is the sky?
What does entropy mean? | What is the meaning of entropy?
What is it like to be rich? | How does it feel to be rich?
Which is the best phone? | What's the best phone?
Which phone is the best? | What is the best phone?
How long does it take to fly to Rome? | How much time does it take to fly to Rome?
Why is the sky blue? | why is the sky so blue?
Is Tom truly happy? | Is Tom happy?
What are the main causes of rust? | What are the causes of rust?
What is the salary of a judge? | What is a judge's salary?
What are the best places to eat in Rome? | What are the best places in Rome to eat?
How much milk should I drink? | How much milk should one drink?
How can I build an e-commerce site? | How can I build an ecommerce site?
Is Turkey nice? | is turkey nice?
"""
CASES = [tuple(part.strip() for part in line.split(" | ")) for line in PAIRS.strip().splitlines()]


@pytest.mark.parametrize(("asked", "stored"), CASES, ids=[case[0] for case in CASES])
def test_other_words_of_one_meaning_are_served(asked: str, stored: str) -> None:
    assert Guard().judge(asked, stored, 0.95, threshold=0.95).served


def test_a_text_is_served_for_itself_and_its_surface_whatever_the_score() -> None:
    guard = Guard()

    assert guard.judge("a == b", "a == b", -1.0, threshold=1.0).reason == "same"
    assert guard.judge("What is rust?", "what is rust", -1.0, threshold=1.0).reason == "surface"


def test_contractions_are_the_same_words() -> None:
    assert Guard().judge("What's rust?", "What is rust?", 0.9, threshold=0.95).reason == "same words"


def test_equal_meaning_is_served_below_the_threshold_and_a_missing_word_only_near_it() -> None:
    guard = Guard()
    equal = ("How do I mend a kite?", "What is the best way to fix a kite?")
    nearly = ("What does a kite weigh?", "What does a kite item weigh?")

    assert guard.judge(*equal, 0.86, threshold=0.95).served
    assert not guard.judge(*equal, 0.84, threshold=0.95).served
    assert guard.judge(*nearly, 0.94, threshold=0.95).served
    assert not guard.judge(*nearly, 0.92, threshold=0.95).served


def test_the_higher_the_threshold_the_smaller_the_allowance() -> None:
    guard = Guard()
    equal = ("How do I mend a kite?", "What is the best way to fix a kite?")

    assert guard.judge(*equal, 0.95, threshold=0.98).served
    assert not guard.judge(*equal, 0.93, threshold=0.98).served
    assert not guard.judge(*equal, 0.99, threshold=1.0).served
