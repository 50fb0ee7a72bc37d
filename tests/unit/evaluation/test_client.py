"""What is made of an engine's replies, the malformed ones included."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inferdock.domain.errors import ConfigError, UnreachableError
from inferdock.evaluation.client import ATTEMPTS, GIVE_UP_AFTER, Asker, Endpoint, parse_endpoint, session
from tests.support.evaluation_values import task
from tests.support.scripted_replica import Script, scripted_replica

GOOD = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}
CUT = b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"choices"'


def reply(body: object, status: str = "200 OK", *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{head}\r\n".encode() + data


class Waits:
    """Remembers pauses instead of making them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def ask(*replies: bytes | None, times: int = 1, **changes):
    """Answers, requests and pauses when the n-th request is answered with the n-th reply, the last one for good."""

    def script(number: int) -> Script:
        return [replies[min(number, len(replies)) - 1]]

    waits = Waits()
    async with scripted_replica(script) as replica, session(5.0) as http:
        asker = Asker(http, Endpoint(base_urls=(f"{replica.url}/v1",), model="m"), sleep=waits)
        answers = [await asker.answer(task(**changes)) for _ in range(times)]
        return answers, replica.requests, waits.seconds


async def test_an_answer_has_text_length_and_revision():
    (answer,), requests, _ = await ask(reply(GOOD, "200 OK", "x-inferdock-revision: r7"))
    assert (answer.text, answer.finish, answer.output_tokens, answer.revision) == ("yes", "stop", 2, "r7")
    assert b"cache-control: no-store" in requests[0].lower()
    assert json.loads(requests[0].partition(b"\r\n\r\n")[2]) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Where does the ship of one sail?"}],
        "max_tokens": 256,
        "temperature": 0,
        "seed": 0,
        "return_token_ids": True,
    }


INFO = 'vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="%s"} 1.0\n'


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (INFO % "131072", 131072),
        (INFO % "many", None),
        (INFO % 1 + INFO.replace('"0"', '"1"') % 1, None),
        (INFO.replace("kv_cache_size_tokens", "other") % 1, None),
        ("vllm:cache_config_info{broken\n", None),
        ("llm_gateway_up 1\n", None),
        ("\xff", None),
    ],
    ids=["vllm", "no number", "two engines", "another version", "broken", "a gateway", "not text"],
)
async def test_the_room_in_the_kv_cache_is_the_engines_own_figure(text, tokens):
    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=text.encode("latin-1"))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    async with TestServer(app) as server, session(5.0) as http:
        asker = Asker(http, Endpoint(base_urls=(f"{server.make_url('/v1')}",), model="m"))
        assert await asker.kv_cache_tokens() == tokens


async def test_an_engine_without_metrics_says_nothing_of_its_room():
    async with TestServer(web.Application()) as server, session(5.0) as http:
        asker = Asker(http, Endpoint(base_urls=(f"{server.make_url('/v1')}",), model="m"))
        assert await asker.kv_cache_tokens() is None


async def test_an_answers_time_leaves_out_the_tries_before_it():
    (answer,), requests, pauses = await ask(reply({}, "503 Service Unavailable", "retry-after: 3"), reply(GOOD))
    assert (len(requests), pauses) == (2, [3.0])
    assert answer.seconds is not None
    assert 0 < answer.seconds < 3


async def test_a_prompt_goes_to_the_completions():
    (answer,), requests, _ = await ask(reply({"choices": [{"text": "upon a time"}]}), messages=None, prompt="Once")
    assert answer.text == "upon a time"
    assert requests[0].startswith(b"POST /v1/completions ")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "not OpenAI's"),
        (b"hello", "not OpenAI's"),
        (b"[" * 100_000, "not OpenAI's"),
        (b"\xff\xfe", "not OpenAI's"),
        ({}, "missing required field `choices`"),
        ({"choices": []}, "length >= 1"),
        ({"choices": [{}]}, "no message"),
        ({"choices": [{"message": {"content": 5}}]}, "Expected `str"),
        ({"choices": [{"message": {"content": "a"}, "token_ids": [-1]}]}, ">= 0"),
        ({"choices": [{"message": {"content": "a"}}], "usage": {"completion_tokens": -5}}, ">= 0"),
        ({"error": {"message": "no"}}, "missing required field `choices`"),
    ],
    ids=range(11),
)
async def test_a_reply_that_is_none_is_an_error_in_the_answer(body, error):
    (answer,), _, _ = await ask(reply(body))
    assert error in answer.error
    assert "\n" not in answer.error
    assert len(answer.error) <= 300


