"""``inferdock status``: what runs here, and how busy it is."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.console import Console

from inferdock.app.platform import resolve_state_root
from inferdock.cli.output import output_option, print_json
from inferdock.cli.platform_view import load_line, merged_rows, replica_table, shares, worker_lines
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.supervisor.probe import Probe
from inferdock.supervisor.state import read_state


@click.command()
@config_file_option
@click.option("--port", type=int, help="Gateway port of the platform, where several run.")
@click.option("--state-dir", type=click.Path(file_okay=False, path_type=Path), help="Where `up` keeps its state.")
@click.option("--watch", is_flag=True, help="Show it again every second until Ctrl-C.")
@output_option
def status(config_file: Path | None, port: int | None, state_dir: Path | None, watch: bool, output: str) -> None:
    """Show the running platform: replicas, load, latency.

    \b
    Example:
      inferdock status --watch
      inferdock status -o json | jq .gateway.requests_per_s
    """
    settings = load_settings(config_file, {"state_dir": ("--state-dir", state_dir)}).settings
    root = resolve_state_root(settings, os.environ)
    while True:
        state = read_state(root, port)
        gateway = asyncio.run(_ask_gateway(state["admin_url"])) if state.get("admin_url") else None
        if watch and output == "table":
            click.clear()
        _print(state, gateway, output)
        if not watch:
            return
        time.sleep(1.0)


async def _ask_gateway(admin_url: str) -> dict[str, Any] | None:
    async with aiohttp.ClientSession() as session:
        return await Probe(session).gateway_status(admin_url)


def _print(state: dict[str, Any], gateway: dict[str, Any] | None, output: str) -> None:
    if output == "json":
        print_json({**state, "gateway": gateway})
        return
    console = Console(soft_wrap=True, highlight=False)
    revision = shares(state["revision"], state.get("weights", {}))
    console.print(f"[bold]{state['model']}[/bold]  {revision}  {state['url']}/v1  ({state['engine']})")
    console.print(replica_table(merged_rows(state["replicas"], gateway)))
    console.print(load_line(gateway))
    for line in worker_lines(gateway):
        console.print(line)
    for replica in state["replicas"]:
        if replica["problem"]:
            console.print(f"{replica['name']}: {replica['problem']} Log: {replica['log']}", style="red", markup=False)
