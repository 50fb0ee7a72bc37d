"""``inferdock verify``: the plan's lines as checks of a running target, with what was seen."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from inferdock.app.platform import resolve_state_root
from inferdock.app.render import CHART_NAME
from inferdock.app.verify.command import Order, checkout_at, verify
from inferdock.cli.output import note, print_json, printable, write_file
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.verify.check import Outcome, Result
from inferdock.verify.html import page
from inferdock.verify.report import Report, counted, spell_figures
from inferdock.verify.run import judge

_STYLES = {Outcome.PASS: "green", Outcome.FAIL: "bold red", Outcome.NEEDS: "dim"}
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(name="verify")
@config_file_option
@click.option("--url", metavar="URL", help="Gateway to look at; default: the platform that `up` runs here.")
@click.option("--admin-url", metavar="URL", help="Its admin address; default: what `up` says.")
@click.option("--port", type=int, help="Gateway port of the platform, where several run here.")
@click.option("--state-dir", type=_FOLDER, help="Where `up` keeps its state.")
@click.option("--model", help="Model to ask for; default: the first that the target lists.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Bearer key; default $OPENAI_API_KEY.")
@click.option(
    "--target",
    "kind",
    type=click.Choice(["local", "kubernetes"]),
    default="local",
    show_default=True,
    help="Where it runs; kubernetes: the cluster is asked too.",
)
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the chart.")
@click.option("--release", default=CHART_NAME, show_default=True, help="Name the chart was installed under.")
@click.option("--kube-context", help="Context of kubectl's configuration; default: the current one.")
@click.option("--kube-api", metavar="URL", help="Address of the API server, for instance of a `kubectl proxy`.")
@click.option("--checkout", type=_FOLDER, help="Checkout of Inferdock; default: the one this folder lies in.")
@click.option("--only", multiple=True, metavar="IDS", help="Only these: 2.3, 3.*, 1.5.chat; commas between them.")
@click.option("--skip", multiple=True, metavar="IDS", help="Without these.")
@click.option("--users", type=click.IntRange(min=1), default=50, show_default=True, help="Users of the load.")
@click.option(
    "--load-seconds", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Of the load."
)
@click.option(
    "--cost-per-hour", type=float, metavar="DOLLARS", help="Of all that serves; default: the configuration's."
)
@click.option("--disruptive", is_flag=True, help="Allow checks that take a replica out of the target.")
@click.option(
    "--with-release", "candidate", metavar="NAME@VERSION", help="Allow checks to release this version and to go back."
)
@click.option("--long", is_flag=True, help="Allow checks that take many minutes.")
@click.option("--aws", is_flag=True, help="Allow checks that use the AWS account of the environment.")
@click.option("--strict", is_flag=True, help="What could not be run counts as failed.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "html"]),
    default="table",
    show_default=True,
    help="Form of what is printed on standard output.",
)
@click.option("--json", "json_file", type=_FILE, help="Write the JSON report here too.")
@click.option("--html", "html_file", type=_FILE, help="Write the HTML report here too.")
def verify_command(
    config_file: Path | None,
    state_dir: Path | None,
    checkout: Path | None,
    kind: str,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    load_seconds: float,
    cost_per_hour: float | None,
    strict: bool,
    output: str,
    json_file: Path | None,
    html_file: Path | None,
    **given: Any,
) -> None:
    """Check a running target against the plan: each check runs something and shows what it saw, or says what it needs.

    Nothing is changed unless --disruptive or --with-release allow it; but there is load on the target.

    Exit code 8 when a check failed (with --strict also when one could not be run), 12 when none could be run.

    \b
    Example:
      inferdock verify
      inferdock verify --only 1.5,4.3 -o json
      inferdock verify --url http://127.0.0.1:8080 --cost-per-hour 1.20 --html report.html
      inferdock verify --target kubernetes -n models --url http://127.0.0.1:8080
    """
    flags = {"state_dir": ("--state-dir", state_dir), "cost.cost_per_hour": ("--cost-per-hour", cost_per_hour)}
    settings = load_settings(config_file, flags).settings
    order = Order(
        state_root=resolve_state_root(settings, os.environ),
        checkout=checkout_at(checkout or Path.cwd()),
        kubernetes=kind == "kubernetes",
        only=_split(only),
        skip=_split(skip),
        load_s=load_seconds,
        cost_per_hour=settings.cost.cost_per_hour,
        **given,
    )
    with _Teller() as told:
        report = uvloop.run(verify(order, os.environ, told=told))
    _show(report, output)
    for path, text in ((json_file, _json(report)), (html_file, page(report))):
        if path is not None:
            write_file(path, text)
    judge(report.results, strict=strict)


def _split(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for pattern in patterns for part in pattern.split(",") if part.strip())


class _Teller:
    """Progress: a bar on a terminal, a line per check elsewhere."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True) if sys.stderr.isatty() else None
        self._task: TaskID | None = None
        self._done = 0

    def __enter__(self) -> _Teller:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("looking", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, result: Result, total: int) -> None:
        """Take in a result."""
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, total=total, description=f"after {result.id}")
        else:
            seen = result.evidence.outcome
            note(f"{self._done:>3}/{total}  {seen.value:<5}  {result.id}  ({result.seconds:.1f} s)")


def _show(report: Report, output: str) -> None:
    if output == "json":
        print_json(report.document())
    elif output == "html":
        print(page(report), end="")
    else:
        _print(report)


def _print(report: Report) -> None:
    console = Console(soft_wrap=False, highlight=False)
    facts = ", ".join(f"{name} {text}" for name, text in report.facts.items())
    console.print(Text(f"{report.target}  {printable(facts)}", style="bold"))
    console.print(_table(report))
    console.print(Text(counted(report), style=f"bold {_STYLES[report.outcome()]}"))


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what was seen, or what it needs", overflow="fold")
    for result in report.results:
        seen = result.evidence
        text = Text(printable(" ".join(seen.sentence.split())))
        if seen.figures:
            text.append(f"  ({printable(spell_figures(seen.figures))})", style="dim")
        table.add_row(Text(result.id), Text(seen.outcome.value, style=_STYLES[seen.outcome]), text)
    return table


def _json(report: Report) -> str:
    return json.dumps(report.document(), indent=1, ensure_ascii=False) + "\n"
