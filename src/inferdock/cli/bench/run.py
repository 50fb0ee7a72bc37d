"""What ``inferdock bench`` runs: its options, and one load with its progress."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from inferdock.bench.arrivals import constant, poisson
from inferdock.bench.client import REFUSED, Asking, Client
from inferdock.bench.runner import Progress as RunProgress
from inferdock.bench.runner import Runner
from inferdock.bench.stats import summarise
from inferdock.bench.workload import Task, from_file, parse_length, synthetic
from inferdock.cli.output import note
from inferdock.domain.errors import CheckFailedError, InferdockError, UnreachableError


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
    sweep: str | None
    profile_file: Path | None
    values_file: Path | None
    json_file: Path | None
    plot_file: Path | None
    output: str

    def configuration(self, model: str) -> dict[str, object]:
        """For the report: everything but the key and where files go."""
        hidden = {"api_key", "json_file", "plot_file", "profile_file", "values_file", "output", "prompts"}
        named = {f: getattr(self, f) for f in self.__dataclass_fields__ if f not in hidden}
        return {**named, "model": model, "prompts": str(self.prompts) if self.prompts else None}


def asking_of(options: Options, model: str) -> Asking:
    """How each request is spelt."""
    return Asking(
        base_urls=options.urls,
        model=model,
        chat=options.api == "chat",
        stream=options.stream,
        temperature=options.temperature,
        exact_output=options.exact_output,
    )


def tasks_of(options: Options) -> Iterator[Task]:
    """What is asked; the same for the same seed."""
    rng = random.Random(options.seed)
    output = parse_length(options.output_tokens)
    if options.prompts is not None:
        return from_file(options.prompts, output, rng)
    prompt = parse_length(options.prompt_tokens)
    return synthetic(prompt, output, rng, shared_prefix_words=options.shared_prefix)


def nothing_succeeded(errors: Mapping[str, int], urls: Sequence[str]) -> InferdockError:
    """What is raised where every request failed."""
    kinds = ", ".join(errors)
    if set(errors) <= {REFUSED}:
        return UnreachableError(f"No request succeeded ({kinds}).", cure=f"Is {urls[0]} the right address?")
    return CheckFailedError(f"No request succeeded ({kinds}).", cure="Look into the log of the server.")


async def warm_up(client: Client, tasks: Iterator[Task], options: Options) -> Client:
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
        raise nothing_succeeded(errors, options.urls)
    return client


async def _errors_of_warm_up(client: Client, tasks: Iterator[Task], options: Options) -> Mapping[str, int]:
    """Errors by kind if every request failed, else none."""
    runner = Runner(client, tasks, requests=options.warmup, duration_s=None)
    await runner.closed(min(options.concurrency, options.warmup))
    summary = summarise(runner.progress.outcomes)
    return {} if summary.succeeded else summary.errors


async def run_load(client: Client, tasks: Iterator[Task], options: Options) -> tuple[RunProgress, bool]:
    """One load with its progress shown; (what happened, whether it was interrupted)."""
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
