"""The engine that Inferdock replaces: PyTorch and Transformers behind a small HTTP server, as scripts typically are.

One request at a time (a lock around ``generate()``), no batching, float32, the whole model in one process. Neither
crippled nor tuned: streaming works (``TextIteratorStreamer``), so that TTFT and TPOT can be measured fairly. Used by
``bench/migration.py`` and by nothing else.

    python -m bench.legacy_server --model models/demo --port 8001
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer


class BadRequestError(Exception):
    """The request cannot be served."""


@dataclass(frozen=True)
class Job:
    """One request: prompt ids of shape (1, tokens), and how to generate."""

    ids: torch.Tensor
    max_tokens: int
    min_tokens: int
    ignore_eos: bool
    stream: bool
    include_usage: bool


class Engine:
    """Loads a model and generates, one request at a time."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.eval()
        self.lock = asyncio.Lock()

    def read(self, body: dict[str, Any], *, chat: bool) -> Job:
        """Turn a request body into a job.

        Raises:
            BadRequestError: a field is missing or has the wrong type.
        """
        try:
            if chat:
                text = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
                ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
            else:
                ids = self.tokenizer(str(body["prompt"]), return_tensors="pt")["input_ids"]
            max_tokens = int(body.get("max_tokens") or 128)
            if max_tokens < 1 or not ids.shape[1]:
                raise ValueError("nothing to generate from, or nothing to generate")
            return Job(
                ids=ids,
                max_tokens=max_tokens,
                min_tokens=min(int(body.get("min_tokens") or 0), max_tokens),
                ignore_eos=bool(body.get("ignore_eos")),
                stream=bool(body.get("stream")),
                include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, TemplateError) as exc:
            raise BadRequestError(f"bad request: {exc!r}") from exc

    def generate(self, job: Job, streamer: TextIteratorStreamer | None = None) -> torch.Tensor:
        """Generated ids of shape (tokens,), by greedy search."""
        minimum = job.max_tokens if job.ignore_eos else job.min_tokens
        with torch.inference_mode():
            out: torch.Tensor = self.model.generate(
                input_ids=job.ids,
                attention_mask=torch.ones_like(job.ids),
                max_new_tokens=job.max_tokens,
                min_new_tokens=minimum or None,
                do_sample=False,
                streamer=streamer,
            )
        return out[0, job.ids.shape[1] :]

    def stream(self, job: Job) -> Iterator[str]:
        """Pieces of text as they are generated, in a thread of their own."""
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        thread = threading.Thread(target=self.generate, args=(job, streamer))
        thread.start()
        yield from streamer
        thread.join()


def _usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _error(message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "invalid_request_error"}}, status=400)


async def _answer(engine: Engine, request: web.Request, *, chat: bool) -> web.StreamResponse:
    try:
        job = engine.read(await request.json(), chat=chat)
    except (ValueError, BadRequestError) as exc:
        return _error(str(exc))
    kind = "chat.completion" if chat else "text_completion"
    head = {"id": uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": engine.name}
    async with engine.lock:
        if job.stream:
            return await _stream(engine, job, request, head, chat=chat)
        ids = await asyncio.to_thread(engine.generate, job)
    text = engine.tokenizer.decode(ids, skip_special_tokens=True)
    content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, "finish_reason": "stop", **content}
    return web.json_response({**head, "choices": [choice], "usage": _usage(job.ids.shape[1], len(ids))})


async def _stream(
    engine: Engine, job: Job, request: web.Request, head: dict[str, Any], *, chat: bool
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    pieces = engine.stream(job)
    text = ""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        text += piece
        content = {"delta": {"content": piece}} if chat else {"text": piece}
        event = {**head, "choices": [{"index": 0, "finish_reason": None, **content}]}
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    if job.include_usage:
        # With ignore_eos the count is known; else the text is counted again, as the streamer gives no ids.
        output = job.max_tokens if job.ignore_eos else len(engine.tokenizer.encode(text, add_special_tokens=False))
        event = {**head, "choices": [], "usage": _usage(job.ids.shape[1], output)}
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def build(engine: Engine) -> web.Application:
    """The HTTP application."""

    async def chat(request: web.Request) -> web.StreamResponse:
        return await _answer(engine, request, chat=True)

    async def completions(request: web.Request) -> web.StreamResponse:
        return await _answer(engine, request, chat=False)

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": engine.name, "object": "model"}]})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat),
            web.post("/v1/completions", completions),
            web.get("/v1/models", models),
            web.get("/health", health),
        ]
    )
    return app


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The legacy engine.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    args = parser.parse_args()
    if not (args.model / "config.json").is_file():
        parser.error(f"{args.model} holds no config.json")
    web.run_app(build(Engine(args.model)), host=args.host, port=args.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
