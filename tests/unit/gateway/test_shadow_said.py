"""Reading answers from their bytes, and saying how two of them differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from inferdock.gateway.shadow.said import Said, difference


@dataclass
class Answer:
    """One side of a comparison."""

    said: Said
    status: int = 200


def chat(text: str | None = None, *, status: int = 200, **message: Any) -> Answer:
    body = {"choices": [{"index": 0, "message": {"content": text, **message}, "finish_reason": "stop"}]}
    return read(json.dumps(body).encode(), status=status)


def read(body: bytes, *, stream: bool = False, status: int = 200) -> Answer:
    said = Said(stream=stream)
    said.feed(body)
    said.end()
    return Answer(said, status)


def stream(*deltas: dict[str, Any], finish: str | None = "stop", piece: int = 7) -> Answer:
    events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    data = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
    said = Said(stream=True)
    for start in range(0, len(data), piece):
        said.feed(data[start : start + piece])
    said.end()
    return Answer(said)


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"id": "x", "type": "function", "function": {"name": name, "arguments": arguments}}]}


LONG = "The capital of France is Paris, a city on the Seine."
PAIRS = {
    "the same": (chat("yes"), chat("yes"), "equal"),
    "another word": (chat("It is red."), chat("It is blue"), "text"),
    "a word less": (chat(LONG), chat(LONG[:-6]), "length"),
    "much shorter": (chat(LONG), chat("Rome it is."), "length"),
    "nothing at all": (chat(LONG), chat(""), "length"),
    "a refusal": (chat(LONG), chat("I'm sorry, but I can't tell you that, whatever you say."), "refusal"),
    "a refusal by its field": (chat("text"), chat("text", refusal="no"), "refusal"),
    "both refuse alike": (chat("I cannot."), chat("I cannot."), "equal"),
    "another tool": (chat(**call("a", "{}")), chat(**call("b", "{}")), "tool_call"),
    "other arguments": (chat(**call("a", '{"x": 1}')), chat(**call("a", '{"x": 2}')), "tool_call"),
    "arguments spelt otherwise": (chat(**call("a", '{"x":1,"y":2}')), chat(**call("a", '{ "y": 2, "x": 1 }')), "equal"),
    "a tool instead of a text": (chat(LONG), chat(**call("a", "{}")), "tool_call"),
    "another thought": (chat("4", reasoning="two and two"), chat("4", reasoning="one and three"), "text"),
    "refused by the engine": (chat("x"), chat(status=400), "status"),
    "allowed by the engine": (chat(status=404), chat("x"), "status"),
    "both refused": (chat(status=400), chat(status=422), "not_compared"),
    "no JSON": (chat("x"), read(b"<html>"), "unreadable"),
    "not UTF-8": (chat("x"), read(b'{"choices": [{"message": {"content": "\xff"}}]}'), "unreadable"),
    "deep": (chat("x"), read(b'{"choices": ' + b"[" * 100_000), "unreadable"),
    "no choices": (chat("x"), read(b"{}"), "unreadable"),
    "an error": (chat("x"), read(b'{"error": {"message": "no"}}'), "unreadable"),
    "a client's answer that is no JSON": (read(b"<html>"), chat("x"), "not_compared"),
    "a stream and a whole answer": (stream({"content": "y"}, {"content": "es"}), chat("yes"), "equal"),
    "streamed arguments": (
        stream(
            {"tool_calls": [{"index": 0, "function": {"name": "a", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        ),
        chat(**call("a", '{"x": 1}')),
        "equal",
    ),
    "a stream without its end": (chat("yes"), stream({"content": "yes"}, finish=None), "unreadable"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_difference_has_one_kind(case: str) -> None:
    client, copy, kind = PAIRS[case]
    assert difference(client, copy, comparable=True) == kind


def test_sampled_answers_are_compared_by_status_alone() -> None:
    assert difference(chat("a"), chat("b"), comparable=False) == "not_compared"
    assert difference(chat("a"), chat(status=400), comparable=False) == "status"


def test_of_several_choices_the_gravest_difference_counts() -> None:
    def two(first: str, second: str) -> Answer:
        choices = [{"index": n, "text": text, "finish_reason": "stop"} for n, text in enumerate((first, second))]
        return read(json.dumps({"choices": choices}).encode())

    assert difference(two("a", LONG), two("b", LONG[:20]), comparable=True) == "length"
    assert difference(two("a", "b"), two("a", "b"), comparable=True) == "equal"
    assert difference(two("a", "b"), chat("a"), comparable=True) == "length"


def test_an_error_in_the_middle_of_a_stream_is_a_problem() -> None:
    answer = read(b'data: {"choices":[{"text":"a"}]}\n\ndata: {"error":{"message":"gone"}}\n\n', stream=True)
    assert answer.said.problem
