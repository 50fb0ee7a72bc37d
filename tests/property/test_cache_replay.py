"""Laws of replay: whatever the answer, stream and body say the same, and reading them gives the answer again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inferdock.cache.entry import StoredAnswer
from inferdock.cache.follow import Skipping
from inferdock.cache.recorder import StreamRecorder, record_body
from inferdock.cache.replay import DONE, events, json_body, paced
from inferdock.wire.sse import EventSplitter

LETTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from(
    '🙂👩‍👩‍👧\u2028\u2029\x00\x1f\x7f\r\n\t"\\ 日é\u0301#'
)
TEXTS = st.text(LETTERS, max_size=60) | st.text(st.sampled_from("ab \n🙂"), max_size=400)
COUNTS = st.integers(0, 2**53)
NAMED: dict[str, Any] = {"request_id": b"r1", "created": 7}


@st.composite
def answers(draw: st.DrawFn) -> StoredAnswer:
    kind = draw(st.sampled_from(["chat", "completion"]))
    reasoning = draw(st.none() | TEXTS) if kind == "chat" else None
    names = st.sampled_from(["reasoning", "reasoning_content"])
    return StoredAnswer(
        kind=kind,
        model=draw(st.text(LETTERS, max_size=8)),
        text=draw(TEXTS),
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        prompt_tokens=draw(COUNTS),
        output_tokens=draw(st.integers(0, 500)),
        reasoning=reasoning,
        reasoning_field="reasoning" if reasoning is None else draw(names),
        stop_reason=draw(st.none() | st.text(LETTERS, max_size=4) | st.integers(0, 2**31)),
        system_fingerprint=draw(st.none() | st.text(max_size=4)),
    )


def payloads(stream: list[bytes]) -> list[bytes]:
    split = EventSplitter().feed(b"".join(stream))
    assert len(split) == len(stream), "each event is one, whatever characters it holds"
    return split


def said(stream: list[bytes], field: str) -> str:
    choices = [event["choices"] for event in map(json.loads, payloads(stream)[:-1])]
    return "".join([(c[0].get("delta", c[0])).get(field) or "" for c in choices if c])


@settings(max_examples=300, deadline=None)
@given(answers(), st.integers(1, 40))
def test_stream_body_and_entry_say_the_same(answer: StoredAnswer, pieces: int) -> None:
    body = json.loads(json_body(answer, **NAMED))["choices"][0]
    chat = answer.kind == "chat"
    assert (body["message"]["content"] if chat else body["text"]) == answer.text
    for usage in (True, False):
        streams = [events(answer, include_usage=usage, **NAMED), paced(answer, include_usage=usage, **NAMED)]
        streams.append(paced(answer, include_usage=usage, pieces=pieces, **NAMED))
        for stream in streams:
            assert said(stream, "content" if chat else "text") == answer.text
            assert said(stream, answer.reasoning_field) == (answer.reasoning or "")
            assert stream[-1] == DONE


@settings(max_examples=300, deadline=None)
@given(answers(), st.integers(1, 300))
def test_what_is_replayed_is_recorded_as_it_was(answer: StoredAnswer, size: int) -> None:
    assert record_body(answer.kind, json_body(answer, **NAMED)) == answer
    for stream in (events(answer, include_usage=True, **NAMED), paced(answer, include_usage=True, **NAMED)):
        recorder = StreamRecorder(answer.kind)
        whole = b"".join(stream)
        for start in range(0, len(whole), size):
            recorder.feed(whole[start : start + size])
        assert recorder.answer() == answer


@settings(max_examples=150, deadline=None)
@given(answers().filter(lambda answer: answer.kind == "chat"))
def test_the_official_client_accepts_both(answer: StoredAnswer) -> None:
    whole = ChatCompletion.model_validate_json(json_body(answer, **NAMED))
    assert whole.choices[0].message.content == answer.text
    stream = payloads(events(answer, include_usage=True, **NAMED))[:-1]
    chunks = [ChatCompletionChunk.model_validate_json(event) for event in stream]
    assert "".join([c.choices[0].delta.content or "" for c in chunks if c.choices]) == answer.text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == answer.output_tokens


@settings(max_examples=200, deadline=None)
@given(answers(), st.integers(0, 60))
def test_a_client_that_goes_on_elsewhere_reads_the_whole_answer(answer: StoredAnswer, cut: int) -> None:
    """It has the first events of one generation; a second one, cut into other pieces, gives it the rest."""
    first = payloads(paced(answer, include_usage=True, request_id=b"one", created=1))
    has = first[: min(cut, len(first) - 3)]
    recorder = StreamRecorder(answer.kind)
    for payload in has:
        recorder.take(payload)
    name = {"chat": "content", "completion": "text"}[answer.kind]
    skipping = Skipping(answer.kind, first=has[0] if has else b"", text=recorder.text, reasoning=recorder.reasoning)
    rest = [skipping.take(event) for event in payloads(events(answer, include_usage=True, **NAMED))]
    got = [b"data: " + payload + b"\n\n" for payload in [*has, *rest] if payload]
    assert said(got, name) == answer.text
    assert said(got, answer.reasoning_field) == (answer.reasoning or "")
    assert len({json.loads(payload)["id"] for payload in payloads(got)[:-1]}) == 1


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["chat", "completion"]))
def test_hostile_bytes_are_never_recorded_and_never_raise(data: bytes, kind: Any) -> None:
    recorder = StreamRecorder(kind)
    recorder.feed(data)
    recorder.feed(b"data: " + data + b"\n\ndata: [DONE]\n\n")
    assert recorder.answer() is None
    assert record_body(kind, data) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=500, deadline=None)
@given(answers(), st.data())
def test_an_answer_with_one_thing_changed_is_recorded_as_it_is_or_not_at_all(answer: StoredAnswer, data: Any) -> None:
    """A value somewhere in the body becomes any other: never an exception, and what is stored is what was sent."""
    body = json.loads(json_body(answer, **NAMED))
    places = [body, body["choices"][0], body["choices"][0].get("message", body), body["usage"]]
    place = data.draw(st.sampled_from(places))
    name = data.draw(st.sampled_from(sorted(place)))
    place[name] = data.draw(JSON)
    recorded = record_body(answer.kind, json.dumps(body).encode())
    if recorded is not None and answer.kind == "chat":
        message = body["choices"][0]["message"]
        assert recorded.text == (message["content"] or "")
        assert body["choices"][0]["finish_reason"] in ("stop", "length")
        assert not message.get("refusal")
