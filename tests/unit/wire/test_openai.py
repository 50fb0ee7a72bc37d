"""Reading the few fields of a request, and usage from an answer's bytes."""

import json

import pytest

from inferdock.domain.errors import RequestError
from inferdock.wire.openai import USAGE_WISH, Usage, error_body, find_usage, read_fields, with_wishes


def test_unknown_fields_do_not_matter():
    fields = read_fields(b'{"model":"m","stream":true,"new_thing":{"a":[1,2]}}')
    assert (fields.model, fields.stream) == ("m", True)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(b"hello", None, id="not JSON"),
        pytest.param(b"[1]", None, id="not an object"),
        pytest.param(b'{"model":1}', "model", id="model is a number"),
        pytest.param(b'{"stream":"yes"}', "stream", id="stream is a string"),
        pytest.param(b'{"model":"m"', None, id="cut"),
        pytest.param(b'{"model":"\xff"}', None, id="not UTF-8"),
        pytest.param(b"[" * 100_000, None, id="deep nesting"),
        pytest.param(b'{"a":' + b"[" * 100_000, None, id="deep nesting in an unknown field"),
    ],
)
def test_bad_bodies_are_the_clients_fault(body, param):
    with pytest.raises(RequestError) as caught:
        read_fields(body)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_the_wish_for_usage_leaves_the_rest_as_it_was():
    body = b' {"model":"m","stream":true}'
    assert json.loads(with_wishes(body, USAGE_WISH)) == {**json.loads(body), "stream_options": {"include_usage": True}}


def test_usage_is_found_in_raw_bytes():
    body = b'{"choices":[],"usage":{"prompt_tokens":10,"total_tokens":15,"completion_tokens":5}}'
    assert find_usage(body) == Usage(10, 5)


DETAILS = {
    "whole": (b'{"cached_tokens":384,"created_cache_tokens":0,"multimodal_tokens":null}', 384),
    "stream": (b'{"cached_tokens":384}', 384),
    "none-cached": (b'{"cached_tokens":0,"created_cache_tokens":384,"multimodal_tokens":null}', 0),
    "off": (b"null", None),
    "another-engine": (b'{"audio_tokens": 0, "cached_tokens": 7}', 7),
    "not-said": (b'{"audio_tokens":0}', None),
}
"""As vLLM 0.32 was seen to write them with ``--enable-prompt-tokens-details``, and others."""


@pytest.mark.parametrize(("details", "cached"), DETAILS.values(), ids=DETAILS)
@pytest.mark.parametrize("space", [b"", b" "], ids=["usual", "spaced"])
def test_cached_tokens_are_found_where_the_engine_says_them(details, cached, space):
    counts = b'"prompt_tokens":405,"total_tokens":409,"completion_tokens":4,"prompt_tokens_details":%b%b' % (
        space,
        details,
    )
    body = b'{"choices":[],"usage":%b{%b,"completion_tokens_details":null},"metrics":null}' % (space, counts)
    assert find_usage(body) == Usage(405, 4, cached)


def test_text_that_looks_like_usage_is_not_usage():
    text = json.dumps({"content": '"usage":{"prompt_tokens":999,"completion_tokens":999}'}).encode()
    assert find_usage(text) is None


def test_usage_that_is_null_is_none():
    assert find_usage(b'{"choices":[],"usage":null}') is None


def test_errors_have_the_form_that_openai_clients_read():
    error = RequestError(404, "No such model.", code="model_not_found", param="model")
    assert json.loads(error_body(error)) == {
        "error": {
            "message": "No such model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
