"""Sends requests and takes times, cheaply: the client shares its processors with the engine that it measures.

Events are cut from the raw bytes and looked at by pattern; their JSON is never decoded.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import aiohttp

from inferdock.bench.workload import Task
from inferdock.domain.errors import CheckFailedError, UnreachableError
from inferdock.wire.sse import EventSplitter, SseError

_TEXT = re.compile(rb'"(?:content|text|reasoning|reasoning_content)":\s*"(?!")')
_OUTPUT = re.compile(rb'"completion_tokens":\s*(\d+)')
_PROMPT = re.compile(rb'"prompt_tokens":\s*(\d+)')
REFUSED = "connection refused or closed"
_DONE = b"[DONE]"
_NO_CHOICES = re.compile(rb'"choices":\s*\[\]')
_ERROR = re.compile(rb'\{\s*"error":')
# Engines close connections that are idle for 5 s (uvicorn's default): one that is taken up in that very moment fails.
_KEEP_ALIVE_S = 4.0


@dataclass(slots=True)
class Outcome:
    """Times and counts of one request; times in seconds on one monotonic clock.

    Attributes:
        due_at: when it was meant to be sent (equals ``sent_at`` in a closed loop).
        first_at: first output text, None without any.
        arrivals: time of each read that carried tokens, from the first text on.
        output_tokens: exact when the server reports usage, else the number of events from the first text on
            (``counted``).
        error: kind of failure, "" when all is well.
    """

    due_at: float
    sent_at: float = 0.0
    first_at: float | None = None
    ended_at: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    counted: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How requests are put.

    Attributes:
        base_urls: OpenAI bases (with ``/v1``), used in turn.
        exact_output: ask for exactly the wanted number of tokens (``ignore_eos``, ``min_tokens``: vLLM's fields).
    """

    base_urls: tuple[str, ...]
    model: str
    chat: bool = True
    stream: bool = True
    temperature: float = 0.0
    exact_output: bool = True


def session(api_key: str | None, timeout_s: float) -> aiohttp.ClientSession:
    """A client session without a limit on connections."""
    headers = {"content-type": "application/json"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers=headers,
    )


async def first_model(http: aiohttp.ClientSession, base_url: str) -> str:
    """The first model that the server lists.

    Raises:
        UnreachableError: nothing answers there, or not in OpenAI's form.
    """
    try:
        async with http.get(f"{base_url}/models") as response:
            if response.status != 200:
                raise UnreachableError(
                    f"{base_url}/models answers {response.status}: {_message(await response.read())}",
                    cure="Give a key with --api-key." if response.status in (401, 403) else "Is it the right address?",
                )
            data = await response.json(content_type=None)
            return str(data["data"][0]["id"])
    except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError) as exc:
        raise UnreachableError(
            f"No OpenAI-compatible server answers at {base_url} ({type(exc).__name__}).",
            cure="Start one with `inferdock up`, or give its address (it ends in /v1).",
        ) from exc


