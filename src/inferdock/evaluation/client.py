"""Asks engines: the one module here that talks to the network. Failures are answers with an error, never raised."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec

from inferdock.domain.errors import ConfigError, InferdockError, UnreachableError
from inferdock.evaluation.answers import Answer, MalformedAnswerError, read_answer
from inferdock.evaluation.divergence import Position, read_positions
from inferdock.evaluation.tasks import Task
from inferdock.telemetry.samples import read_samples

MAX_BODY: Final = 64 << 20
"""Bytes of one answer that are read; log-probabilities of a long prompt are the largest."""
TOP: Final = 10
"""Most probable tokens asked for at each place of an answer."""
CACHE_INFO: Final = "vllm:cache_config_info"
"""Of vLLM 0.24 and later: a gauge of 1 whose labels are the sizes of the KV cache."""
ATTEMPTS: Final = 5
LONGEST_WAIT_S: Final = 30.0
"""Longest pause that a ``Retry-After`` is obeyed for."""
GIVE_UP_AFTER: Final = 20
"""Failures in a row after which a side is asked no more: it is down, and the rest would only take hours."""
_PASSING: Final = frozenset({429, 502, 503, 504})
_KEEP_ALIVE_S: Final = 4.0
"""Engines close connections that are idle for 5 s (uvicorn's default): one taken up in that moment fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where one side answers.

    Attributes:
        base_urls: OpenAI bases (with ``/v1``), used in turn: replicas of one revision, or a gateway.
        model: name to ask for; None takes the first that the server lists.
        api_key: bearer key.
        headers: sent with each request.
        weight_bytes: of the weight files, for the report; None: not known.
    """

    base_urls: tuple[str, ...]
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    weight_bytes: int | None = None


def parse_endpoint(text: str, *, api_key: str | None = None) -> Endpoint:
    """Read ``URL[#MODEL]``; ``/v1`` is added to a bare host.

    Raises:
        ConfigError: it is no address.
    """
    url, _, model = text.partition("#")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(c.isspace() for c in url):
        raise ConfigError(
            f"{text[:100]!r} is no address.", cure="Write it as http://HOST:PORT/v1, with #MODEL if you like."
        )
    base = url.rstrip("/")
    return Endpoint(base_urls=(base if parts.path.strip("/") else f"{base}/v1",), model=model or None, api_key=api_key)


def session(timeout_s: float) -> aiohttp.ClientSession:
    """A client session; each request may take so many seconds."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
    )


class _Reply(NamedTuple):
    """A 200: its body, the gateway's name of the revision, and the seconds that it took."""

    body: bytes
    revision: str
    seconds: float


class _RefusedError(Exception):
    """A status other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}" if message else f"HTTP {status}")
        self.status = status


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class Asker:
    """One side. Temperature 0 and a fixed seed; no cache may answer for the model."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoint: Endpoint,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._endpoint = endpoint
        self._sleep = sleep
        self._turn = 0
        self._plain = False
        self._down_in_a_row = 0
        self.model = endpoint.model or ""

    async def connect(self) -> None:
        """See that somebody answers, and learn the model's name.

        Raises:
            UnreachableError: nobody does, or not in OpenAI's form.
        """
        url = f"{self._endpoint.base_urls[0]}/models"
        try:
            reply = await self._request("GET", url, None)
            listed = msgspec.json.decode(reply.body, type=_Models).data[0].id
        except _RefusedError as exc:
            cure = "Give a key with --api-key." if exc.status in (401, 403) else "Is it the right address?"
            raise UnreachableError(f"{url} answers {exc}", cure=cure) from exc
        except (MalformedAnswerError, aiohttp.ClientError, OSError, ValueError, LookupError, RecursionError) as exc:
            raise UnreachableError(
                f"No OpenAI-compatible server answers at {self._endpoint.base_urls[0]} ({type(exc).__name__}).",
                cure="Start it, or give its address (it ends in /v1).",
            ) from exc
        self.model = self._endpoint.model or listed

    async def answer(self, task: Task) -> Answer:
        """Ask one task."""
        if self._down_in_a_row >= GIVE_UP_AFTER:
            return Answer(error=f"not asked: {GIVE_UP_AFTER} requests in a row had failed")
        try:
            found, down = await self._ask(task), False
        except _RefusedError as exc:
            found, down = Answer(error=_line(exc)), exc.status >= 500
        except MalformedAnswerError as exc:
            found, down = Answer(error=_line(exc)), True
        except TimeoutError:
            found, down = Answer(error="no answer in time"), True
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            found, down = Answer(error=f"no answer ({type(exc).__name__})"), True
        self._down_in_a_row = self._down_in_a_row + 1 if down else 0
        return found

    async def _ask(self, task: Task) -> Answer:
        """One task; without vLLM's own fields from then on when a server only answers without them."""
        body, route = self._body(task), "chat/completions" if task.messages else "completions"
        if self._plain:
            reply = await self._post(route, body)
        else:
            reply = await self._ask_for_ids(route, body)
        return read_answer(reply.body, chat=bool(task.messages), revision=reply.revision, seconds=reply.seconds)

    async def _ask_for_ids(self, route: str, body: dict[str, Any]) -> _Reply:
        try:
            return await self._post(route, body | {"return_token_ids": True})
        except _RefusedError as exc:
            if exc.status not in (400, 422):
                raise
        found = await self._post(route, body)
        self._plain = True
        return found

    def _body(self, task: Task) -> dict[str, Any]:
        asked: dict[str, Any] = (
            {"messages": [{"role": m.role, "content": m.content} for m in task.messages]}
            if task.messages
            else {"prompt": task.prompt}
        )
        return {"model": self.model, **asked, "max_tokens": task.max_tokens, "temperature": 0, "seed": 0}

    async def positions(self, prompt: tuple[int, ...], ids: tuple[int, ...]) -> Sequence[Position] | None:
        """The engine's log-probabilities of an answer that it is given; None where it does not tell them."""
        if not prompt or not ids or self._plain:
            return None
        body = {
            "model": self.model,
            "prompt": [*prompt, *ids],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": TOP,
        }
        try:
            return read_positions((await self._post("completions", body)).body, len(ids))
        except (_RefusedError, MalformedAnswerError, aiohttp.ClientError, OSError, ValueError):
            return None

    async def kv_cache_tokens(self) -> int | None:
        """Tokens that fit into the engine's KV cache, as vLLM's `/metrics` says; None where that is not shown."""
        url = f"{self._endpoint.base_urls[0].removesuffix('/v1')}/metrics"
        try:
            text = (await self._request("GET", url, None)).body.decode()
            (found,) = read_samples(text, {CACHE_INFO})
            return int(found.labels["kv_cache_size_tokens"])
        except (InferdockError, _RefusedError, MalformedAnswerError, aiohttp.ClientError, OSError):
            return None
        except (ValueError, LookupError):  # another engine, several of them, or a gateway
            return None

    async def _post(self, route: str, body: Mapping[str, Any]) -> _Reply:
        """Send; again after a pause when the server says that it will be able to, or the connection breaks."""
        data = json.dumps(body).encode()
        for attempt in range(ATTEMPTS):
            base = self._endpoint.base_urls[self._turn % len(self._endpoint.base_urls)]
            self._turn += 1
            pause = min(0.5 * 2**attempt, LONGEST_WAIT_S)
            try:
                return await self._request("POST", f"{base}/{route}", data)
            except _RetryError as exc:
                if attempt == ATTEMPTS - 1:
                    raise
                pause = exc.after_s if exc.after_s is not None else pause
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                if attempt == ATTEMPTS - 1:
                    raise
            await self._sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _request(self, method: str, url: str, data: bytes | None) -> _Reply:
        """What a 200 brought."""
        began = time.monotonic()
        headers = {"content-type": "application/json", "cache-control": "no-store", **self._endpoint.headers}
        if self._endpoint.api_key:
            headers["authorization"] = f"Bearer {self._endpoint.api_key}"
        async with self._http.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
            body = await _read(response)
            if response.status in _PASSING:
                raise _RetryError(response.status, _message(body), _after(response.headers.get("retry-after")))
            if response.status != 200:
                raise _RefusedError(response.status, _message(body))
            revision = response.headers.get("x-inferdock-revision", "")[:200]
            return _Reply(body, revision, time.monotonic() - began)


class _RetryError(_RefusedError):
    """A status that passes."""

    def __init__(self, status: int, message: str, after_s: float | None) -> None:
        super().__init__(status, message)
        self.after_s = after_s


async def _read(response: aiohttp.ClientResponse) -> bytes:
    pieces = bytearray()
    async for piece in response.content.iter_any():
        pieces += piece
        if len(pieces) > MAX_BODY:
            raise MalformedAnswerError(f"the answer is larger than {MAX_BODY >> 20} MiB")
    return bytes(pieces)


def _after(text: str | None) -> float | None:
    """Seconds of a ``Retry-After``, which is a number or a date; None when it is neither."""
    if text is None:
        return None
    seconds: float | None = None
    with contextlib.suppress(ValueError, OverflowError, TypeError):
        seconds = float(text) if text.isascii() and text.isdigit() else _until(text)
    return None if seconds is None else min(max(0.0, seconds), LONGEST_WAIT_S)


def _until(date: str) -> float:
    at = parsedate_to_datetime(date)
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]


def _message(body: bytes) -> str:
    """The server's own words, if it has OpenAI's form of them."""
    with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
        return str(json.loads(body)["error"]["message"])[:300]
    return body[:200].decode("utf-8", "replace")
