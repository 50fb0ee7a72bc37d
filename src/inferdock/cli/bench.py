"""``inferdock bench``: load on any OpenAI-compatible address."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from inferdock.bench.arrivals import constant, poisson
from inferdock.bench.client import REFUSED, Asking, Client, Outcome, first_model, session
from inferdock.bench.report import document, plot, pyplot, write_json
from inferdock.bench.runner import Progress as RunProgress
from inferdock.bench.runner import Runner
from inferdock.bench.slo import Objective, Verdict, good_request, judge, parse_objective
from inferdock.bench.stats import Distribution, Summary, summarise
from inferdock.bench.workload import Task, from_file, parse_length, synthetic
from inferdock.cli.output import note, output_option, print_json
from inferdock.domain.errors import CheckFailedError, ConfigError, InferdockError, UnreachableError

LATE_S = 0.05
"""A client that sends this late (p99) was itself the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked on the command line."""

    urls: tuple[str, ...]
    arrival: str
    concurrency: int
    rate: float | None
    requests: int | None
    duration: float | None
    warmup: int
    prompt_tokens: str
    output_tokens: str
    prompts: Path | None
    shared_prefix: int
    api: str
    model: str | None
    stream: bool
    temperature: float
    exact_output: bool
    seed: int
    timeout: float
    api_key: str | None
    slo: tuple[str, ...]
    json_file: Path | None
    plot_file: Path | None
    output: str

    def configuration(self, model: str) -> dict[str, object]:
        """For the report: everything but the key and where files go."""
        hidden = {"api_key", "json_file", "plot_file", "output", "prompts"}
        named = {f: getattr(self, f) for f in self.__dataclass_fields__ if f not in hidden}
        return {**named, "model": model, "prompts": str(self.prompts) if self.prompts else None}


@click.command(context_settings={"show_default": True})
@click.argument("urls", nargs=-1)
@click.option(
    "--arrival", type=click.Choice(["closed", "poisson", "constant"]), help="Default: closed, or poisson with --rate."
)
@click.option("--concurrency", type=click.IntRange(min=1), default=50, help="Users of a closed loop.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests per second of an open loop.")
@click.option("--requests", type=click.IntRange(min=1), help="Requests to measure (default 500 without --duration).")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Seconds to send for.")
@click.option("--warmup", type=click.IntRange(min=0), default=20, help="Requests sent first and not counted.")
@click.option("--prompt-tokens", default="32", help="N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA (words).")
@click.option("--output-tokens", default="50", help="N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA.")
@click.option("--prompts", type=click.Path(dir_okay=False, path_type=Path), help="File of prompts, one per line.")
@click.option("--shared-prefix", type=click.IntRange(min=0), default=0, help="Words that all prompts begin with.")
@click.option("--api", type=click.Choice(["chat", "completions"]), default="chat", help="Route to use.")
@click.option("--model", help="Model to ask for; default: the first that the server lists.")
@click.option("--stream/--no-stream", default=True, help="Stream the answers.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, help="Sampling temperature.")
@click.option("--exact-output/--free-output", default=True, help="Ask for exactly --output-tokens (vLLM's ignore_eos).")
@click.option("--seed", type=int, default=1, help="Seed of prompts and arrivals.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=600.0, help="Seconds per request.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Bearer key; default $OPENAI_API_KEY.", show_default=False)
@click.option("--slo", multiple=True, metavar="OBJECTIVE", help="ttft_p95=500ms, tpot_p50=50ms, error_rate=1%, ...")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the full result here."
)
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a PNG picture here.")
@output_option
def bench(arrival: str | None, **given: object) -> int:
    """Measure latency and throughput of any OpenAI-compatible address (default http://127.0.0.1:8080/v1).

    Several URLs are used in turn. Exit code 8 when an objective (--slo) is missed.

    \b
    Example:
      inferdock bench --concurrency 50 --output-tokens 50 --slo ttft_p95=500ms --slo tpot_p50=50ms
      inferdock bench --rate 20 --duration 60 --plot run.png --json run.json
    """
    urls = tuple(str(url).rstrip("/") for url in given.pop("urls") or ("http://127.0.0.1:8080/v1",))  # type: ignore[attr-defined]
    options = Options(urls=urls, arrival=arrival or ("poisson" if given["rate"] else "closed"), **given)  # type: ignore[arg-type]
    if options.arrival != "closed" and options.rate is None:
        raise ConfigError(f"--arrival {options.arrival} needs --rate.", cure="For instance --rate 20.")
    objectives = [parse_objective(text) for text in options.slo]
    tasks = _tasks(options)
    if options.plot_file is not None:
        pyplot()  # said now, not after the run
    return uvloop.run(_bench(options, objectives, tasks))


def _tasks(options: Options) -> Iterator[Task]:
    rng = random.Random(options.seed)
    output = parse_length(options.output_tokens)
    if options.prompts is not None:
        return from_file(options.prompts, output, rng)
    prompt = parse_length(options.prompt_tokens)
    return synthetic(prompt, output, rng, shared_prefix_words=options.shared_prefix)


async def _bench(options: Options, objectives: list[Objective], tasks: Iterator[Task]) -> int:
    async with session(options.api_key, options.timeout) as http:
        model = options.model or await first_model(http, options.urls[0])
        asking = Asking(
            base_urls=options.urls,
            model=model,
            chat=options.api == "chat",
            stream=options.stream,
            temperature=options.temperature,
            exact_output=options.exact_output,
        )
        client = await _warm_up(Client(http, asking), tasks, options)
        cpu, events = time.process_time(), client.events
        progress, interrupted = await _run(client, tasks, options)
        cpu, events = time.process_time() - cpu, client.events - events
    outcomes = progress.outcomes
    summary = summarise(outcomes, good_request(objectives))
    verdicts = [(objective, *judge(objective, summary)) for objective in objectives]
    rows = [
        {"objective": o.text, "verdict": str(v), "value": value if math.isfinite(value) else None}
        for o, v, value in verdicts
    ]
    result = document(summary, {**options.configuration(model), "exact_output": client.asking.exact_output}, rows)
    result["unfinished"] = progress.sent - progress.done
    result["client"] = {"cpu_s": round(cpu, 3), "events": events, "cpu_s_per_1000_events": _per_1000(cpu, events)}
    _report(options, result, summary, outcomes, verdicts)
    if interrupted:
        return 130
    if outcomes and not summary.succeeded:
        raise _nothing_succeeded(summary.errors, options.urls)
    missed = [objective.text for objective, verdict, _ in verdicts if verdict is not Verdict.PASS]
    if missed:
        raise CheckFailedError(f"Not shown to be met: {', '.join(missed)}.")
    return 0


def _per_1000(cpu_s: float, events: int) -> float | None:
    return round(cpu_s / events * 1000, 4) if events else None


def _nothing_succeeded(errors: Mapping[str, int], urls: Sequence[str]) -> InferdockError:
    kinds = ", ".join(errors)
    if set(errors) <= {REFUSED}:
        return UnreachableError(f"No request succeeded ({kinds}).", cure=f"Is {urls[0]} the right address?")
    return CheckFailedError(f"No request succeeded ({kinds}).", cure="Look into the log of the server.")


async def _warm_up(client: Client, tasks: Iterator[Task], options: Options) -> Client:
    """The client to measure with: one that leaves out vLLM's own fields where the server refuses them.

    Raises:
        UnreachableError, CheckFailedError: not one request succeeded.
    """
    if not options.warmup:
        return client
    errors = await _errors_of_warm_up(client, tasks, options)
    if client.asking.exact_output and errors and set(errors) <= {"http 400", "http 422"}:
        note("The server refuses ignore_eos and min_tokens: answers may be shorter than asked for.")
        client = client.without_exact_output()
        errors = await _errors_of_warm_up(client, tasks, options)
    if errors:
        raise _nothing_succeeded(errors, options.urls)
    return client


async def _errors_of_warm_up(client: Client, tasks: Iterator[Task], options: Options) -> Mapping[str, int]:
    """Errors by kind if every request failed, else none."""
    runner = Runner(client, tasks, requests=options.warmup, duration_s=None)
    await runner.closed(min(options.concurrency, options.warmup))
    summary = summarise(runner.progress.outcomes)
    return {} if summary.succeeded else summary.errors


async def _run(client: Client, tasks: Iterator[Task], options: Options) -> tuple[RunProgress, bool]:
    requests = options.requests or (None if options.duration else 500)
    runner = Runner(client, tasks, requests=requests, duration_s=options.duration)
    if options.arrival == "closed":
        load = runner.closed(options.concurrency)
    else:
        rate = options.rate or 1.0
        rng = random.Random(options.seed + 1)
        load = runner.open(poisson(rate, rng) if options.arrival == "poisson" else constant(rate))
    work = asyncio.ensure_future(load)
    shown = asyncio.create_task(_show_progress(runner, requests))
    interrupted = False
    try:
        await work
    except asyncio.CancelledError:  # Ctrl-C: what was measured so far still counts
        interrupted = True
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
    return runner.progress, interrupted


async def _show_progress(runner: Runner, requests: int | None) -> None:
    progress = runner.progress
    if not sys.stderr.isatty():
        while True:
            await asyncio.sleep(5.0)
            note(f"{progress.done}/{requests or progress.sent} answered, {progress.failed} failed")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=requests)
        while True:
            bar.update(task, completed=progress.done, description=f"measuring ({progress.failed} failed)")
            await asyncio.sleep(0.2)


def _report(
    options: Options,
    result: dict[str, object],
    summary: Summary,
    outcomes: list[Outcome],
    verdicts: list[tuple[Objective, Verdict, float]],
) -> None:
    if options.output == "json":
        print_json(result)
    else:
        _print_tables(options, result, summary, verdicts)
    if options.json_file is not None:
        write_json(options.json_file, result)
    if options.plot_file is not None:
        plot(options.plot_file, outcomes, f"{summary.requests} requests, {summary.requests_per_s:.1f}/s")


def _print_tables(
    options: Options,
    result: Mapping[str, object],
    summary: Summary,
    verdicts: list[tuple[Objective, Verdict, float]],
) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(_latencies(summary))
    console.print(
        f"{summary.succeeded}/{summary.requests} answered in {summary.duration_s:.1f} s: "
        f"{summary.requests_per_s:.2f} requests/s, {summary.output_tokens_per_s:.0f} output tokens/s, "
        f"{summary.total_tokens_per_s:.0f} tokens/s"
    )
    if summary.goodput_per_s is not None:
        console.print(f"goodput {summary.goodput_per_s:.2f} requests/s")
    for kind, count in summary.errors.items():
        console.print(f"failed: {count} × {kind}", style="red")
    if result["unfinished"]:
        console.print(f"interrupted: {result['unfinished']} requests were under way and do not count", style="yellow")
    if summary.counted_tokens:
        console.print("The server reports no usage: tokens were counted as events.", style="yellow")
    if summary.send_lag_p99_s > LATE_S and options.arrival != "closed":
        console.print(f"Sent late (p99 {summary.send_lag_p99_s:.3f} s): this client was the limit.", style="yellow")
    for objective, verdict, value in verdicts:
        style = {"pass": "green", "fail": "red"}.get(str(verdict), "yellow")
        console.print(f"{verdict}: {objective.text} (measured {value:.4g})", style=style)


def _latencies(summary: Summary) -> Table:
    table = Table("", "mean", "p50", "p95", "p99", "samples", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    rows: dict[str, Distribution] = {
        "TTFT ms": summary.ttft,
        "TPOT ms": summary.tpot,
        "ITL ms": summary.itl,
        "end-to-end ms": summary.e2e,
    }
    for name, d in rows.items():
        figures = ["–" if math.isnan(v) else f"{v * 1e3:.1f}" for v in (d.mean, d.p50, d.p95, d.p99)]
        table.add_row(name, *figures, str(d.count))
    return table
