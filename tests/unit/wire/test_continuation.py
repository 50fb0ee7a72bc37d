"""Which streams can be resumed in which way, and what is asked of the other replica."""

from __future__ import annotations

import json

import pytest

from inferdock.wire.continuation import NotResumable, ResumeMode, continuation, resume_mode, stops_of
from inferdock.wire.openai import read_fields
from inferdock.wire.stream_tracker import StreamTracker

CHAT, COMPLETION = b"/v1/chat/completions", b"/v1/completions"
CONTINUE, REPLAY, NONE = ResumeMode.CONTINUE, ResumeMode.REPLAY, ResumeMode.NONE


@pytest.mark.parametrize(
    ("more", "mode"),
    [
        ({}, CONTINUE),
        ({"temperature": 0}, CONTINUE),
        ({"temperature": 0.7}, CONTINUE),
        ({"temperature": 0, "seed": 3}, CONTINUE),
        ({"seed": 3}, REPLAY),
        ({"seed": 3, "temperature": 0.7}, REPLAY),
        ({"n": 1, "logprobs": False, "tools": [], "echo": None, "response_format": None}, CONTINUE),
        ({"n": 2}, NONE),
        ({"best_of": 2}, NONE),
        ({"logprobs": True}, NONE),
        ({"prompt_logprobs": 1}, NONE),
        ({"echo": True}, NONE),
        ({"tools": [{"type": "function"}]}, NONE),
        ({"tools": [{"type": "function"}], "tool_choice": "none"}, CONTINUE),
        ({"functions": [{"name": "f"}]}, NONE),
        ({"use_beam_search": True}, NONE),
        ({"suffix": "end"}, NONE),
        ({"kv_transfer_params": {"a": 1}}, NONE),
        ({"response_format": {"type": "text"}}, CONTINUE),
        ({"response_format": {"type": "json_object"}}, NONE),
        ({"response_format": {"type": "json_object"}, "temperature": 0}, REPLAY),
        ({"structured_outputs": {"regex": "a"}, "seed": 1}, REPLAY),
        ({"guided_json": {}}, NONE),
        ({"presence_penalty": 0, "frequency_penalty": 0.0}, CONTINUE),
        ({"presence_penalty": 0.5}, NONE),
        ({"frequency_penalty": 0.5, "temperature": 0}, REPLAY),
        ({"repetition_penalty": 1.2}, CONTINUE),
        ({"bad_words": []}, CONTINUE),
        ({"bad_words": ["two words"]}, NONE),
        ({"bad_words": ["two words"], "temperature": 0}, REPLAY),
    ],
    ids=str,
)
def test_how_a_request_can_be_resumed(more, mode):
    body = json.dumps({"model": "m", "messages": [], "stream": True} | more).encode()
    assert resume_mode(read_fields(body), CHAT) is mode


@pytest.mark.parametrize(
    ("prompt", "mode"),
    [("text", CONTINUE), ([1, 2], CONTINUE), (["one"], NONE), (["one", "two"], NONE), ([[1], [2]], NONE)],
)
def test_only_one_prompt_can_be_resumed(prompt, mode):
    body = json.dumps({"model": "m", "prompt": prompt, "stream": True}).encode()
    assert resume_mode(read_fields(body), COMPLETION) is mode


def tracker(count: int = 3) -> StreamTracker:
    made = StreamTracker()
    made.prompt_ids = b"1,2"
    for token in range(10, 10 + count):
        made.append(b"%d" % token)
    made.flush()
    return made


def asked(body: dict, *, path: bytes = CHAT, count: int = 3, length: int | None = 100) -> dict:
    return json.loads(continuation(tracker(count), json.dumps(body).encode(), path, length).body)


def test_the_prompt_is_the_ids_of_prompt_and_answer_so_far():
    request = asked({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 20})
    assert request["prompt"] == [1, 2, 10, 11, 12]
    assert request["max_tokens"] == 17
    assert request["stream"]
    assert request["return_token_ids"]
    assert "messages" not in request


