"""``inferdock eval``: is a candidate as good as the champion?"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from inferdock.cli.output import note, output_option, print_json, printable, write_file
from inferdock.domain.errors import CheckFailedError, InconclusiveError
from inferdock.domain.verdict import Verdict
from inferdock.evaluation.bootstrap import Drawing
from inferdock.evaluation.client import parse_endpoint
from inferdock.evaluation.evaluate import How, evaluate
from inferdock.evaluation.html import page
from inferdock.evaluation.limits import DEFAULTS, Rules, rules
from inferdock.evaluation.report import Example, Report, measure_cells, spell_finding, spell_sizes
from inferdock.evaluation.tasks import DEMO, TaskSet, read_tasks

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow"}
_EXAMPLES_SHOWN = 3
_LINE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked on the command line, but limits and tasks."""

    champion: str
    candidate: str
    concurrency: int
    timeout: float
    logprobs: bool
    confidence: float
    resamples: int
    seed: int
    api_key: str | None

    def how(self) -> How:
        """For the evaluation."""
        return How(
            concurrency=self.concurrency,
            timeout_s=self.timeout,
            logprobs=self.logprobs,
            drawing=Drawing(resamples=self.resamples, level=self.confidence / 100, seed=self.seed),
        )


@click.command(name="eval", context_settings={"show_default": True})
@click.option("--champion", required=True, metavar="URL[#MODEL]", help="What serves now.")
@click.option("--candidate", required=True, metavar="URL[#MODEL]", help="What is to be judged.")
@click.option(
    "--tasks",
    required=True,
    metavar="FILE",
    help="Tasks, JSONL; `demo` for the set of the demo model. docs/evaluation.md shows the form.",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="LIMIT",
    help=f"[GROUP:]METRIC >= VALUE or <= VALUE; given ones replace the defaults: {', '.join(DEFAULTS)}.",
)
@click.option("--min-samples", type=click.IntRange(min=1), default=30, help="Tasks below which nothing is decided.")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=8, help="Tasks under way at once.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, help="Seconds per request.")
@click.option("--logprobs/--no-logprobs", default=True, help="Compare log-probabilities, where the engines give them.")
@click.option("--confidence", type=click.FloatRange(50, 99.9), default=95.0, help="Of the intervals, percent.")
@click.option("--resamples", type=click.IntRange(200, 20_000), default=2_000, help="Drawings of the bootstrap.")
@click.option("--seed", type=int, default=1, help="Of the bootstrap.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Bearer key; default $OPENAI_API_KEY.", show_default=False)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the full result here."
)
@click.option("--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a page for people.")
@output_option
def evaluation(
    tasks: str,
    limits: tuple[str, ...],
    min_samples: int,
    json_file: Path | None,
    html_file: Path | None,
    output: str,
    **given: object,
) -> int:
    """Ask a candidate and the champion the same tasks, and say whether the candidate is as good.

    The verdict is pass, fail (exit code 8) or inconclusive: the tasks do not tell (exit code 12).

    \b
    Example:
      inferdock eval --champion http://127.0.0.1:8001/v1 --candidate http://127.0.0.1:8002/v1 --tasks demo
      inferdock eval --champion URL --candidate URL --tasks tasks.jsonl --limit 'exact >= -2%' --html report.html
    """
    options = Options(**given)  # type: ignore[arg-type]
    judged = rules(limits, least_samples=min_samples)
    found = read_tasks(DEMO if tasks == "demo" else Path(tasks))
    report = uvloop.run(_evaluate(options, found, judged))
    if json_file is not None:
        write_file(json_file, json.dumps(report.document(), indent=1) + "\n")
    if html_file is not None:
        write_file(html_file, page(report))
    if output == "json":
        print_json(report.document())
    else:
        _print(report)
    if report.verdict is Verdict.INCONCLUSIVE:
        raise InconclusiveError(
            "These tasks do not tell whether the limits hold.",
            cure="Give more tasks, or wider limits.",
        )
    return 0 if report.verdict is Verdict.PASS else CheckFailedError.exit_code


async def _evaluate(options: Options, tasks: TaskSet, judged: Rules) -> Report:
    champion = parse_endpoint(options.champion, api_key=options.api_key)
    candidate = parse_endpoint(options.candidate, api_key=options.api_key)
    with _Shown() as shown:
        return await evaluate(champion, candidate, tasks, judged, shown, how=options.how())


class _Shown:
    """Progress: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True) if sys.stderr.isatty() else None
        self._task: TaskID | None = None
        self._said_at = time.monotonic()

    def __enter__(self) -> _Shown:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("asking", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, failed: int) -> None:
        """Take in how far it is."""
        if self._bar is not None and self._task is not None:
            what = "comparing" if done == total else f"asking ({failed} failed)"
            self._bar.update(self._task, completed=done, total=total, description=what)
        elif time.monotonic() - self._said_at >= _LINE_EVERY_S:
            self._said_at = time.monotonic()
            note(f"{done}/{total} tasks answered, {failed} failed")


def _print(report: Report) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(_table(report))
    for example in report.examples[:_EXAMPLES_SHOWN]:
        _print_example(console, example)
    console.print(
        f"{report.compared} of {report.tasks} tasks compared, {report.changed} answered differently, "
        f"{report.seconds:.0f} s"
    )
    for name, side in (("champion", report.champion), ("candidate", report.candidate)):
        for error, count in side.failures.items():
            console.print(Text(f"{name} failed: {count} × {printable(error)}", style="red"))
    for sentence in (*spell_sizes(report), *report.notes):
        console.print(Text(sentence, style="dim"))
    for finding in report.findings:
        console.print(Text(f"{finding.verdict}: {spell_finding(finding)}", style=STYLES[finding.verdict]))
    console.print(Text(f"verdict: {report.verdict}", style=f"bold {STYLES[report.verdict]}"))


def _table(report: Report) -> Table:
    head = ("group", "metric", "tasks", "champion", "candidate", "change", "interval")
    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for column in table.columns[2:]:
        column.justify = "right"
    for measure in report.measures:
        table.add_row(*map(Text, measure_cells(measure)))
    return table


def _print_example(console: Console, example: Example) -> None:
    marks = [*(f"lost {kind}" for kind in example.lost), *(f"won {kind}" for kind in example.won)]
    head = f"{example.id} ({', '.join(marks) or f'{example.likeness:.0%} alike'}): {_short(example.question)}"
    console.print(Text(head, style="bold"))
    console.print(Text(f"  champion:  {_short(example.champion)}"))
    console.print(Text(f"  candidate: {_short(example.candidate)}"))


def _short(text: str) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= 160 else line[:159] + "…"
