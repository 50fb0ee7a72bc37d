"""Which requests may be cached."""

from __future__ import annotations

import pytest

from inferdock.cache.policy import REASONS, CachePolicy, why_not
from tests.unit.cache.body.requests import canonical, chat_fields, completion_fields

POLICY = CachePolicy()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(chat_fields(), id="a chat"),
        pytest.param(completion_fields(), id="a completion"),
        pytest.param(completion_fields([1, 2]), id="tokens"),
        pytest.param(completion_fields(["x"]), id="a list of one prompt"),
        pytest.param(chat_fields(temperature=0.0, n=1, seed=5), id="said outright"),
        pytest.param(chat_fields(n=None, tools=None, logprobs=None, audio=None, store=None), id="all null"),
        pytest.param(
            chat_fields(tools=[], tool_choice="none", logprobs=False, top_logprobs=0, echo=False), id="neutral"
        ),
        pytest.param(chat_fields(modalities=["text"]), id="text only"),
        pytest.param(chat_fields(response_format={"type": "json_object"}), id="structured output"),
        pytest.param(chat_fields([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), id="several texts"),
        pytest.param(chat_fields(anything={"new": [1]}, cache_salt="s", user="u"), id="unknown fields"),
        pytest.param(chat_fields(stream=True, stream_options={"include_usage": True}), id="a stream"),
    ],
)
def test_plain_requests_are_cached(fields: dict[str, object]) -> None:
    assert why_not(canonical(fields), POLICY) == ""


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"temperature": 0.1}, "temperature"),
        ({"temperature": None}, "temperature"),
        ({"temperature": False}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"n": 2}, "choices"),
        ({"best_of": 2}, "choices"),
        ({"use_beam_search": True}, "choices"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "auto"}, "tools"),
        ({"functions": [{}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 0}, "logprobs"),
        ({"top_logprobs": 2}, "logprobs"),
        ({"prompt_logprobs": 0}, "logprobs"),
        ({"return_token_ids": True}, "token-ids"),
        ({"return_tokens_as_token_ids": True}, "token-ids"),
        ({"return_prompt_text": True}, "prompt-text"),
        ({"echo": True}, "echo"),
        ({"continue_final_message": True}, "continuation"),
        ({"kv_transfer_params": {}}, "transfer"),
        ({"prompt_embeds": "AA=="}, "media"),
        ({"audio": {"voice": "x"}}, "media"),
        ({"modalities": ["text", "audio"]}, "media"),
        ({"store": True}, "side-effects"),
        ({"web_search_options": {}}, "side-effects"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "usage"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [5]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 17}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tools"),
        ({"messages": [{"role": ["tool"], "content": 5}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "media"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_audio"}]}]},
            "media",
        ),
        ({"messages": [{"role": "assistant", "audio": {"id": "x"}}]}, "media"),
        ({"messages": [{"role": "user", "content": "x" * 70_000}]}, "size"),
    ],
    ids=str,
)
def test_a_chat_that_is_not_cached_has_a_reason(more: dict[str, object], reason: str) -> None:
    assert why_not(canonical(chat_fields(**more)), POLICY) == reason
    assert reason in REASONS


@pytest.mark.parametrize("prompt", [None, 5, [], ["a", "b"], [[1], [2]], [True], {"a": 1}], ids=str)
def test_several_prompts_or_none_are_not_cached(prompt: object) -> None:
    assert why_not(canonical(completion_fields(prompt)), POLICY) == "prompt"


@pytest.mark.parametrize("temperature", [None, 0, 0.7, 2])
def test_a_route_may_allow_any_temperature(temperature: float | None) -> None:
    policy = CachePolicy(any_temperature=True)
    assert why_not(canonical(chat_fields(temperature=temperature)), policy) == ""


def test_white_space_does_not_count_as_size() -> None:
    assert why_not(canonical(b" " * 100_000 + b'{"temperature":0,"messages":[{"role":"user"}]}'), POLICY) == ""


def test_reasons_are_short_and_fit_a_header_and_a_label() -> None:
    assert len(set(REASONS)) == len(REASONS)
    assert all(reason.replace("-", "").isalpha() and len(reason) < 16 for reason in REASONS)
