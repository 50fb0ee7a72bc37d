"""The simulated replica's HTTP side: routes, streams, faults, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from aiohttp import web

from inferdock.domain.errors import ConfigError, ResourceError
from inferdock.sim import bodies, harm
from inferdock.sim.engine import Sequence, SimEngine
from inferdock.sim.faults import KINDS, MIDWAY, Fault, Faults, parse_fault
from inferdock.sim.language import decode, seed_of
from inferdock.sim.metrics import SimMetrics
from inferdock.sim.options import SimOptions
from inferdock.sim.requests import (
    Generation,
    Refusal,
    read_generation,
    read_object,
    read_text,
    read_tokens,
)

VERSION = "0.32.0"


class _Piece(NamedTuple):
    """What one token adds to an answer; ``known`` tokens are out with it. No token: the answer was aborted."""

    text: str
    tokens: list[int]
    known: int
    first: bool
    last: bool


class SimServer:
    """One replica: an engine behind vLLM's routes."""

    def __init__(self, options: SimOptions, faults: Faults | None = None) -> None:
        self.options = options
        self.faults = faults or Faults([])
        self.port = 0
        self._metrics = SimMetrics(options.model, max_model_len=options.max_model_len)
        self._engine = SimEngine(options, self._metrics, time.monotonic)
        self._created = int(time.time())
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._stopping = False
        self._open = 0
        self._all_answered = asyncio.Event()
        self._all_answered.set()

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{self.options.host}:{self.port}"

    @property
    def unfinished(self) -> int:
        """Requests that run or wait."""
        return self._engine.unfinished

    async def start(self) -> None:
        """Wait for the start-up time, then listen.

        Raises:
            ResourceError: the port is taken, or a fault is that it does not come up.
        """
        await asyncio.sleep(self.options.startup_s)
        if self.faults.fails_to_load():
            raise ResourceError("The model cannot be loaded (injected fault).")
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.options.host, self.options.port, backlog=4096)
        try:
            await site.start()
        except OSError as exc:
            await self._runner.cleanup()
            raise ResourceError(
                f"The simulated replica cannot listen on {self.options.host}:{self.options.port}: {exc.strerror}.",
                cure="Choose another port.",
            ) from exc
        self.port = self._runner.addresses[0][1]
        self._tasks.append(asyncio.create_task(self._engine.run()))

    async def stop(self) -> None:
        """Finish open requests within the shutdown timeout, abort the others, then stop.

        An aborted answer ends as in vLLM: orderly, with the finish reason ``abort``.
        """
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.options.shutdown_timeout_s):
                await self._all_answered.wait()
        self._engine.abort_all()
        if self._runner is not None:
            await self._runner.cleanup()  # gives the handlers a moment to write how it ended
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self._health),
            web.get("/ping", self._health),
            web.post("/ping", self._health),
            web.get("/version", self._version),
            web.get("/load", self._load),
            web.get("/metrics", self._metrics_text),
            web.get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
            web.post("/tokenize", self._tokenize),
            web.post("/detokenize", self._detokenize),
            web.get("/sim/faults", self._get_faults),
            web.post("/sim/faults", self._add_fault),
            web.delete("/sim/faults", self._clear_faults),
            web.route("*", "/{rest:.*}", self._no_route),
        ]

    # -- Small routes ----------------------------------------------------------------------------------------

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.faults.unhealthy() else 200)

    async def _version(self, _: web.Request) -> web.Response:
        return _json({"version": VERSION})

    async def _load(self, _: web.Request) -> web.Response:
        return _json({"server_load": self._engine.unfinished})

    async def _metrics_text(self, _: web.Request) -> web.Response:
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics.text(), headers=headers)

    async def _no_route(self, request: web.Request) -> web.Response:
        known = {route.path for route in self._routes()}
        if request.path in known:
            return _json({"detail": "Method Not Allowed"}, 405)
        return _json({"detail": "Not Found"}, 404)

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self.options.model,
            "object": "model",
            "created": self._created,
            "owned_by": "vllm",
            "root": self.options.model,
            "parent": None,
            "max_model_len": self.options.max_model_len,
            "permission": [],
        }
        return _json({"object": "list", "data": [card]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        try:
            data = read_object(await request.read(), request.headers.get("content-type", ""))
            tokens = read_text(data)
        except Refusal as refusal:
            return _json(refusal.body, refusal.status)
        length = self.options.max_model_len
        return _json({"count": len(tokens), "max_model_len": length, "tokens": tokens, "token_strs": None})

    async def _detokenize(self, request: web.Request) -> web.Response:
        try:
            data = read_object(await request.read(), request.headers.get("content-type", ""))
            tokens = read_tokens(data.get("tokens"), "tokens")
        except Refusal as refusal:
            return _json(refusal.body, refusal.status)
        return _json({"prompt": decode(tokens)})

    # -- Faults ----------------------------------------------------------------------------------------------

    async def _get_faults(self, _: web.Request) -> web.Response:
        armed = [dataclasses.asdict(fault) for fault in self.faults.armed]
        return _json({"armed": armed, "kinds": KINDS})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            self.faults.armed.append(parse_fault(str((await _object(request)).get("fault"))))
        except ConfigError as exc:
            return _json({"error": str(exc)}, 400)
        return await self._get_faults(request)

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self.faults.armed.clear()
        return await self._get_faults(request)

    # -- Generation ------------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        self._open += 1
        self._all_answered.clear()
        try:
            return await self._answer(request, chat=chat)
        finally:
            self._open -= 1
            if not self._open:
                self._all_answered.set()

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        body = await request.read()
        fault = self.faults.next_request()
        if fault is not None:
            early = await harm.before_answer(request, fault)
            if early is not None:
                return early
        if self._stopping:
            return _json(Refusal(503, "The server is shutting down", "ServiceUnavailable", None).body, 503)
        try:
            content_type = request.headers.get("content-type", "")
            generation = read_generation(body, content_type, self.options, chat=chat)
        except Refusal as refusal:
            return _json(refusal.body, refusal.status)
        sequences = _sequences(self.options, generation, fault)
        for sequence in sequences:
            self._engine.submit(sequence)
        given = request.headers.get("x-request-id") or uuid.uuid4().hex[:16]
        head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{given}",
            "object": "",
            "created": int(time.time()),
            "model": self.options.model,
        }
        try:
            if generation.stream:
                return await self._stream(request, generation, sequences, head, fault)
            return await self._whole(request, generation, sequences, head, fault)
        finally:
            for sequence in sequences:
                self._engine.abort(sequence)

    async def _whole(
        self,
        request: web.Request,
        generation: Generation,
        sequences: list[Sequence],
        head: dict[str, Any],
        fault: Fault | None,
    ) -> web.Response:
        head["object"] = "chat.completion" if generation.chat else "text_completion"
        if fault is not None and fault.kind in MIDWAY and fault.value is not None:
            await sequences[0].wait(int(fault.value) - 1)
            harmed = await harm.in_whole(request, fault)
            if harmed is not None:
                return harmed
        choices = []
        for index, sequence in enumerate(sequences):
            await sequence.ended()
            text = "".join(sequence.pieces)
            if generation.echo:
                text = decode(sequence.prompt) + text
            reason = sequence.finish_reason or "stop"
            choices.append(
                bodies.whole_choice(
                    generation, index, sequence.prompt, text, sequence.output, reason, sequence.stop_reason
                )
            )
        counts = self._usage(generation, sequences, whole=True)
        return _json(bodies.whole(generation, head, choices, counts))

    @staticmethod
    def _usage(generation: Generation, sequences: list[Sequence], *, whole: bool) -> dict[str, Any]:
        prompt = sum(map(len, generation.prompts))
        return bodies.usage(prompt, sum(len(s.output) for s in sequences), whole=whole)

    async def _stream(
        self,
        request: web.Request,
        generation: Generation,
        sequences: list[Sequence],
        head: dict[str, Any],
        fault: Fault | None,
    ) -> web.StreamResponse:
        head["object"] = "chat.completion.chunk" if generation.chat else "text_completion"
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        sent = itertools.count(1)

        async def follow(index: int, sequence: Sequence) -> None:
            plain = _plain_event(generation, sequence, head, index)
            async for piece in _pieces(sequence, decode(sequence.prompt) if generation.echo else ""):
                if piece.first and generation.chat:
                    await self._event(response, _role_event(generation, head, index, sequence))
                if plain is not None and not piece.last:
                    await response.write(plain[0] + _dump(piece.text) + plain[1])
                else:
                    await self._event(response, _token_event(generation, sequence, head, index, piece))
                if fault is not None:
                    await harm.in_stream(request, response, fault, next(sent))

        await asyncio.gather(*(follow(index, sequence) for index, sequence in enumerate(sequences)))
        if generation.include_usage:
            counts = self._usage(generation, sequences, whole=False)
            await self._event(
                response, {**head, "choices": [], "usage": counts, "system_fingerprint": bodies.FINGERPRINT}
            )
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    @staticmethod
    async def _event(response: web.StreamResponse, event: dict[str, Any]) -> None:
        await response.write(b"data: " + _dump(event) + b"\n\n")


async def _pieces(sequence: Sequence, echo: str) -> AsyncIterator[_Piece]:
    known = 0
    while True:
        await sequence.wait(known)
        while known < len(sequence.output):
            text, token = sequence.pieces[known], sequence.output[known]
            known += 1
            last = sequence.finish_reason is not None and known == len(sequence.output)
            yield _Piece(echo + text, [token], known, known == 1, last)
            echo = ""
            if last:
                return
        if sequence.finish_reason is not None:
            yield _Piece(echo + sequence.text.rest(), [], known, known == 0, last=True)
            return


def _sequences(options: SimOptions, generation: Generation, fault: Fault | None) -> list[Sequence]:
    slow = fault.value if fault is not None and fault.kind == "slow" and fault.value else 1.0
    return [
        Sequence(
            prompt,
            max_tokens=generation.max_tokens,
            min_tokens=generation.min_tokens,
            ignore_eos=generation.ignore_eos,
            seed=seed_of(options.weights, generation.seed + 2 * copy if generation.seed else 0),
            stop=generation.stop,
            keep_stop=generation.keep_stop,
            slow=slow,
            script=generation.script,
        )
        for prompt in generation.prompts
        for copy in range(generation.n)
    ]


def _token_event(
    generation: Generation, sequence: Sequence, head: dict[str, Any], index: int, piece: _Piece
) -> dict[str, Any]:
    reason = sequence.finish_reason if piece.last else None
    stop = sequence.stop_reason if piece.last else None
    prompt = sequence.prompt if piece.first else None
    choice = bodies.stream_choice(generation, index, prompt, piece.text, piece.tokens, reason, stop)
    event = {**head, "choices": [choice]}
    if generation.continuous_usage and generation.include_usage:
        event["usage"] = bodies.running_usage(generation, sequence.prompt, piece.known)
    if piece.last and not generation.include_usage:
        event["system_fingerprint"] = bodies.FINGERPRINT
    return event


def _plain_event(
    generation: Generation, sequence: Sequence, head: dict[str, Any], index: int
) -> tuple[bytes, bytes] | None:
    """The bytes before and after the text in events that differ in nothing else; None where they do."""
    if generation.token_ids or generation.logprobs is not None or generation.continuous_usage:
        return None
    mark = _dump("\0")  # comes nowhere else: JSON escapes it, and a request id cannot hold it
    event = _token_event(generation, sequence, head, index, _Piece("\0", [], 0, first=False, last=False))
    before, _, after = _dump(event).partition(mark)
    return b"data: " + before, after + b"\n\n"


def _role_event(generation: Generation, head: dict[str, Any], index: int, sequence: Sequence) -> dict[str, Any]:
    choice = {
        "index": index,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    prompt = generation.prompts[0] if generation.token_ids else None
    event = {**head, "choices": [choice], "prompt_token_ids": prompt, "prompt_text": None}
    if generation.continuous_usage and generation.include_usage:
        event["usage"] = bodies.running_usage(generation, sequence.prompt, 0)
    return event


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=_dump(value), status=status, headers={"content-type": "application/json"})


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        data = await request.json()
    except ValueError:
        data = {}
    return data if isinstance(data, dict) else {}