async def test_a_message_without_content_is_an_empty_answer():
    (answer,), _, _ = await ask(reply({"choices": [{"message": {"content": None}}]}))
    assert (answer.text, answer.error) == ("", "")


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        (("Retry-After: 7",), 7.0),
        (("Retry-After: 99999",), 30.0),
        (("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT",), 0.0),
        (("Retry-After: soon",), 0.5),
        (("Retry-After: -5",), 0.5),
        (("Retry-After: 1" + "0" * 5000,), 30.0),
        ((), 0.5),
    ],
    ids=["seconds", "hours", "a date gone by", "nonsense", "below 0", "for ever", "none"],
)
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_busy_server_is_asked_again_when_it_says(status, header, pause):
    (answer,), requests, pauses = await ask(reply(b"{}", status, *header), reply(GOOD))
    assert (answer.text, len(requests), pauses) == ("yes", 2, [pause])


async def test_a_server_that_stays_busy_is_an_error_after_some_attempts():
    (answer,), requests, pauses = await ask(reply({"error": {"message": "full"}}, "503 Busy"))
    assert (answer.error, len(requests), len(pauses)) == ("HTTP 503: full", ATTEMPTS, ATTEMPTS - 1)


async def test_a_cut_answer_is_asked_for_again():
    async def cut_then_good() -> tuple[str, int]:
        def script(number: int) -> Script:
            return [CUT, None] if number == 1 else [reply(GOOD)]

        async with scripted_replica(script) as replica, session(5.0) as http:
            asker = Asker(http, Endpoint(base_urls=(f"{replica.url}/v1",), model="m"), sleep=Waits())
            return (await asker.answer(task())).text, len(replica.requests)

    assert await cut_then_good() == ("yes", 2)


async def test_a_server_that_knows_only_openais_fields_is_asked_without_others():
    refusal = reply({"error": {"message": "Unknown parameter: return_token_ids"}}, "400 Bad Request")
    answers, requests, _ = await ask(refusal, reply(GOOD), times=2)
    assert [answer.text for answer in answers] == ["yes", "yes"]
    assert [b"return_token_ids" in request for request in requests] == [True, False, False]


async def test_a_server_that_is_down_is_asked_no_more_after_a_while():
    answers, requests, _ = await ask(reply(b"no", "500 Oops"), times=GIVE_UP_AFTER + 5)
    assert len(requests) == GIVE_UP_AFTER
    assert answers[-1].error == f"not asked: {GIVE_UP_AFTER} requests in a row had failed"


async def test_tasks_that_the_server_refuses_do_not_stop_the_others():
    _, requests, _ = await ask(reply(b"no", "404 No"), times=GIVE_UP_AFTER + 5)
    assert len(requests) == GIVE_UP_AFTER + 5


async def test_replicas_are_asked_in_turn():
    async with scripted_replica([reply(GOOD)]) as one, scripted_replica([reply(GOOD)]) as two, session(5.0) as http:
        asker = Asker(http, Endpoint(base_urls=(f"{one.url}/v1", f"{two.url}/v1"), model="m"))
        for _ in range(4):
            await asker.answer(task())
        assert (len(one.requests), len(two.requests)) == (2, 2)


async def test_the_key_is_sent_and_never_shown():
    endpoint = Endpoint(base_urls=("http://127.0.0.1:1/v1",), api_key="secret")
    assert "secret" not in repr(endpoint)
    async with scripted_replica([reply(GOOD)]) as replica, session(5.0) as http:
        await Asker(http, Endpoint(base_urls=(f"{replica.url}/v1",), model="m", api_key="secret")).answer(task())
        assert b"authorization: bearer secret" in replica.requests[0].lower()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://no.such.host.invalid/v1"])
async def test_nobody_there_is_a_sentence(url):
    async with session(5.0) as http:
        with pytest.raises(UnreachableError, match="No OpenAI-compatible server answers"):
            await Asker(http, Endpoint(base_urls=(url,))).connect()


async def test_somebody_else_there_is_a_sentence():
    async with scripted_replica([]) as replica, session(5.0) as http:
        with pytest.raises(UnreachableError, match="No OpenAI-compatible server answers"):
            await Asker(http, Endpoint(base_urls=(f"{replica.url}/v1",))).connect()


@pytest.mark.parametrize(
    ("text", "base", "model"),
    [
        ("http://h:1/v1", "http://h:1/v1", None),
        ("http://h:1/v1/", "http://h:1/v1", None),
        ("http://h:1", "http://h:1/v1", None),
        ("https://h/api/openai#org/model-7b", "https://h/api/openai", "org/model-7b"),
        ("http://[::1]:8/v1#m", "http://[::1]:8/v1", "m"),
    ],
)
def test_an_address_may_name_the_model(text, base, model):
    found = parse_endpoint(text)
    assert (found.base_urls, found.model) == ((base,), model)


@pytest.mark.parametrize(
    "text", ["", "h:1", "ftp://h/v1", "http://", "http://h:99999/v1", "http://[::1/v1", "http://a b"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match="is no address"):
        parse_endpoint(text)
