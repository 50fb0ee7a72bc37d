"""The canonical form of a request."""

from __future__ import annotations

import json
import time

import pytest

from inferdock.cache.canonical import Refusal, read
from tests.unit.cache.body.requests import CHAT, COMPLETION, canonical, chat_fields, completion_fields, read_any


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(b'{"a":1,"b":{"c":2,"d":3}}', b'{ "b" : {"d":3,\n"c":2}, "a":1}', id="order and white space"),
        pytest.param(b'{"temperature":0}', b'{"temperature":0.0}', id="0 and 0.0"),
        pytest.param(b'{"temperature":0}', b'{"temperature":-0.0}', id="0 and -0.0"),
        pytest.param(b'{"max_tokens":100}', b'{"max_tokens":1e2}', id="an exponent"),
        pytest.param(b'{"logit_bias":{"5":1}}', b'{"logit_bias":{"5":1.0}}', id="biases"),
        pytest.param(b'{"a":"\\u00e9\\/"}', '{"a":"é/"}'.encode(), id="escapes"),
        pytest.param(b'{"a":"\\ud83d\\ude42"}', '{"a":"🙂"}'.encode(), id="a surrogate pair"),
        pytest.param(b'{"a":1,"a":2}', b'{"a":2}', id="the last of repeated keys"),
        pytest.param(b'{"a":1,"stream":true,"stream_options":{"include_usage":true}}', b'{"a":1}', id="the form"),
        pytest.param(b'{"a":1,"priority":3,"request_id":"x"}', b'{"a":1}', id="what only the queue sees"),
        pytest.param(
            b'{"a":1,"cache":{"ttl":3},"no_cache":true,"no_store":true,"max_age":1}', b'{"a":1}', id="aliases"
        ),
    ],
)
def test_what_says_the_same_has_the_same_form(one: bytes, other: bytes) -> None:
    assert canonical(one).exact == canonical(other).exact


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(b'{"a":0}', b'{"a":false}', id="0 and false"),
        pytest.param(b'{"a":1}', b'{"a":"1"}', id="a number and its text"),
        pytest.param(b'{"a":null}', b"{}", id="null and nothing"),
        pytest.param(b'{"a":9007199254740993}', b'{"a":9007199254740992}', id="large integers"),
        pytest.param(
            b'{"chat_template_kwargs":{"x":1}}', b'{"chat_template_kwargs":{"x":1.0}}', id="template arguments"
        ),
        pytest.param(b'{"user":"a"}', b'{"user":"b"}', id="a field that is rarely looked at"),
        pytest.param(b'{"a":"\\u00e9"}', b'{"a":"e\\u0301"}', id="composed and decomposed letters"),
        pytest.param(b'{"stop":["a","b"]}', b'{"stop":["b","a"]}', id="order in lists"),
    ],
)
def test_what_may_be_answered_otherwise_has_another_form(one: bytes, other: bytes) -> None:
    assert canonical(one).exact != canonical(other).exact


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param(chat_fields("Hi"), "Hi", id="a string"),
        pytest.param(chat_fields([{"type": "text", "text": "Hi"}]), "Hi", id="one part"),
        pytest.param(completion_fields("Hi"), "Hi", id="a prompt"),
        pytest.param(
            chat_fields([{"type": "text", "text": "Hi"}, {"type": "text", "text": "Ho"}]), None, id="two parts"
        ),
        pytest.param(chat_fields(["Hi"]), None, id="a bare part"),
        pytest.param(chat_fields([{"type": "image_url", "image_url": {"url": "x"}}]), None, id="an image"),
        pytest.param(chat_fields(" \n"), None, id="blank"),
        pytest.param(chat_fields(""), None, id="empty"),
        pytest.param(chat_fields(None), None, id="null"),
        pytest.param({"messages": [{"role": "assistant", "content": "Hi"}]}, None, id="the model's own message"),
        pytest.param({"messages": []}, None, id="no message"),
        pytest.param({"messages": "Hi"}, None, id="messages that are none"),
        pytest.param({"messages": ["Hi"]}, None, id="a message that is none"),
        pytest.param({"prompt": [1, 2, 3]}, None, id="tokens"),
        pytest.param({"prompt": ["Hi"]}, None, id="a list"),
    ],
)
def test_the_last_user_text_is_found_where_there_is_a_single_one(fields: object, text: str | None) -> None:
    request = canonical(fields)
    assert request.text == text
    assert (request.rest is None) is (text is None)


