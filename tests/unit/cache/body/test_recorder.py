"""What becomes of a replica's answer: an entry, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferdock.cache.entry import StoredAnswer
from inferdock.cache.recorder import StreamRecorder, record_body
from tests.support.engine_stream import Engine

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2}
ROLE = HEAD | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
LAST = HEAD | {"choices": [], "usage": USAGE, "system_fingerprint": "fp"}


def delta(content: object = "Hi", finish: str | None = None, **more: object) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": finish, "token_ids": None}
    return HEAD | {"choices": [choice | more]}


def sse(*events: object) -> bytes:
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return b"".join([f"data: {text}\n\n".encode() for text in texts])


def recorded(*events: object, **options: int) -> StoredAnswer | None:
    recorder = StreamRecorder("chat", **options)
    recorder.feed(sse(*events))
    return recorder.answer()


WHOLE = (ROLE, delta("Hi"), delta(" there", "stop", stop_reason=None), LAST, "[DONE]")


def chat_body(message: dict[str, Any] | None = None, choice: dict[str, Any] | None = None, **more: Any) -> bytes:
    said = {"role": "assistant", "content": "Hi there", "refusal": None, "annotations": None, "reasoning": None}
    one = {
        "index": 0,
        "message": said | (message or {}),
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": None,
    }
    body = HEAD | {"object": "chat.completion", "choices": [one | (choice or {})], "usage": USAGE, "prompt_text": None}
    return json.dumps(body | {"system_fingerprint": "fp"} | more).encode()


EXPECTED = StoredAnswer(
    kind="chat",
    model="m",
    text="Hi there",
    finish_reason="stop",
    prompt_tokens=3,
    output_tokens=2,
    system_fingerprint="fp",
)


def test_a_whole_stream_is_recorded() -> None:
    assert recorded(*WHOLE) == EXPECTED


def test_a_whole_body_is_recorded_equally() -> None:
    assert record_body("chat", chat_body()) == EXPECTED


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10_000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_pieces_of_any_size_give_the_same_answer(size: int, line_end: bytes) -> None:
    stream = b": ping\n\n" + sse(*WHOLE)
    stream = stream.replace(b"\n", line_end)
    recorder = StreamRecorder("chat")
    for start in range(0, len(stream), size):
        recorder.feed(stream[start : start + size])
    assert recorder.answer() == EXPECTED


def test_payloads_may_come_split_already() -> None:
    recorder = StreamRecorder("chat")
    for event in WHOLE[:3]:
        recorder.take(json.dumps(event).encode())
    assert (recorder.text, recorder.complete) == ("Hi there", False)
    recorder.take(json.dumps(LAST).encode())
    recorder.take(b"[DONE]")
    assert recorder.complete
    assert recorder.answer() == EXPECTED


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
def test_the_streams_of_an_engine_are_recorded(chat: bool) -> None:
    body = {"prompt": "x", "max_tokens": 400, "stream_options": {"include_usage": True}, "return_token_ids": True}
    path = b"/v1/chat/completions" if chat else b"/v1/completions"
    recorder = StreamRecorder("chat" if chat else "completion")
    text = ""
    for event in Engine([20, 30]).stream(path, json.dumps(body).encode()):
        recorder.feed(event)
        if event != b"data: [DONE]\n\n" and (choices := json.loads(event[6:])["choices"]):
            text += choices[0]["delta"]["content"] if chat else choices[0]["text"]
    answer = recorder.answer()
    assert answer is not None
    assert answer.text == text != ""
    assert answer.prompt_tokens == 2


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_kept_under_its_name(field: str) -> None:
    thought = HEAD | {"choices": [{"index": 0, "delta": {field: "Hm."}, "finish_reason": None}]}
    streamed = recorded(ROLE, thought, thought, *WHOLE[1:])
    assert streamed is not None
    assert (streamed.reasoning, streamed.reasoning_field) == ("Hm.Hm.", field)
    whole = record_body("chat", chat_body({"reasoning": None, field: "Hm."}))
    assert whole is not None
    assert (whole.reasoning, whole.reasoning_field) == ("Hm.", field)


@pytest.mark.parametrize("stop", [None, "END", 7])
def test_the_stop_reason_is_kept(stop: object) -> None:
    answer = recorded(ROLE, delta("Hi", "stop", stop_reason=stop), LAST, "[DONE]")
    assert answer is not None
    assert answer.stop_reason == stop


THOUGHT = HEAD | {"choices": [{"index": 0, "delta": {"reasoning": "Hm."}, "finish_reason": None}]}


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((), id="nothing"),
        pytest.param(WHOLE[:-1], id="no end mark"),
        pytest.param(WHOLE[:2], id="cut"),
        pytest.param((*WHOLE[:3], "[DONE]"), id="no usage"),
        pytest.param((ROLE, delta("Hi"), LAST, "[DONE]"), id="no finish reason"),
        pytest.param((LAST, "[DONE]"), id="no choice"),
        pytest.param((ROLE, delta("Hi", "abort"), LAST, "[DONE]"), id="given up"),
        pytest.param((ROLE, delta("Hi", "tool_calls"), LAST, "[DONE]"), id="ended for a tool"),
        pytest.param((ROLE, delta("Hi", "content_filter"), LAST, "[DONE]"), id="filtered"),
        pytest.param((*WHOLE[:3], {"error": {"message": "no"}}, LAST, "[DONE]"), id="an error"),
        pytest.param((*WHOLE[:3], delta("more"), LAST, "[DONE]"), id="text after the finish reason"),
        pytest.param((*WHOLE, "[DONE]"), id="two end marks"),
        pytest.param((*WHOLE, LAST), id="more after the end mark"),
        pytest.param((ROLE, delta("Hi", index=1), *WHOLE[1:]), id="a second choice"),
        pytest.param((HEAD | {"choices": delta()["choices"] * 2}, *WHOLE[1:]), id="two choices in an event"),
        pytest.param((*WHOLE[:2], delta("Hi", logprobs={"content": []}), *WHOLE[2:]), id="log-probabilities"),
        pytest.param((*WHOLE[:2], delta("Hi", new_field=1), *WHOLE[2:]), id="an unknown field of the choice"),
        pytest.param((*WHOLE[:2], delta("Hi") | {"new_field": 1}, *WHOLE[2:]), id="an unknown field of the event"),
        pytest.param((ROLE, delta("a", delta={"tool_calls": [{}]}), *WHOLE[1:]), id="a tool call"),
        pytest.param((ROLE, delta("a", delta={"refusal": "no"}), *WHOLE[1:]), id="a refusal"),
        pytest.param((ROLE, delta("a", delta={"role": "user"}), *WHOLE[1:]), id="another role"),
        pytest.param((ROLE, delta("a", delta=None), *WHOLE[1:]), id="no delta"),
        pytest.param((ROLE, delta(5), *WHOLE[1:]), id="text that is none"),
        pytest.param((ROLE, delta("Hi", True), LAST, "[DONE]"), id="a finish reason that is none"),
        pytest.param((ROLE, delta("Hi", "stop", stop_reason=[1]), LAST, "[DONE]"), id="a stop reason that is none"),
        pytest.param((*WHOLE[:2], THOUGHT, *WHOLE[2:]), id="reasoning after text"),
        pytest.param((ROLE, delta("", delta={"reasoning": "a", "reasoning_content": "a"}), *WHOLE[1:]), id="two names"),
        pytest.param((ROLE | {"model": "other"}, *WHOLE[1:]), id="two models"),
        pytest.param((ROLE | {"model": None}, *WHOLE[1:]), id="no model"),
        pytest.param((ROLE | {"object": "text_completion"}, *WHOLE[1:]), id="another kind"),
        pytest.param(
            (*WHOLE[:3], LAST | {"usage": {"prompt_tokens": True, "completion_tokens": 1}}, "[DONE]"), id="usage"
        ),
        pytest.param((*WHOLE[:3], LAST | {"usage": 5}, "[DONE]"), id="usage that is none"),
        pytest.param(("{", *WHOLE), id="no JSON"),
        pytest.param(("[]", *WHOLE), id="a list"),
        pytest.param(("[" * 100_000, *WHOLE), id="deep lists"),
        pytest.param(('{"object":"chat.completion.chunk","model":"\\ud800"}', *WHOLE), id="a lone surrogate"),
    ],
)
def test_what_cannot_be_replayed_as_it_was_is_not_recorded(events: tuple[object, ...]) -> None:
    assert recorded(*events) is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[" * 100_000, id="deep lists"),
        pytest.param(chat_body()[:-1], id="cut"),
        pytest.param(b'{"error":{"message":"no"}}', id="an error"),
        pytest.param(chat_body(choices=[]), id="no choice"),
        pytest.param(chat_body(choices=[{}, {}]), id="two choices"),
        pytest.param(chat_body(choices=["x"]), id="a choice that is none"),
        pytest.param(chat_body(usage=None), id="no usage"),
        pytest.param(chat_body(choice={"finish_reason": "tool_calls"}), id="ended for a tool"),
        pytest.param(chat_body(choice={"finish_reason": None}), id="no finish reason"),
        pytest.param(chat_body(choice={"finish_reason": ["stop"]}), id="a finish reason that is none"),
        pytest.param(chat_body({"tool_calls": [{"id": "x"}]}), id="a tool call"),
        pytest.param(chat_body({"refusal": "no"}), id="a refusal"),
        pytest.param(chat_body({"audio": {"id": "x"}}), id="audio"),
        pytest.param(chat_body({"annotations": [{}]}), id="annotations"),
        pytest.param(chat_body({"content": ["x"]}), id="content in parts"),
        pytest.param(chat_body(choice={"message": {"role": "assistant"}}), id="no content"),
        pytest.param(chat_body(choice={"message": {"content": "Hi"}}), id="no role"),
        pytest.param(chat_body(choice={"logprobs": {}, "routed_experts": "x"}), id="experts"),
        pytest.param(chat_body(object="chat.completion.chunk"), id="another kind"),
    ],
)
def test_a_body_that_cannot_be_replayed_as_it_was_is_not_recorded(body: bytes) -> None:
    assert record_body("chat", body) is None


def test_empty_unknown_fields_do_not_bar_an_answer() -> None:
    assert record_body("chat", chat_body({"tool_calls": []}, new_field=None, other={})) == EXPECTED


def test_content_that_is_null_is_an_empty_text() -> None:
    answer = record_body("chat", chat_body({"content": None, "reasoning": "Hm."}))
    assert answer is not None
    assert (answer.text, answer.reasoning) == ("", "Hm.")


@pytest.mark.parametrize(("letters", "fits"), [(100, True), (101, False)])
@pytest.mark.parametrize("letter", ["x", "é", "🙂"])
def test_answers_are_bounded_in_bytes(letter: str, letters: int, fits: bool) -> None:
    limit = 100 * len(letter.encode())
    text = letter * letters
    streamed = recorded(ROLE, delta(text, "stop"), LAST, "[DONE]", max_bytes=limit)
    assert (streamed is not None) is fits
    assert (record_body("chat", chat_body({"content": text}), max_bytes=limit) is not None) is fits


def test_a_stream_that_is_too_large_holds_no_memory() -> None:
    recorder = StreamRecorder("chat", max_bytes=1000)
    recorder.feed(sse(ROLE, *[delta("x" * 100)] * 20))
    assert recorder.unfit == "too large"
    assert recorder.text == ""


def test_an_event_without_end_is_given_up() -> None:
    recorder = StreamRecorder("chat", max_bytes=1000)
    for _ in range(200):
        recorder.feed(b"data: " + b"x" * 1000)
    assert recorder.unfit