def test_sampling_stays_and_what_shaped_the_prompt_goes():
    sampling = {"temperature": 0.5, "top_p": 0.9, "stop_token_ids": [7], "logit_bias": {"1": 2}, "ignore_eos": True}
    shaping = {"tools": [], "chat_template_kwargs": {"a": 1}, "add_generation_prompt": True, "n": 1}
    request = asked({"model": "m", "messages": [], "max_tokens": 9} | sampling | shaping)
    assert {name: request[name] for name in sampling} == sampling
    assert not set(shaping) & set(request)


@pytest.mark.parametrize(
    ("body", "path", "left"),
    [
        ({"max_tokens": 20}, CHAT, 17),
        ({"max_completion_tokens": 20, "max_tokens": 50}, CHAT, 17),
        ({}, CHAT, 95),
        ({"max_tokens": 1000}, CHAT, 95),
        ({}, COMPLETION, 13),
    ],
    ids=str,
)
def test_what_is_left_of_the_length(body, path, left):
    assert asked({"model": "m"} | body, path=path)["max_tokens"] == left


def test_an_answer_at_its_limit_only_lacks_its_end():
    body = json.dumps({"model": "m", "max_tokens": 3}).encode()
    assert continuation(tracker(3), body, CHAT, None).ended


def test_min_tokens_shrinks_and_vanishes():
    assert asked({"model": "m", "max_tokens": 20, "min_tokens": 10})["min_tokens"] == 7
    assert "min_tokens" not in asked({"model": "m", "max_tokens": 20, "min_tokens": 2})


def test_pictures_cannot_be_continued():
    parts = [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    with pytest.raises(NotResumable, match="images"):
        asked({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": parts}]})


def test_without_any_limit_nothing_is_guessed():
    with pytest.raises(NotResumable, match="how long"):
        asked({"model": "m", "messages": []}, length=None)


def test_without_ids_nothing_is_continued():
    with pytest.raises(NotResumable, match="no token ids"):
        continuation(StreamTracker(), b'{"model":"m"}', CHAT, 100)


@pytest.mark.parametrize(
    ("stop", "texts"), [("a", ["a"]), (["a", "b"], ["a", "b"]), (None, []), ([], []), ([1, ""], [])], ids=str
)
def test_stop_strings_are_read(stop, texts):
    assert stops_of(json.dumps({"stop": stop}).encode()).texts == texts


def event(choice: dict, **more: object) -> bytes:
    whole = {"id": "1", "choices": [{"index": 0, "finish_reason": None} | choice]} | more
    return b"data: " + json.dumps(whole, separators=(",", ":")).encode() + b"\n\n"


ROLE = event({"delta": {"role": "assistant", "content": ""}}, prompt_token_ids=[1, 2])
LOST = {
    "an engine that gives no ids": event({"delta": {"content": "a"}, "token_ids": None}),
    "ids that are missing": event({"delta": {"content": "a"}}),
    "reasoning": event({"delta": {"reasoning": "a"}, "token_ids": [3]}),
    "a tool call": event({"delta": {"tool_calls": [{"index": 0}]}, "token_ids": [3]}),
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_a_stream_that_shows_what_cannot_be_continued_is_lost_but_handed_on(lost):
    made = StreamTracker(hide_ids=False)
    assert made.feed(ROLE + lost) == ROLE + lost
    assert made.lost
    assert not made.broken


BROKEN = {
    "abort": event({"delta": {"content": ""}, "finish_reason": "abort", "token_ids": []}),
    "error": b'data: {"error":{"message":"EngineCore died","code":500}}\n\n',
    "no JSON": b"data: {half\n\n",
}


def test_an_error_that_is_the_requests_fault_is_the_clients_to_see():
    made = StreamTracker()
    refusal = b'data: {"error":{"message":"too long","type":"BadRequestError","code":400}}\n\n'
    assert made.feed(refusal) == refusal
    assert not made.broken


def test_after_a_stream_is_lost_errors_go_on_as_they_come():
    made = StreamTracker()
    made.feed(ROLE + LOST["ids that are missing"])
    assert made.feed(BROKEN["error"]) == BROKEN["error"]
    assert not made.broken


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_replica_that_gives_up_is_not_passed_on_to_the_client(broken):
    made = StreamTracker()
    made.feed(ROLE)
    assert made.feed(broken + b"data: [DONE]\n\n") == b""
    assert made.broken
    assert not made.done
