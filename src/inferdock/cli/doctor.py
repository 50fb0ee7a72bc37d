"""``inferdock doctor``: what would stop us here, and the cure."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferdock.app.models import look_at_model
from inferdock.cli.output import output_option, print_json
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.domain.errors import CheckFailedError
from inferdock.supervisor.engine import Machine
from inferdock.supervisor.preflight import Check, Verdict, all_checks

STYLE = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


@click.command()
@config_file_option
@click.option("--model", help="Model to check; default: the configured one.")
@click.option("--replicas", type=int, help="Number of replicas to check for.")
@click.option("--port", type=int, help="Port to check.")
@click.option("--engine", type=click.Choice(["vllm", "sim"]), help="Engine to check for.")
@output_option
def doctor(
    config_file: Path | None, model: str | None, replicas: int | None, port: int | None, engine: str | None, output: str
) -> None:
    """Say what on this machine would stop us, and the cure. Exit code 8 when something would.

    \b
    Example:
      inferdock doctor --model ./mistral-7b --replicas 2
    """
    flags = {
        "model.source": ("--model", model),
        "engine.replicas": ("--replicas", replicas),
        "gateway.port": ("--port", port),
        "engine.kind": ("--engine", engine),
    }
    settings = load_settings(config_file, flags).settings
    checks = list(all_checks(settings, Machine.here(), lambda: look_at_model(settings, os.environ)))
    if output == "json":
        print_json([{"name": c.name, "verdict": c.verdict, "message": c.message, "cure": c.cure} for c in checks])
    else:
        _print_table(checks)
    failed = [check.name for check in checks if check.verdict is Verdict.FAIL]
    if failed:
        raise CheckFailedError(f"{len(failed)} check(s) failed: {', '.join(failed)}.")


def _print_table(checks: list[Check]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        text = Text(check.message)
        if check.cure:
            text.append(f"\n→ {check.cure}", style="bold")
        table.add_row(Text(str(check.verdict), style=STYLE[check.verdict]), check.name, text)
    Console().print(table)
