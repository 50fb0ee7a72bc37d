"""``inferdock status``: what runs here, and how busy it is; live on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path

import click
from rich.console import Console

from inferdock.app.platform import resolve_state_root
from inferdock.app.status import GatewaySource, PlatformSource, Source, settled
from inferdock.cli.output import output_option, print_json
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.cli.status.screen import can_be_live, watch
from inferdock.cli.status.view import plain
from inferdock.domain.errors import ConfigError


@click.command()
@config_file_option
@click.option("--port", type=int, help="Gateway port of the platform, where several run.")
@click.option("--state-dir", type=click.Path(file_okay=False, path_type=Path), help="Where `up` keeps its state.")
@click.option("--admin-url", metavar="URL", help="Admin address of a gateway that `up` did not start.")
@click.option(
    "--watch/--once",
    "live",
    default=None,
    help="Live until q or Ctrl-C, or one look; default: live on a terminal. With -o json: a line every second.",
)
@output_option
def status(
    config_file: Path | None,
    port: int | None,
    state_dir: Path | None,
    admin_url: str | None,
    live: bool | None,
    output: str,
) -> int:
    """Show the running platform: traffic, latency, caches, cost, release, replicas. The console shows the same.

    \b
    Example:
      inferdock status
      inferdock status --once
      inferdock status -o json | jq .live.figures.requests_per_s
      inferdock status --admin-url http://127.0.0.1:9901
    """
    settings = load_settings(config_file, {"state_dir": ("--state-dir", state_dir)}).settings
    source: Source
    if admin_url is not None:
        if not admin_url.startswith(("http://", "https://")):
            raise ConfigError(f"--admin-url {admin_url} is no web address.", cure="For instance http://127.0.0.1:9901.")
        source = GatewaySource(admin_url, settings.cost)
    else:
        source = PlatformSource(resolve_state_root(settings, os.environ), port)
    console = Console(highlight=False)
    if output == "json":
        asyncio.run(_lines(source) if live else _document(source))
        return 0
    if live is not False and can_be_live(console):
        return asyncio.run(watch(source, console))
    print("\n".join(plain(asyncio.run(settled(source)))))
    return 0


async def _document(source: Source) -> None:
    print_json((await settled(source)).document())


async def _lines(source: Source) -> None:
    """A document a line, until Ctrl-C or until there is nothing to see any more."""
    async with contextlib.aclosing(source.looks()) as looks:
        async for seen in looks:
            print(json.dumps(seen.document(), default=str, ensure_ascii=False), flush=True)
