"""What the client takes from the bytes of an answer, and what it calls a failure."""

from __future__ import annotations

import json

import pytest

from inferdock.bench.client import Asking, Client, Outcome, first_model, session
from inferdock.bench.workload import Task
from inferdock.domain.errors import UnreachableError
from tests.support.scripted_replica import Script, scripted_replica

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"


def text(piece: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":' + json.dumps(piece).encode() + b"}}]}\n\n"


async def outcome_of(*script: bytes | float | None, **asking: bool) -> Outcome:
    async with scripted_replica(list(script)) as replica, session(None, 5.0) as http:
        client = Client(http, Asking(base_urls=(f"{replica.url}/v1",), model="m", **asking))
        return await client.send(Task("hello", 3), due_at=0.0)


async def test_tokens_come_from_the_usage_and_times_from_the_events():
    outcome = await outcome_of(HEAD, ROLE, text("a"), 0.05, text("b"), 0.05, text("c"), USAGE, DONE, None)
    assert (outcome.error, outcome.prompt_tokens, outcome.output_tokens, outcome.counted) == ("", 7, 3, False)
    assert outcome.first_at == outcome.arrivals[0]
    assert len(outcome.arrivals) == 3


async def test_the_empty_event_with_the_role_is_no_token():
    outcome = await outcome_of(HEAD, ROLE, 0.2, text("a"), DONE, None)
    assert outcome.first_at is not None
    assert outcome.first_at - outcome.sent_at >= 0.2


async def test_without_usage_events_are_counted_and_it_is_said():
    outcome = await outcome_of(HEAD, ROLE, text("a"), text("b"), DONE, None)
    assert (outcome.output_tokens, outcome.counted) == (2, True)


async def test_events_may_be_cut_anywhere():
    whole = ROLE + text("a") + text("data: [DONE]") + USAGE + DONE
    outcome = await outcome_of(HEAD, *(whole[i : i + 7] for i in range(0, len(whole), 7)), None)
    assert (outcome.error, outcome.output_tokens) == ("", 3)


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def test_an_answer_in_one_piece_has_a_first_token_but_no_tpot_times():
    body = b'{"choices":[{"message":{"content":"abc"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
    outcome = await outcome_of(whole(body), stream=False)
    assert (outcome.error, outcome.output_tokens, outcome.arrivals) == ("", 3, [])


FAILURES: dict[str, tuple[Script, str]] = {
    "status": ([b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"], "http 503"),
    "closed before the answer": ([None], "connection refused or closed"),
    "not HTTP": ([b"\x16\x03\x01 what\r\n\r\n", None], "not HTTP"),
    "no DONE": ([HEAD, text("a"), None], "stream cut"),
    "half an event": ([HEAD, text("a"), b'data: {"cho', None], "stream cut"),
    "short body": ([HEAD.replace(b"Connection: close", b"Content-Length: 900"), text("a"), None], "stream cut"),
    "error event": ([HEAD, text("a"), b'data: {"error": {"message": "died"}}\n\n', DONE, None], "error event"),
    "bad JSON": ([HEAD, text("a"), b"data: {not json\n\n", DONE, None], "bad JSON"),
    "no event stream": ([whole(b'{"choices":[]}')], "stream cut"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_failures_are_told_apart(case):
    script, kind = FAILURES[case]
    assert (await outcome_of(*script)).error == kind


async def test_a_whole_answer_that_is_no_json_is_a_failure():
    assert (await outcome_of(whole(b"<html>"), stream=False)).error == "bad JSON"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://a..b/v1", "nonsense"])
async def test_an_address_where_nothing_is_never_raises(url):
    async with session(None, 5.0) as http:
        outcome = await Client(http, Asking(base_urls=(url,), model="m")).send(Task("hello", 3), due_at=0.0)
        assert outcome.error
        with pytest.raises(UnreachableError):
            await first_model(http, url)


async def test_the_key_goes_out_and_addresses_take_turns():
    async with scripted_replica([HEAD, DONE, None]) as one, scripted_replica([HEAD, DONE, None]) as two:
        async with session("secret", 5.0) as http:
            client = Client(http, Asking(base_urls=(one.url, two.url), model="m"))
            for _ in range(4):
                await client.send(Task("hello", 3), due_at=0.0)
    assert (len(one.requests), len(two.requests)) == (2, 2)
    assert b"authorization: bearer secret" in one.requests[0].lower()


async def test_exact_output_asks_for_it_in_vllms_words_and_can_be_left_out():
    async with scripted_replica([HEAD, DONE, None]) as replica, session(None, 5.0) as http:
        client = Client(http, Asking(base_urls=(replica.url,), model="m"))
        for sender in (client, client.without_exact_output()):
            await sender.send(Task("hello", 3), due_at=0.0)
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in replica.requests]
    assert [("ignore_eos" in body, body.get("min_tokens")) for body in bodies] == [(True, 3), (False, None)]
