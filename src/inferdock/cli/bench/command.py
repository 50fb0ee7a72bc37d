"""``inferdock bench``: load on any OpenAI-compatible address."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table

from inferdock.bench.client import Client, Outcome, first_model, session
from inferdock.bench.report import document, plot, pyplot, write_json
from inferdock.bench.slo import Objective, Verdict, good_request, judge, parse_objective
from inferdock.bench.stats import Distribution, Summary, summarise
from inferdock.bench.workload import Task
from inferdock.cli.bench.run import Options, asking_of, nothing_succeeded, run_load, tasks_of, warm_up
from inferdock.cli.bench.sweep import Known, parse_sweep, sweep
from inferdock.cli.output import output_option, print_json
from inferdock.domain.errors import CheckFailedError, ConfigError

LATE_S = 0.05
"""A client that sends this late (p99) was itself the limit."""


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
@click.option("--sweep", metavar="N,N,...", help="Closed loops of so many users in turn, to find the knee.")
@click.option("--replicas", type=click.IntRange(min=1), default=1, help="Replicas that share the load of a sweep.")
@click.option(
    "--profile",
    "profile_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Of a sweep: write how fast a replica is, for `inferdock simulate` and `plan`.",
)
@click.option(
    "--values",
    "values_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Of a sweep: write the autoscaler's target as values for the chart.",
)
@click.option("--values-key", help="The model's key under `models` in them; default: the end of its name.")
@click.option("--max-num-seqs", type=click.IntRange(min=1), help="For the profile: what the engine was told.")
@click.option("--kv-cache-tokens", type=click.IntRange(min=16), help="For the profile: tokens that its KV cache holds.")
@click.option("--startup-s", type=click.FloatRange(min=0), help="For the profile: from the wish until it is ready.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the full result here."
)
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a PNG picture here.")
@output_option
def bench(
    arrival: str | None,
    replicas: int,
    values_key: str | None,
    max_num_seqs: int | None,
    kv_cache_tokens: int | None,
    startup_s: float | None,
    **given: object,
) -> int:
    """Measure latency and throughput of any OpenAI-compatible address (default http://127.0.0.1:8080/v1).

    Several URLs are used in turn. Exit code 8 when an objective (--slo) is missed.

    \b
    Example:
      inferdock bench --concurrency 50 --output-tokens 50 --slo ttft_p95=500ms --slo tpot_p50=50ms
      inferdock bench --rate 20 --duration 60 --plot run.png --json run.json
      inferdock bench --sweep 1,2,4,8,16,32,64 --profile profile.json --startup-s 75 --values values-target.yaml
    """
    urls = tuple(str(url).rstrip("/") for url in given.pop("urls") or ("http://127.0.0.1:8080/v1",))  # type: ignore[attr-defined]
    options = Options(urls=urls, arrival=arrival or ("poisson" if given["rate"] else "closed"), **given)  # type: ignore[arg-type]
    if options.arrival != "closed" and options.rate is None:
        raise ConfigError(f"--arrival {options.arrival} needs --rate.", cure="For instance --rate 20.")
    if options.sweep is not None:
        parse_sweep(options.sweep)  # said now, not after the warm-up
    elif options.profile_file is not None or options.values_file is not None:
        raise ConfigError("--profile and --values are written by a sweep.", cure="Add --sweep 1,2,4,8,16,32,64.")
    objectives = [parse_objective(text) for text in options.slo]
    tasks = tasks_of(options)
    if options.plot_file is not None:
        pyplot()  # said now, not after the run
    known = Known(
        replicas=replicas,
        max_num_seqs=max_num_seqs,
        kv_cache_tokens=kv_cache_tokens,
        startup_s=startup_s,
        values_key=values_key,
    )
    return uvloop.run(_bench(options, known, objectives, tasks))


async def _bench(options: Options, known: Known, objectives: list[Objective], tasks: Iterator[Task]) -> int:
    async with session(options.api_key, options.timeout) as http:
        model = options.model or await first_model(http, options.urls[0])
        asking = asking_of(options, model)
        if options.sweep is not None:
            return await sweep(http, asking, options, known)
        client = await warm_up(Client(http, asking), tasks, options)
        cpu, events = time.process_time(), client.events
        progress, interrupted = await run_load(client, tasks, options)
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
        raise nothing_succeeded(summary.errors, options.urls)
    missed = [objective.text for objective, verdict, _ in verdicts if verdict is not Verdict.PASS]
    if missed:
        raise CheckFailedError(f"Not shown to be met: {', '.join(missed)}.")
    return 0


def _per_1000(cpu_s: float, events: int) -> float | None:
    return round(cpu_s / events * 1000, 4) if events else None


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