class Client:
    """Sends tasks.

    Attributes:
        asking: how.
        events: of all streams so far, for the cost of an event.
    """

    def __init__(
        self, http: aiohttp.ClientSession, asking: Asking, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._http = http
        self.asking = asking
        self._clock = clock
        self._turn = 0
        self.events = 0

    def _body(self, task: Task) -> bytes:
        asking = self.asking
        body: dict[str, object] = {
            "model": asking.model,
            "max_tokens": task.output_tokens,
            "temperature": asking.temperature,
            "stream": asking.stream,
        }
        if asking.chat:
            body["messages"] = [{"role": "user", "content": task.prompt}]
        else:
            body["prompt"] = task.prompt
        if asking.stream:
            body["stream_options"] = {"include_usage": True}
        if asking.exact_output:
            body |= {"ignore_eos": True, "min_tokens": task.output_tokens}
        return json.dumps(body).encode()

    def without_exact_output(self) -> Client:
        """The same client for servers that refuse vLLM's own fields."""
        return Client(self._http, replace(self.asking, exact_output=False), self._clock)

    async def send(self, task: Task, due_at: float) -> Outcome:
        """Send one task and follow its answer to the end; failures are part of the outcome, never raised."""
        asking = self.asking
        base = asking.base_urls[self._turn % len(asking.base_urls)]
        self._turn += 1
        outcome = Outcome(due_at=due_at)
        body = self._body(task)
        outcome.sent_at = self._clock()
        url = f"{base}/{'chat/completions' if asking.chat else 'completions'}"
        try:
            async with self._http.post(url, data=body) as response:
                if response.status != 200:
                    await response.read()
                    outcome.error = f"http {response.status}"
                elif asking.stream:
                    await self._follow(response, outcome)
                else:
                    await self._take_whole(response, outcome)
        except TimeoutError:
            outcome.error = "timeout"
        except aiohttp.ClientResponseError:
            outcome.error = "not HTTP"
        except (aiohttp.ClientPayloadError, SseError):
            outcome.error = "stream cut"
        except OSError:  # aiohttp's connection errors are OSErrors too
            outcome.error = "stream cut" if outcome.first_at else REFUSED
        except aiohttp.ServerDisconnectedError:
            outcome.error = REFUSED
        except (aiohttp.ClientError, ValueError) as exc:  # ValueError: a host name that cannot be one
            outcome.error = type(exc).__name__
        outcome.ended_at = self._clock()
        return outcome

    async def _follow(self, response: aiohttp.ClientResponse, outcome: Outcome) -> None:
        splitter = EventSplitter()
        last = usage = b""
        tokens = 0
        async for data in response.content.iter_any():
            now = self._clock()
            before = tokens
            for event in splitter.feed(data):
                self.events += 1
                last = event
                if event == _DONE:
                    continue
                if not event.endswith(b"}") or not event.startswith(b"{"):
                    outcome.error = "bad JSON"
                elif _ERROR.match(event):
                    outcome.error = "error event"
                if b'"completion_tokens"' in event:
                    usage = event
                if not _NO_CHOICES.search(event) and (outcome.first_at is not None or _TEXT.search(event)):
                    tokens += 1
                    outcome.first_at = outcome.first_at or now
            if tokens > before:
                outcome.arrivals.append(now)
        if not outcome.error and last != _DONE:
            outcome.error = "stream cut"
        self._take_usage(usage, outcome, tokens)

    async def _take_whole(self, response: aiohttp.ClientResponse, outcome: Outcome) -> None:
        body = await response.read()
        outcome.first_at = self._clock()
        try:
            json.loads(body)
        except ValueError:
            outcome.error = "bad JSON"
        self._take_usage(body, outcome, 0)

    @staticmethod
    def _take_usage(data: bytes, outcome: Outcome, tokens: int) -> None:
        outputs, prompts = _OUTPUT.findall(data), _PROMPT.findall(data)
        outcome.prompt_tokens = int(prompts[-1]) if prompts else 0
        outcome.counted = not outputs
        outcome.output_tokens = int(outputs[-1]) if outputs else tokens


async def chat(
    http: aiohttp.ClientSession, base_url: str, body: dict[str, object]
) -> AsyncIterator[tuple[str, dict[str, object]]]:
    """One streamed chat turn: yields (text, event) for each event that has one.

    Raises:
        UnreachableError: nothing answers.
        CheckFailedError: the server refused or broke the answer; the message is the server's own.
    """
    splitter = EventSplitter()
    try:
        async with http.post(f"{base_url}/chat/completions", json={**body, "stream": True}) as response:
            if response.status != 200:
                raise CheckFailedError(f"The server answered {response.status}: {_message(await response.read())}")
            async for data in response.content.iter_any():
                for payload in splitter.feed(data):
                    if payload == b"[DONE]":
                        return
                    yield _text(payload)
    except (TimeoutError, aiohttp.ClientConnectorError) as exc:
        raise UnreachableError(f"Nothing answers at {base_url}.", cure="Start it with `inferdock up`.") from exc
    except aiohttp.ClientResponseError as exc:
        raise CheckFailedError(f"What answers at {base_url} does not speak HTTP.") from exc
    except (aiohttp.ClientError, SseError) as exc:
        raise CheckFailedError("The answer was cut: the connection broke.") from exc
    raise CheckFailedError("The answer was cut: the stream ended without [DONE].")


def _text(payload: bytes) -> tuple[str, dict[str, object]]:
    try:
        event = json.loads(payload)
        if "error" in event:
            raise CheckFailedError(f"The server reports: {event['error'].get('message', event['error'])}")
        choices = event.get("choices") or [{}]
        return str((choices[0].get("delta") or {}).get("content") or ""), event
    except (ValueError, AttributeError, IndexError) as exc:
        raise CheckFailedError("The server sent an event that is not OpenAI's.") from exc


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300].decode("utf-8", "replace")
