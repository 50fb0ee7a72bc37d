"""The simulated tokenizer and model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferdock.sim.language import EOS, VOCABULARY_SIZE, Generator, decode, encode, render_chat, token_bytes

TOKENS = st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=40)


@given(st.text())
def test_any_text_survives_encoding_and_decoding(text):
    assert decode(encode(text)) == text


@given(TOKENS)
def test_every_token_sequence_decodes_to_text(tokens):
    assert isinstance(decode(tokens), str)


@given(st.text())
def test_every_token_is_in_the_vocabulary(text):
    assert all(0 <= token < VOCABULARY_SIZE for token in encode(text))


def test_a_known_word_is_one_token():
    assert len(encode(" garden")) == 1
    assert token_bytes(encode(" garden")[0]) == b" garden"


@given(prompt=TOKENS, seed=st.integers(-(2**70), 2**70), place=st.integers(0, 30))
def test_a_generator_that_starts_midway_continues_exactly(prompt, seed, place):
    whole = Generator(prompt, seed)
    answer = [whole.next(may_end=False) for _ in range(30)]
    resumed = Generator(prompt + answer[:place], seed)
    assert [resumed.next(may_end=False) for _ in range(30 - place)] == answer[place:]


@given(prompt=TOKENS)
def test_answers_are_made_of_words_and_end_only_if_they_may(prompt):
    generator = Generator(prompt, 0)
    tokens = [generator.next(may_end=False) for _ in range(200)]
    assert EOS not in tokens
    assert all(token_bytes(token).startswith(b" ") for token in tokens)


def test_an_answer_ends_by_itself():
    generator = Generator(encode("hello"), 0)
    assert EOS in [generator.next(may_end=True) for _ in range(2000)]


def test_another_seed_gives_another_answer():
    one, two = Generator([5], 1), Generator([5], 3)
    assert [one.next(may_end=False) for _ in range(10)] != [two.next(may_end=False) for _ in range(10)]


def test_roles_and_their_order_matter_to_the_prompt():
    assert render_chat([("user", "a"), ("system", "a")]) != render_chat([("system", "a"), ("user", "a")])
