"""Reading requests: whatever is sent is read or refused, never a defect of ours."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.sim.language import BOS, encode
from inferdock.sim.options import SimOptions
from inferdock.sim.requests import Refusal, read_generation

OPTIONS = SimOptions(max_model_len=64)
FIELDS = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "min_tokens", "n", "seed", "stop", "stream",
    "stream_options", "temperature", "logprobs", "top_logprobs", "echo", "ignore_eos", "return_token_ids",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MESSAGES = [{"role": "user", "content": "hi"}]


def read(data: object, *, chat: bool = False):
    return read_generation(json.dumps(data).encode(), "application/json", OPTIONS, chat=chat)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.booleans())
def test_any_fields_are_read_or_refused(data, chat):
    base = {"messages": MESSAGES} if chat else {"prompt": "hi"}
    for body in (data, {**base, **data}, {**data, **base}):
        with contextlib.suppress(Refusal):
            generation = read(body, chat=chat)
            assert generation.n >= 1
            assert all(len(p) + generation.max_tokens <= 64 for p in generation.prompts)


@given(st.binary(), st.sampled_from(["application/json", "text/plain", "", "application/json; charset=utf-8"]))
def test_any_bytes_are_read_or_refused(body, content_type):
    with pytest.raises(Refusal):
        read_generation(body, content_type, OPTIONS, chat=True)


def test_a_deeply_nested_body_is_refused():
    with pytest.raises(Refusal):
        read_generation(b"[" * 200_000, "application/json", OPTIONS, chat=True)


PROMPTS = {
    "text": ("hi", [[BOS, *encode("hi")]]),
    "texts": (["hi", "ho"], [[BOS, *encode("hi")], [BOS, *encode("ho")]]),
    "token ids": ([5, 6], [[5, 6]]),
    "lists of token ids": ([[5, 6], [7]], [[5, 6], [7]]),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_come_in_four_forms(name):
    prompt, read_as = PROMPTS[name]
    assert read({"prompt": prompt}).prompts == read_as


def test_a_prompt_that_fills_the_context_is_refused_and_one_token_less_is_not():
    assert read({"prompt": [5] * 63, "max_tokens": 9}).max_tokens == 1
    with pytest.raises(Refusal, match="maximum context length"):
        read({"prompt": [5] * 64})


def test_greedy_answers_have_no_seed_and_sampled_ones_always_have():
    assert read({"prompt": "a", "temperature": 0, "seed": 7}).seed == 0
    assert all(read({"prompt": "a", "seed": seed}).seed != 0 for seed in (0, -1, 1))
    assert read({"prompt": "a"}).seed != read({"prompt": "a"}).seed


def test_text_parts_of_a_message_are_joined():
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    messages = [{"role": "user", "content": parts}]
    whole = [{"role": "user", "content": "hello"}]
    assert read({"messages": messages}, chat=True).prompts == read({"messages": whole}, chat=True).prompts
