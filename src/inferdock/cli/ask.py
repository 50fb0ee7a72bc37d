"""``inferdock ask``: one question, answered in the terminal."""

from __future__ import annotations

import asyncio
import sys

import click

from inferdock.bench.client import chat, first_model, session
from inferdock.cli.output import output_option, print_json, printable
from inferdock.domain.errors import ConfigError


@click.command(context_settings={"show_default": True})
@click.argument("question")
@click.option("--url", default="http://127.0.0.1:8080/v1", envvar="OPENAI_BASE_URL", help="OpenAI base address.")
@click.option("--model", help="Model to ask; default: the first that the server lists.")
@click.option("--system", help="System prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, help="Sampling temperature.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Bearer key; default $OPENAI_API_KEY.", show_default=False)
@output_option
def ask(
    question: str,
    url: str,
    model: str | None,
    system: str | None,
    max_tokens: int,
    temperature: float,
    api_key: str | None,
    output: str,
) -> None:
    """Ask the model one question; the answer streams to the terminal. `-` reads the question from standard input.

    \b
    Example:
      inferdock ask "How do I roll back?"
      git diff | inferdock ask - --system "Review this change."
    """
    text = sys.stdin.buffer.read().decode("utf-8", "replace") if question == "-" else question
    if not text.strip():
        raise ConfigError("There is no question.", cure='For instance: inferdock ask "What is Inferdock?"')
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    body: dict[str, object] = {"messages": messages, "max_tokens": max_tokens, "temperature": temperature}
    asyncio.run(_ask(url.rstrip("/"), model, body, api_key, output))


async def _ask(url: str, model: str | None, body: dict[str, object], api_key: str | None, output: str) -> None:
    pieces: list[str] = []
    async with session(api_key, 600.0) as http:
        body["model"] = model or await first_model(http, url)
        async for piece, _ in chat(http, url, body):
            pieces.append(piece)
            if output == "table":
                print(printable(piece), end="", flush=True)
    if output == "json":
        # JSON may spell halves of surrogate pairs, which no output can carry.
        answer = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        print_json({"model": body["model"], "answer": answer})
    else:
        print()
