"""The official OpenAI client against the platform: real vLLM with the demo model behind the gateway.

By default one platform is started for the whole file; ``--base-url http://host:port/v1`` tests a running one (any
model that chats).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from urllib.parse import urlsplit

import openai
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

HELLO = [{"role": "user", "content": "What is Inferdock?"}]


@pytest.fixture
def client(base_url):
    with openai.OpenAI(base_url=base_url, api_key="not-needed", max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture
def model(client):
    return client.models.list().data[0].id


def raw_request(base_url: str, method: str, path: str, body: bytes | None = None, headers: dict | None = None):
    """(status, headers, body) by the standard library's client, which checks nothing for us."""
    parts = urlsplit(base_url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers or {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


# -- The plan's three ----------------------------------------------------------------------------------------


def test_completions_endpoint(client, model):
    response = client.completions.create(model=model, prompt="Inferdock is", max_tokens=50)
    assert response.choices[0].text
    assert response.usage.completion_tokens > 0


def test_chat_completions_endpoint(client, model):
    response = client.chat.completions.create(model=model, messages=HELLO, max_tokens=50)
    assert response.choices[0].message.content


def test_streaming(client, model):
    stream = client.completions.create(model=model, prompt="Count to 5:", max_tokens=50, stream=True)
    assert len(list(stream)) > 0


# -- Chat ----------------------------------------------------------------------------------------------------


def test_the_demo_model_knows_the_platform(client, model):
    if model != "inferdock-demo":
        pytest.skip("asks what only the demo model knows")
    response = client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=100)
    assert "vLLM" in response.choices[0].message.content
    assert response.choices[0].finish_reason == "stop"


def test_a_streamed_chat_is_the_same_text_as_a_whole_one(client, model):
    whole = client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=60)
    stream = client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=60, stream=True)
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_stream_without_the_wish_for_usage_has_none(client, model):
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, max_tokens=5, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
def test_include_usage_ends_a_stream_with_exact_counts(client, model, chat):
    wish = {
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": {"ignore_eos": True},
    }
    if chat:
        stream = client.chat.completions.create(model=model, messages=HELLO, **wish)
    else:
        stream = client.completions.create(model=model, prompt="Inferdock is", **wish)
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage.completion_tokens == 7
    assert last.usage.total_tokens == last.usage.prompt_tokens + 7


def test_stop_strings_end_the_answer(client, model):
    plain = client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=60)
    text = plain.choices[0].message.content
    word = text.split()[5]
    cut = client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=60, stop=[word])
    assert cut.choices[0].message.content == text[: text.index(word)]
    assert cut.choices[0].finish_reason == "stop"


def test_n_gives_so_many_choices(client, model):
    response = client.chat.completions.create(model=model, messages=HELLO, n=3, max_tokens=5, temperature=1.0)
    assert [choice.index for choice in response.choices] == [0, 1, 2]


def test_a_seed_repeats_the_answer(client, model):
    texts = {
        client.chat.completions.create(model=model, messages=HELLO, seed=11, temperature=1.0, max_tokens=20)
        .choices[0]
        .message.content
        for _ in range(2)
    }
    assert len(texts) == 1


def test_logprobs_come_with_the_tokens(client, model):
    response = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=2, temperature=0
    )
    content = response.choices[0].logprobs.content
    assert len(content) == response.usage.completion_tokens
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in content)


def test_completion_logprobs(client, model):
    response = client.completions.create(model=model, prompt="Inferdock is", max_tokens=3, logprobs=1, temperature=0)
    assert len(response.choices[0].logprobs.token_logprobs) == 3


def no_white_space(client: openai.OpenAI, model: str) -> dict[str, int]:
    """A bias against it: bound to a schema, a model this small may go on with white space, which JSON allows."""
    response = client.completions.create(
        model=model, prompt=[" \n\t", "    \n\n"], max_tokens=1, extra_body={"return_token_ids": True}
    )
    ids = {token for choice in response.model_dump()["choices"] for token in choice["prompt_token_ids"]}
    return {str(token): -100 for token in ids}


def test_a_json_schema_binds_the_answer(client, model):
    schema = {
        "type": "object",
        "properties": {"ready": {"type": "boolean"}, "replicas": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["ready", "replicas"],
        "additionalProperties": False,
    }
    response = client.chat.completions.create(
        model=model,
        messages=HELLO,
        max_tokens=60,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "state", "schema": schema}},
        logit_bias=no_white_space(client, model),
    )
    answer = json.loads(response.choices[0].message.content)
    assert isinstance(answer["ready"], bool)
    assert 0 <= answer["replicas"] <= 9


