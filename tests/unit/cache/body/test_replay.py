"""Stored answers as the engine would write them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inferdock.cache.entry import StoredAnswer
from inferdock.cache.replay import DONE, MAX_PIECE, events, json_body, paced
from tests.contract.engine.record import RECORDINGS
from tests.contract.engine.shapes import shape, stream_shape

RECORDING = json.loads((RECORDINGS / "vllm-0.32.0.json").read_text())
NAMED: dict[str, Any] = {"request_id": b"r1", "created": 7}


def stored(kind: str = "chat", **more: Any) -> StoredAnswer:
    fields = {"model": "m", "text": "Hi there, you.", "finish_reason": "stop", "prompt_tokens": 3, "output_tokens": 4}
    return StoredAnswer(**{"kind": kind, "system_fingerprint": "fp"} | fields | more)


def decoded(stream: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(event.removeprefix(b"data: ")) for event in stream if event != DONE]


def without_marks(value: Any) -> Any:
    """The shape of an answer without what tells that it comes from the cache."""
    value = copy.deepcopy(value)
    usage = value.get("usage")
    if usage is not None:
        assert usage.pop("response_cached", "boolean") == "boolean"
        usage.pop("prompt_tokens_details", None)
    return value


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_body_has_the_engines_shape(kind: str) -> None:
    body = shape(json.loads(json_body(stored(kind), **NAMED)))
    assert without_marks(body) == without_marks(RECORDING[kind]["body"])


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_stream_has_the_engines_shape(kind: str, usage: bool) -> None:
    stream = b"".join(paced(stored(kind), include_usage=usage, **NAMED)).decode()
    expected = RECORDING[f"{kind} stream with usage" if usage else f"{kind} stream"]["events"]
    shapes = stream_shape(stream)
    assert [without_marks(one) if isinstance(one, dict) else one for one in shapes] == [
        without_marks(one) if isinstance(one, dict) else one for one in expected
    ]


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_fields_come_in_the_engines_order(kind: str) -> None:
    body = json.loads(json_body(stored(kind), **NAMED))
    assert list(body)[:7] == ["id", "object", "created", "model", "choices", "service_tier", "system_fingerprint"]
    assert list(body["usage"])[:3] == ["prompt_tokens", "total_tokens", "completion_tokens"]


@pytest.mark.parametrize(("kind", "name"), [("chat", "chatcmpl-r1"), ("completion", "cmpl-r1")])
def test_answers_bear_the_id_and_the_time_of_the_request(kind: str, name: str) -> None:
    stream = decoded(events(stored(kind), include_usage=True, **NAMED))
    assert {(event["id"], event["created"], event["model"]) for event in stream} == {(name, 7, "m")}
    body = json.loads(json_body(stored(kind), **NAMED))
    assert (body["id"], body["created"]) == (name, 7)


def test_usage_is_marked_as_cached() -> None:
    usage = json.loads(json_body(stored(), **NAMED))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 4, 7)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 3}
    assert usage["response_cached"] is True
    assert decoded(events(stored(), include_usage=True, **NAMED))[-1]["usage"]["response_cached"] is True


def test_usage_comes_in_a_stream_only_where_it_is_wanted() -> None:
    assert not any("usage" in event for event in decoded(events(stored(), include_usage=False, **NAMED)))


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_comes_before_the_text_under_its_own_name(field: str) -> None:
    answer = stored(reasoning="Hm.", reasoning_field=field)
    deltas = [event["choices"][0]["delta"] for event in decoded(events(answer, include_usage=False, **NAMED))]
    assert deltas == [{"role": "assistant", "content": ""}, {field: "Hm."}, {"content": answer.text}, {"content": ""}]
    assert json.loads(json_body(answer, **NAMED))["choices"][0]["message"][field] == "Hm."


@pytest.mark.parametrize("answer", [stored(), stored(text=""), stored(reasoning="Hm.", stop_reason="END")], ids=str)
def test_the_official_client_reads_chats(answer: StoredAnswer) -> None:
    whole = ChatCompletion.model_validate_json(json_body(answer, **NAMED), strict=True)
    assert whole.choices[0].message.content == answer.text
    assert whole.usage is not None
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 3
    stream = events(answer, include_usage=True, **NAMED)
    chunks = [ChatCompletionChunk.model_validate(event, strict=True) for event in decoded(stream)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer.text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_the_official_client_reads_completions() -> None:
    answer = stored("completion", finish_reason="length")
    whole = Completion.model_validate_json(json_body(answer, **NAMED), strict=True)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (answer.text, "length")
    for event in decoded(events(answer, include_usage=False, **NAMED))[-1:]:
        assert Completion.model_validate(event).choices[0].finish_reason == "length"


@pytest.mark.parametrize("letter", ["x", "\x00", "🙂", "日"])
def test_no_event_is_longer_than_a_clients_line_may_be(letter: str) -> None:
    answer = stored(text=letter * (3 * MAX_PIECE + 1))
    stream = events(answer, include_usage=True, **NAMED)
    assert max(map(len, stream)) < 64 * 1024
    assert "".join(e["choices"][0]["delta"]["content"] for e in decoded(stream) if e["choices"]) == answer.text


def test_paced_events_end_where_words_do() -> None:
    answer = stored(text="one two  three\nfour 日本日本", output_tokens=6)
    texts = [event["choices"][0]["delta"]["content"] for event in decoded(paced(answer, include_usage=False, **NAMED))]
    assert texts == ["", "one ", "two  ", "three\n", "four ", "日本日本", ""]


def test_the_number_of_paced_pieces_can_be_chosen() -> None:
    answer = stored(text="word " * 1000, output_tokens=1000)
    assert 8 <= len(paced(answer, include_usage=False, pieces=10, **NAMED)) - 3 <= 12


def test_white_space_without_end_is_cut_too() -> None:
    answer = stored(text=" " * (2 * MAX_PIECE + 5), output_tokens=1)
    texts = [e["choices"][0]["delta"]["content"] for e in decoded(paced(answer, include_usage=False, **NAMED))]
    assert [len(text) for text in texts] == [0, MAX_PIECE, MAX_PIECE, 5, 0]
