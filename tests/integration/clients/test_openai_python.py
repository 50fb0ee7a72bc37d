"""The official OpenAI client for Python against the gateway process; what needs a real engine is in
tests/integration/test_openai_compat.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

from tests.integration.clients.conftest import Service

ASK = {
    "model": "sim",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 8,
    "temperature": 0,
    "extra_body": {"ignore_eos": True},
}


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="not-needed", max_retries=0, timeout=30) as made:
        yield made


def text_of(stream) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["sim"]


def test_a_stream_is_the_same_text_as_a_whole_answer(client):
    whole = client.chat.completions.create(**ASK)
    assert text_of(client.chat.completions.create(**ASK, stream=True)) == whole.choices[0].message.content
    assert whole.usage.completion_tokens == 8


def test_usage_comes_with_a_stream_that_asks_for_it(client):
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 8


def test_completions(client):
    assert client.completions.create(model="sim", prompt="one two", max_tokens=8, temperature=0).choices[0].text


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**{**ASK, "model": "nothing"})
    assert caught.value.code == "model_not_found"


def test_a_large_request_is_served_and_a_too_large_one_is_413(client):
    assert client.chat.completions.create(**ASK, user="x" * 3_000_000).choices
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**ASK, user="x" * 40_000_000)
    assert caught.value.status_code == 413


def test_leaving_a_stream_ends_the_request(client, service):
    stream = client.chat.completions.create(**{**ASK, "max_tokens": 3000}, stream=True)
    next(iter(stream))
    stream.close()
    service.until_idle(within_s=5)


async def test_a_hundred_streams_at_once_are_all_whole(service):
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="x", max_retries=0, timeout=60) as client:

        async def one() -> str:
            stream = await client.chat.completions.create(**ASK, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        texts = await asyncio.gather(*(one() for _ in range(100)))
    assert len(set(texts)) == 1
    assert texts[0]