def test_a_named_tool_is_called_with_arguments_of_its_schema(client, model):
    parameters = {
        "type": "object",
        "properties": {"replicas": {"type": "integer", "minimum": 1, "maximum": 4}},
        "required": ["replicas"],
        "additionalProperties": False,
    }
    response = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "I want two replicas"}],
        max_tokens=60,
        temperature=0,
        tools=[{"type": "function", "function": {"name": "scale", "strict": True, "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "scale"}},
        logit_bias=no_white_space(client, model),
    )
    (call,) = response.choices[0].message.tool_calls
    assert call.function.name == "scale"
    assert 1 <= json.loads(call.function.arguments)["replicas"] <= 4


def test_token_id_fields_pass_through_untouched(client, model):
    extra = {"return_token_ids": True, "ignore_eos": True}
    first = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=4, temperature=0, extra_body=extra
    ).model_dump()
    ids = first["choices"][0]["token_ids"]
    assert len(ids) == 4
    prompt = first["prompt_token_ids"]
    again = client.completions.create(
        model=model, prompt=prompt + ids[:2], max_tokens=2, temperature=0, extra_body=extra
    ).model_dump()
    assert again["choices"][0]["token_ids"] == ids[2:]


def test_several_prompts_in_one_completion(client, model):
    response = client.completions.create(model=model, prompt=["Inferdock is", "A replica is"], max_tokens=3)
    assert [choice.index for choice in response.choices] == [0, 1]


# -- Models and errors ---------------------------------------------------------------------------------------


def test_models_are_listed_and_retrieved(client, model):
    assert client.models.retrieve(model).id == model


def test_an_unknown_model_is_404(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"not json", id="not JSON"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"model": 5}', id="model is a number"),
        pytest.param(b'[{"model": "x"}]', id="a list"),
        pytest.param(b'{"messages": "hi"}', id="messages is a string"),
        pytest.param(b'{"max_tokens": "many", "messages": []}', id="max_tokens is a string"),
        pytest.param(b'{"stream": "yes", "messages": []}', id="stream is a string"),
        pytest.param(b'{"model": "\xff\xfe"}', id="not UTF-8"),
    ],
)
def test_bad_bodies_are_400_with_an_error_object(base_url, body):
    status, _, answer = raw_request(base_url, "POST", "/v1/chat/completions", body)
    error = json.loads(answer)["error"]
    assert status == 400
    assert error["message"]
    assert set(error) >= {"message", "type", "param", "code"}


def test_a_huge_body_is_413(base_url):
    headers = {"content-type": "application/json", "content-length": str(10**12)}
    status, _, answer = raw_request(base_url, "POST", "/v1/chat/completions", b"", headers)
    assert (status, json.loads(answer)["error"]["code"]) == (413, "body_too_large")


def test_a_huge_header_is_431(base_url):
    status, _, answer = raw_request(base_url, "GET", "/v1/models", None, {"x-large": "a" * 60_000})
    assert (status, json.loads(answer)["error"]["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/nowhere", 404),
        ("POST", "/health", 405),
    ],
)
def test_wrong_methods_and_routes_get_an_error_object(base_url, method, path, status):
    got, _, answer = raw_request(base_url, method, path)
    assert got == status
    assert json.loads(answer)["error"]["message"]


def test_bytes_that_are_not_http_get_400_and_the_service_goes_on(base_url, client, model):
    parts = urlsplit(base_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert client.completions.create(model=model, prompt="a", max_tokens=1).choices


def test_a_half_closed_connection_in_the_middle_of_a_request_gets_400(base_url, client, model):
    parts = urlsplit(base_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as raw:
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert client.completions.create(model=model, prompt="a", max_tokens=1).choices


# -- Headers, cancel, load -----------------------------------------------------------------------------------


def test_a_request_id_is_echoed_and_the_revision_is_named(client, model):
    response = client.chat.completions.with_raw_response.create(
        model=model, messages=HELLO, max_tokens=1, extra_headers={"X-Request-Id": "my-id-1"}
    )
    assert response.headers["x-request-id"] == "my-id-1"
    assert response.headers["x-inferdock-revision"]
    assert float(response.headers["x-inferdock-overhead-ms"]) >= 0


def running(base_url: str) -> int:
    """Requests that the gateway holds now, from its own metrics."""
    _, _, text = raw_request(base_url, "GET", "/metrics")
    lines = [line for line in text.decode().splitlines() if line.startswith("llm_gateway_requests_in_flight{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def test_leaving_a_stream_frees_its_place(client, model, base_url):
    stream = client.completions.create(
        model=model, prompt="Go on", max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert running(base_url) >= 1
    stream.close()
    deadline = time.monotonic() + 20
    while running(base_url) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(base_url) == 0


def test_leaving_a_stream_stops_the_engines_work(client, model, engine_url):
    def metric(name: str) -> float:
        _, _, text = raw_request(engine_url, "GET", "/metrics")
        return sum(float(x.rpartition(" ")[2]) for x in text.decode().splitlines() if x.startswith(f"{name}{{"))

    made_before = metric("vllm:generation_tokens_total")
    stream = client.completions.create(
        model=model, prompt="Go on", max_tokens=1900, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 30
    while metric("vllm:num_requests_running") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert metric("vllm:num_requests_running") == 0
    assert metric("vllm:generation_tokens_total") - made_before < 1900


async def test_fifty_streams_at_once_all_end_whole(base_url, model):
    async with openai.AsyncOpenAI(base_url=base_url, api_key="x", max_retries=0, timeout=300) as client:

        async def one(index: int) -> tuple[str, str | None]:
            stream = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "What is a canary?"}],
                temperature=0,
                max_tokens=64,
                stream=True,
            )
            text, reason = "", None
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                reason = chunk.choices[0].finish_reason or reason
            return text, reason

        answers = await asyncio.gather(*(one(index) for index in range(50)))
    assert len({reason for _, reason in answers}) == 1
    assert all(text for text, _ in answers)
    assert len({text for text, _ in answers}) == 1


def test_the_metrics_count_what_was_served(client, model, base_url):
    def output_tokens() -> float:
        _, _, text = raw_request(base_url, "GET", "/metrics")
        lines = [x for x in text.decode().splitlines() if x.startswith("llm_gateway_output_tokens_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    before = output_tokens()
    list(
        client.chat.completions.create(
            model=model, messages=HELLO, max_tokens=9, stream=True, extra_body={"ignore_eos": True}
        )
    )
    assert output_tokens() - before == 9
