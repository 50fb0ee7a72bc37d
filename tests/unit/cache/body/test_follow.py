"""A second generation for a client that has part of the first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferdock.cache.entry import StoredAnswer
from inferdock.cache.follow import Differs, Skipping
from inferdock.cache.replay import paced

ANSWER = StoredAnswer(
    kind="chat", model="m", text="one two three four", finish_reason="stop", prompt_tokens=1, output_tokens=4
)
FIRST = b'{"id":"chatcmpl-first","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}'


def second(answer: StoredAnswer = ANSWER) -> list[bytes]:
    stream = paced(answer, request_id=b"second", created=2, include_usage=True)
    return [event.removeprefix(b"data: ").strip() for event in stream]


def follow(skipping: Skipping, payloads: list[bytes]) -> list[Any]:
    taken = [skipping.take(payload) for payload in payloads]
    return [payload if payload == b"[DONE]" else json.loads(payload) for payload in taken if payload]


def said(events: list[Any], field: str = "content") -> str:
    return "".join(e["choices"][0]["delta"].get(field) or "" for e in events if e != b"[DONE]" and e["choices"])


@pytest.mark.parametrize("known", ["", "o", "one ", "one two th", "one two three four"])
def test_the_client_gets_what_it_lacks(known: str) -> None:
    events = follow(Skipping("chat", first=FIRST, text=known), second())
    assert known + said(events) == ANSWER.text
    assert events[-1] == b"[DONE]"
    assert {(e["id"], e["created"]) for e in events[:-1]} == {("chatcmpl-first", 1)}
    assert sum(e["choices"] != [] and e["choices"][0]["finish_reason"] == "stop" for e in events[:-1]) == 1
    assert not any("role" in e["choices"][0]["delta"] for e in events[:-1] if e["choices"])


def test_a_client_that_has_nothing_gets_all_as_it_is() -> None:
    skipping = Skipping("chat", first=b"", text="")
    assert [skipping.take(payload) for payload in second()] == second()


@pytest.mark.parametrize("known", ["", "H", "Hm"])
def test_reasoning_is_skipped_too(known: str) -> None:
    answer = StoredAnswer(**{name: getattr(ANSWER, name) for name in ANSWER.__struct_fields__} | {"reasoning": "Hm hm"})
    events = follow(Skipping("chat", first=FIRST, text="", reasoning=known), second(answer))
    assert (known + said(events, "reasoning"), said(events)) == ("Hm hm", ANSWER.text)


def test_completions_are_followed() -> None:
    answer = StoredAnswer(**{name: getattr(ANSWER, name) for name in ANSWER.__struct_fields__} | {"kind": "completion"})
    events = follow(Skipping("completion", first=FIRST, text="one t"), second(answer))
    assert "".join(e["choices"][0]["text"] for e in events[:-1] if e["choices"]) == "wo three four"


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [("One", ""), ("one two three four five", ""), ("one", "Hm"), ("two", "")],
    ids=["other words", "shorter", "no reasoning", "begins later"],
)
def test_another_answer_is_told(text: str, reasoning: str) -> None:
    skipping = Skipping("chat", first=FIRST, text=text, reasoning=reasoning)
    with pytest.raises(Differs):
        follow(skipping, second())


def test_an_end_before_the_place_of_the_client_is_told() -> None:
    with pytest.raises(Differs):
        Skipping("chat", first=FIRST, text="one").take(b"[DONE]")


def test_errors_are_handed_on() -> None:
    error = b'{"error":{"message":"no"}}'
    assert Skipping("chat", first=FIRST, text="one").take(error) == error


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"choices":[1]}',
        b'{"choices":5}',
        b'{"choices":[{"delta":1}]}',
        b'{"choices":[{"delta":{"content":5}}]}',
    ],
    ids=repr,
)
def test_what_cannot_be_read_is_told(payload: bytes) -> None:
    with pytest.raises(Differs):
        Skipping("chat", first=FIRST, text="one").take(payload)


@pytest.mark.parametrize("first", [b"{", b"5"])
def test_a_first_event_that_cannot_be_read_is_told(first: bytes) -> None:
    with pytest.raises(Differs):
        Skipping("chat", first=first, text="")
