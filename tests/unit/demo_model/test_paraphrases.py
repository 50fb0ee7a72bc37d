"""Questions made for training keep their meaning and never meet the held-out ones."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from scripts.demo_model.intents import Corpus, Intent, read_corpus
from scripts.demo_model.paraphrases import (
    canonical,
    every_question,
    held_out_skeletons,
    random_question,
    reworded,
    skeleton,
    variant,
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus()


@pytest.fixture(scope="module")
def questions(corpus: Corpus) -> list[tuple[str, str]]:
    return list(every_question(corpus))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I stop Inferdock?", "hi, how do i halt the platform please"),
        ("What is a replica?", "What's a replica??"),
        ("See the old version.", "View the previous revision"),
    ],
    ids=["politeness", "contraction", "synonyms"],
)
def test_rewordings_share_their_canonical_form(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize("command", ["inferdock release start", "inferdock model push", "`inferdock up`"])
def test_a_command_is_never_replaced_by_a_synonym(command: str) -> None:
    rng = random.Random(1)
    name = command.strip("`").split()[0]
    assert all(name in reworded(f"What does {command} do?", rng).lower() for _ in range(50))


def test_a_greeting_is_not_taken_for_an_opening_only() -> None:
    assert canonical("Hello!") == "hello"


def test_small_words_may_get_lost_without_changing_the_skeleton() -> None:
    assert skeleton("How do I stop the gateway?") == skeleton("how stop gateway")


def test_rewording_keeps_the_canonical_form(questions: list[tuple[str, str]]) -> None:
    rng = random.Random(2)
    for _, question in rng.sample(questions, 500):
        assert canonical(reworded(question, rng)) == canonical(question)


def test_no_held_out_question_can_be_made_from_the_training_questions(
    corpus: Corpus, questions: list[tuple[str, str]]
) -> None:
    made = {skeleton(question) for _, question in questions}
    assert not held_out_skeletons(corpus.intents) & made


def test_no_question_leads_to_two_answers(questions: list[tuple[str, str]]) -> None:
    owners = defaultdict(set)
    for name, question in questions:
        owners[canonical(question)].add(name)
    assert not {question: names for question, names in owners.items() if len(names) > 1}


def test_variants_with_mistakes_never_meet_a_held_out_question(corpus: Corpus) -> None:
    forbidden = held_out_skeletons(corpus.intents)
    rng = random.Random(3)
    for _ in range(1000):
        question = random_question(corpus, rng.choice(corpus.intents), rng)
        assert skeleton(variant(question, rng, forbidden)) not in forbidden


def test_a_forbidden_variant_is_thrown_away() -> None:
    lost_words = frozenset({skeleton("gateway")})
    rng = random.Random(4)
    assert all(skeleton(variant("The gateways", rng, lost_words)) not in lost_words for _ in range(300))


def test_the_same_seed_gives_the_same_questions(corpus: Corpus) -> None:
    def some(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [variant(random_question(corpus, intent, rng), rng, frozenset()) for intent in corpus.intents]

    assert some(5) == some(5)
    assert some(5) != some(6)


def test_a_topic_a_deed_and_a_possibility_are_put_into_frames() -> None:
    intent = Intent("port", "It is 8080.", topics=("the port",), deeds=("change the port",), possibilities=("listen",))
    made = {question for _, question in every_question(Corpus((intent,), (), (), (), ()))}
    assert {"What is the port?", "How do I change the port?", "Can Inferdock listen?"} <= made