def test_the_rest_says_nothing_of_the_text_and_all_of_the_others() -> None:
    history = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "second"}]
    request = canonical({"messages": [*history, {"role": "user", "content": "third"}]})
    assert request.rest is not None
    assert json.loads(request.rest.replace(b"#", b"0"))["messages"] == [*history, {"role": "user", "content": 0}]
    assert b"third" in request.exact


def test_the_decoded_body_keeps_its_text() -> None:
    request = canonical(chat_fields("Hi", stream=True))
    assert request.body["messages"][-1]["content"] == "Hi"
    assert request.body["stream"] is True


@pytest.mark.parametrize("value", ["#", '"#"', '#",', 0, None, "\x00", [], {"type": "text"}])
def test_a_body_with_the_placeholder_in_it_equals_no_rest(value: object) -> None:
    forged = canonical(chat_fields(value))
    honest = canonical(chat_fields("Hi"))
    assert honest.rest not in (forged.exact, None)
    assert forged.text is None or forged.rest == honest.rest  # a string is just another text


def test_the_form_of_the_answer_is_told() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    request = canonical(chat_fields(stream=True, stream_options=options, request_id="mine", max_tokens=5.0))
    assert (request.stream, request.include_usage, request.continuous_usage) == (True, True, True)
    assert (request.request_id, request.max_tokens, request.messages, request.aliased) == ("mine", 5, 1, False)


def test_the_newer_name_of_the_token_limit_wins() -> None:
    assert canonical(chat_fields(max_tokens=5, max_completion_tokens=7)).max_tokens == 7


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"a":1} x', id="more after it"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="infinity"),
        pytest.param(b'{"a":1e999}', id="a float out of range"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="a huge integer"),
        pytest.param(b'{"a":"\\ud800"}', id="a lone surrogate"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(b'{"a":"\xff"}', id="no UTF-8"),
        pytest.param(b'{"a":"\x00"}', id="a raw control character"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", id="deep lists"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="deep objects"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert read(body, CHAT) == Refusal("json")


@pytest.mark.parametrize(
    "more",
    [
        {"stream": "yes"},
        {"stream": 1},
        {"stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": []},
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        {"stream": True, "stream_options": {"unheard": True}},
        {"priority": "high"},
        {"request_id": 5},
    ],
)
def test_an_error_in_what_is_left_out_of_the_key_is_left_to_the_engine(more: dict[str, object]) -> None:
    assert read_any(chat_fields(**more)) == Refusal("fields")


@pytest.mark.parametrize("path", [b"/v1/embeddings", b"/v1/chat/completions/", b""])
def test_other_routes_are_refused(path: bytes) -> None:
    assert read(b"{}", path) == Refusal("path")


def test_the_routes_tell_the_kind() -> None:
    assert canonical({"prompt": "x", "messages": []}, COMPLETION).kind == "completion"
    assert canonical({"prompt": "x", "messages": []}, CHAT).kind == "chat"


def test_no_text_gets_into_logs() -> None:
    assert "secret" not in repr(canonical(chat_fields("a secret")))


def test_a_megabyte_is_read_in_a_moment() -> None:
    body = json.dumps(chat_fields("\x01word " * 200_000)).encode()
    start = time.perf_counter()
    assert canonical(body).text is not None
    assert time.perf_counter() - start < 2
