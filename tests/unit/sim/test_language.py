"""The simulated tokenizer and model."""

from hypothesis import given
from hypothesis import strategies as st

from inferdock.sim.language import EOS, VOCABULARY_SIZE, Generator, decode, encode, render_chat


@given(st.text(max_size=200))
def test_encoding_and_decoding_gives_the_text_back(text):
    assert decode(encode(text)) == text


@given(st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=20), st.integers(0, 2**32), st.integers(0, 30))
def test_a_continuation_elsewhere_is_the_undisturbed_one(prompt, seed, cut):
    whole = Generator(prompt, seed)
    tokens = [whole.next(may_end=False) for _ in range(40)]
    resumed = Generator([*prompt, *tokens[:cut]], seed)
    assert [resumed.next(may_end=False) for _ in range(40 - cut)] == tokens[cut:]


def test_known_words_are_one_token_each():
    assert len(encode(" river stone water")) == 3


def test_another_seed_gives_another_answer():
    one, two = Generator([1, 2], 1), Generator([1, 2], 2)
    assert [one.next(may_end=False) for _ in range(20)] != [two.next(may_end=False) for _ in range(20)]


def test_answers_end_after_some_sixty_tokens_on_average():
    lengths = []
    for prompt in range(300):
        generator = Generator([prompt], 0)
        lengths.append(next(i for i in range(100_000) if generator.next(may_end=True) == EOS))
    assert 40 < sum(lengths) / len(lengths) < 90


def test_another_conversation_is_another_prompt():
    assert render_chat([("user", "a")]) != render_chat([("system", "a")])
