"""``inferdock cache stats``, ``flush``, ``evict`` and ``explain``."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferdock.app.platform import resolve_state_root
from inferdock.cli.output import note, output_option, print_json, printable
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.domain.errors import ConfigError, UnreachableError
from inferdock.supervisor.state import read_state

F = TypeVar("F", bound=Callable[..., Any])
ANSWER_S = 15.0
_STYLE = {"hit": "green", "miss": "yellow", "bypass": "magenta", "off": "red"}


def gateway_options(command: F) -> F:
    """Add what says which gateway is asked: ``-f``, ``--port``, ``--state-dir``, ``--admin-url``; see :func:`_ask`."""
    folder = click.Path(file_okay=False, path_type=Path)
    command = click.option("--admin-url", help="Admin address of a gateway that `up` did not start.")(command)
    command = click.option("--state-dir", type=folder, help="Where `up` keeps its state.")(command)
    command = click.option("--port", type=int, help="Gateway port of the platform, where several run.")(command)
    return config_file_option(command)


def _admin_url(config_file: Path | None, port: int | None, state_dir: Path | None, admin_url: str | None) -> str:
    if admin_url is not None:
        return admin_url.rstrip("/")
    settings = load_settings(config_file, {"state_dir": ("--state-dir", state_dir)}).settings
    return str(read_state(resolve_state_root(settings, os.environ), port)["admin_url"])


def _ask(where: str, name: str, body: bytes | None = None) -> dict[str, Any]:
    """One question to the gateway.

    Raises:
        UnreachableError: it does not answer.
        ConfigError: it refuses, for instance because no model uses the cache.
    """
    return asyncio.run(_fetch(f"{where}/admin/cache" + (f"/{name}" if body is not None else ""), body))


async def _fetch(url: str, body: bytes | None) -> dict[str, Any]:
    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as http,
            http.request(method, url, data=body) as response,
        ):
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        raise UnreachableError(
            f"The gateway does not answer at {url}.", cure="Is it running? `inferdock status`"
        ) from exc
    if response.status != 200:
        raise ConfigError(printable(str(answer.get("error", {}).get("message", "The gateway refuses."))))
    return dict(answer)


@click.group()
def cache() -> None:
    """Look into the response cache of the running platform, and invalidate what is in it."""


@cache.command()
@gateway_options
@output_option
def stats(
    config_file: Path | None, port: int | None, state_dir: Path | None, admin_url: str | None, output: str
) -> None:
    """Show what the cache holds, how often it hits, what it saves, and how many hits were wrong.

    \b
    Example:
      inferdock cache stats
      inferdock cache stats -o json | jq .hits
    """
    document = _ask(_admin_url(config_file, port, state_dir, admin_url), "stats")
    if output == "json":
        print_json(document)
        return
    console = Console(soft_wrap=True, highlight=False)
    for line in _figures(document):
        console.print(line)
    if document["audits"]:
        console.print(_audits(document["audits"]))


def _figures(document: Mapping[str, Any]) -> list[Text]:
    requests, hits = document["requests"], document["hits"]
    total = sum(requests.get(name, 0) for name in ("hit", "miss"))
    share = f"{sum(hits.values()) / total:.1%} of {total:.0f} look-ups" if total else "no look-up yet"
    by_tier = ", ".join(f"{tier} {count:.0f}" for tier, count in sorted(hits.items()))
    bypasses = ", ".join(f"{why} {count:.0f}" for why, count in sorted(document["bypasses"].items()))
    semantic, redis = document["semantic"], document["redis"]
    state = f"{semantic['state']}, messages up to {semantic['max_tokens']} tokens" if semantic["max_tokens"] else ""
    store = (
        "in this process" if redis is None else f"Redis, breaker {redis['breaker']}, {redis['log_entries']} in its log"
    )
    rows = [
        ("hits", share + (f" ({by_tier})" if by_tier else "")),
        ("bypassed", bypasses or "none"),
        ("entries", f"{document['entries']} ({document['bytes'] / 2**20:.1f} MiB), {document['vectors']} compared"),
        ("saved", f"{document['saved_tokens']:.0f} tokens, {document['saved_seconds']:.1f} s of engine time"),
        ("semantic", state or f"{semantic['state']} {semantic['problem']}".strip()),
        ("store", store),
    ]
    return [Text.assemble((f"{name:<10}", "bold"), printable(value)) for name, value in rows]


def _audits(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title="Semantic hits checked", title_justify="left")
    for column in ("model", "partitions", "wrong (95 %)", "unsure", "strictness", "why"):
        table.add_column(column, overflow="fold")
    for row in rows:
        wrong = row["wrong"]
        shown = "–" if wrong is None else f"{wrong[1]:.1%} ({wrong[0]:.1%} to {wrong[2]:.1%})"
        cells = (row["model"], row["partitions"], shown, str(row["unsure"]), row["strictness"], row["reason"])
        table.add_row(*(printable(cell) for cell in cells))
    return table


@cache.command()
@gateway_options
@click.option("--model", default="", help="Only answers of this model.")
@click.option("--tenant", default="", help="Only answers of this tenant (a key's tenant, else its id).")
@click.option("--all", "everything", is_flag=True, help="All answers.")
@output_option
def flush(
    config_file: Path | None,
    port: int | None,
    state_dir: Path | None,
    admin_url: str | None,
    model: str,
    tenant: str,
    everything: bool,
    output: str,
) -> None:
    """Make stored answers void at once, also those that are being generated now; with Redis at all gateways.

    \b
    Example:
      inferdock cache flush --model inferdock-demo
      inferdock cache flush --all
    """
    if everything == bool(model or tenant):
        raise click.UsageError("Say either --all, or --model and/or --tenant.")
    body = json.dumps({"model": model, "tenant": tenant}).encode()
    document = _ask(_admin_url(config_file, port, state_dir, admin_url), "flush", body)
    if output == "json":
        print_json(document)
    else:
        note(f"Flushed: {', '.join(document['flushed'])}.")


@cache.command()
@gateway_options
@click.argument("key")
@output_option
def evict(
    config_file: Path | None, port: int | None, state_dir: Path | None, admin_url: str | None, key: str, output: str
) -> None:
    """Drop one answer by its key, as `explain` shows it.

    \b
    Example:
      inferdock cache evict $(inferdock cache explain "What is Inferdock?" -o json | jq -r .key)
    """
    document = _ask(_admin_url(config_file, port, state_dir, admin_url), "evict", json.dumps({"key": key}).encode())
    if output == "json":
        print_json(document)
    else:
        note("The answer is gone." if document["evicted"] else "There was no such answer.")


@cache.command()
@gateway_options
@click.argument("prompt", required=False)
@click.option("--model", help="Model; default: the one that is served.")
@click.option("--system", help="System prompt of the request.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="As the client says it.")
@click.option("--tenant", default="", help="Whose request it would be (a key's tenant, else its id).")
@click.option(
    "--body", "body_file", type=click.File("rb"), help="A whole request as JSON instead; - for standard input."
)
@output_option
def explain(
    config_file: Path | None,
    port: int | None,
    state_dir: Path | None,
    admin_url: str | None,
    prompt: str | None,
    model: str | None,
    system: str | None,
    max_tokens: int,
    tenant: str,
    body_file: Any,
    output: str,
) -> None:
    """Say whether a request would hit, and why: nearest stored message, score, the guard's reason, partition.

    The answer depends on all of the request: a hit needs the same tenant, system prompt, history and parameters. PROMPT
    stands for what `inferdock ask` sends; for anything else give the request with --body. Nothing is generated.

    \b
    Example:
      inferdock cache explain "What is Inferdock?"
      inferdock cache explain --body request.json --tenant team-a
    """
    where = _admin_url(config_file, port, state_dir, admin_url)
    request = _request(prompt, system, max_tokens, body_file)
    name = model or request.get("model") or _only_model(where)
    request = {"model": name, **request}
    wish = json.dumps({"model": name, "tenant": tenant, "body": request}).encode()
    document = _ask(where, "explain", wish)
    if output == "json":
        print_json(document)
    else:
        _show(document)


def _request(prompt: str | None, system: str | None, max_tokens: int, body_file: Any) -> dict[str, Any]:
    if body_file is not None:
        try:
            request = json.loads(body_file.read())
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"The request is not JSON: {exc}.") from exc
        if not isinstance(request, dict):
            raise ConfigError("The request is not a JSON object.")
        return request
    text = sys.stdin.buffer.read().decode("utf-8", "replace") if prompt == "-" else prompt
    if not text:
        raise click.UsageError("Give a PROMPT, or a whole request with --body.")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return {"messages": messages, "max_tokens": max_tokens, "temperature": 0.0}


def _only_model(where: str) -> str:
    status = asyncio.run(_fetch(f"{where}/admin/status", None))
    models = sorted({endpoint["model"] for endpoint in status["endpoints"]})
    if len(models) != 1:
        raise ConfigError("Several models are served, or none.", cure="Choose one with --model.")
    return str(models[0])


def _show(document: Mapping[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    outcome = document["outcome"]
    tier = f", {document['tier']} tier" if "tier" in document else ""
    console.print(Text.assemble((outcome, f"bold {_STYLE.get(outcome, '')}"), f"{tier}: {document['reason']}"))
    names = (
        ("detail", "detail"),
        ("candidate", "nearest"),
        ("score", "score"),
        ("threshold", "threshold"),
        ("entries", "entries"),
        ("revision", "revision"),
        ("age_s", "age"),
        ("expires_in_s", "ends in"),
        ("answer", "answer"),
        ("tenant", "tenant"),
        ("identity", "answered by"),
        ("partition", "partition"),
        ("key", "key"),
    )
    for field, shown in names:
        value = document.get(field)
        if value not in (None, ""):
            unit = " s" if field in ("age_s", "expires_in_s") else ""
            console.print(Text.assemble((f"  {shown:<12}", "bold"), printable(str(value)) + unit))
