"""``inferdock bench --sweep``: one closed loop after the other, each with more users, up to the knee and beyond it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import yaml
from rich.console import Console
from rich.table import Table

from inferdock.bench.client import Asking, Client
from inferdock.bench.report import document, write_json
from inferdock.bench.slo import Objective, good_request, judge, parse_objective
from inferdock.bench.stats import Summary, summarise
from inferdock.bench.sweep import LONGER, Rung, aim, knee, reading, steps
from inferdock.cli.bench.run import Options, nothing_succeeded, run_load, tasks_of, warm_up
from inferdock.cli.output import note, print_json
from inferdock.domain.errors import CheckFailedError, ConfigError, ResourceError
from inferdock.simulation.profile import Profile, fitted

OBJECTIVES: Final = ("ttft_p95=500ms", "tpot_p50=50ms")
"""Where none are given."""
LEAST: Final = 40
"""Requests of a rung: fewer say nothing about a 95th percentile."""
ROUNDS: Final = 6
"""Requests of each user of a rung, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a sweep cannot see from outside, as the command line has it; None where nobody said it.

    Attributes:
        replicas: that share the load.
        max_num_seqs: sequences that the engine was told to run at once.
        kv_cache_tokens: tokens that its KV cache holds.
        startup_s: from the wish for a replica until it takes requests.
        values_key: the model's key under ``models`` in the chart's values.
    """

    replicas: int = 1
    max_num_seqs: int | None = None
    kv_cache_tokens: int | None = None
    startup_s: float | None = None
    values_key: str | None = None

    def engine(self) -> dict[str, int | float]:
        """Fields of a profile that are known."""
        fields = ("max_num_seqs", "kv_cache_tokens", "startup_s")
        return {name: value for name in fields if (value := getattr(self, name)) is not None}


def parse_sweep(text: str) -> tuple[int, ...]:
    """Read ``1,2,4,8``.

    Raises:
        ConfigError: another spelling.
    """
    if not re.fullmatch(r"\d{1,5}(,\d{1,5})*", text, re.ASCII):
        raise ConfigError(f"`{text}` is no list of concurrencies.", cure="Write for instance 1,2,4,8,16,32,64.")
    users = tuple(sorted({int(part) for part in text.split(",")}))
    if users[0] < 1:
        raise ConfigError("A sweep needs at least one user.", cure="Write for instance 1,2,4,8,16,32,64.")
    return users


async def sweep(http: aiohttp.ClientSession, asking: Asking, options: Options, known: Known) -> int:
    """Run the rungs, print the table, write what was asked for.

    Args:
        http: session.
        asking: how each request is spelt.
        options: of the command.
        known: about the engine.

    Raises:
        CheckFailedError: already the first rung misses an objective.
    """
    objectives = [parse_objective(text) for text in options.slo or OBJECTIVES]
    client = await warm_up(Client(http, asking), tasks_of(options), options)
    rungs: list[Rung] = []
    for users in parse_sweep(options.sweep or ""):
        rungs.append(await _rung(client, options, objectives, users))
        note(_line(rungs[-1]))
        if rungs[-1].summary.errors:
            break
    found = knee(rungs)
    profile = await _profile(client, options, rungs, known) if options.profile_file is not None else None
    result = _document(options, asking.model, rungs, found, objectives, known)
    if options.output == "json":
        print_json(result)
    else:
        _print(rungs, found, known.replicas)
    _write(options, asking.model, result, profile, found, known)
    if found is None:
        missed = ", ".join(objective.text for objective in objectives)
        raise CheckFailedError(f"Already {rungs[0].users} at once miss {missed}.", cure="Lower the objectives (--slo).")
    return 0


async def _rung(client: Client, options: Options, objectives: list[Objective], users: int) -> Rung:
    requests = max(options.requests or LEAST, users * ROUNDS)
    summary = await _load(client, replace(options, concurrency=users, requests=requests), objectives)
    return Rung(users, summary, tuple(judge(objective, summary)[0] for objective in objectives))


async def _load(client: Client, options: Options, objectives: list[Objective]) -> Summary:
    plain = replace(options, arrival="closed", duration=None)
    progress, interrupted = await run_load(client, tasks_of(plain), plain)
    if interrupted:
        raise KeyboardInterrupt
    summary = summarise(progress.outcomes, good_request(objectives))
    if not summary.succeeded:
        raise nothing_succeeded(summary.errors, options.urls)
    return summary


async def _profile(client: Client, options: Options, rungs: list[Rung], known: Known) -> Profile:
    alone = replace(options, concurrency=1, requests=LEAST)
    short = await _load(client, alone, [])
    long = await _load(client, replace(alone, prompt_tokens=_longer(options.prompt_tokens)), [])
    per_token, overhead = reading(short, long)
    measured = steps(rungs, known.replicas)
    if not measured:
        raise CheckFailedError("Answers had too few tokens for a profile.", cure="Ask for more: --output-tokens 50.")
    profile = Profile(
        steps=fitted(measured),
        prefill_s_per_token=per_token,
        overhead_s=overhead,
        max_num_seqs=max(sequences for sequences, _ in measured),
        source=f"inferdock bench --sweep {options.sweep} of {client.asking.model} with {known.replicas} replica(s)",
    )
    profile = msgspec.structs.replace(profile, **known.engine())
    _say_what_is_assumed(profile, known)
    return profile


def _say_what_is_assumed(profile: Profile, known: Known) -> None:
    if known.startup_s is None:
        note(f"The profile assumes {profile.startup_s:g} s for a start: say what it takes here with --startup-s.")
    if known.max_num_seqs is None:
        note(f"It assumes {profile.max_num_seqs} requests at once, the most that were seen: --max-num-seqs says more.")


def _longer(length: str) -> str:
    """Prompts several times as long, in the same spelling."""
    parts = length.split(":")
    numbers = parts if len(parts) == 1 else parts[1:] if parts[0] == "uniform" else parts[1:2]
    longer = [str(int(number) * LONGER) for number in numbers]
    return ":".join([*parts[: 0 if len(parts) == 1 else 1], *longer, *(parts[2:] if parts[0] == "lognormal" else ())])


def _line(rung: Rung) -> str:
    summary = rung.summary
    return (
        f"{rung.users} at once: {summary.requests_per_s:.1f} requests/s, TTFT p95 {summary.ttft.p95 * 1e3:.0f} ms, "
        f"TPOT p50 {summary.tpot.p50 * 1e3:.1f} ms{'' if rung.met else ', an objective is missed'}"
    )


def _document(
    options: Options, model: str, rungs: list[Rung], found: Rung | None, objectives: list[Objective], known: Known
) -> dict[str, object]:
    base = document(rungs[-1].summary, options.configuration(model), [])
    del base["summary"]
    return {
        **base,
        "objectives": [objective.text for objective in objectives],
        "replicas": known.replicas,
        "engine": known.engine(),
        "rungs": [
            {"users": rung.users, "met": rung.met, "verdicts": list(rung.verdicts), **rung.summary.as_dict()}
            for rung in rungs
        ],
        "knee": found.users if found is not None else None,
        "requests_per_replica": aim(found, known.replicas) if found is not None else None,
    }


def _print(rungs: list[Rung], found: Rung | None, replicas: int) -> None:
    console = Console(soft_wrap=True, highlight=False)
    table = Table("at once", "requests/s", "tokens/s", "TTFT p95 ms", "TPOT p50 ms", "", box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.justify = "right"
    for rung in rungs:
        summary = rung.summary
        figures = (summary.requests_per_s, summary.output_tokens_per_s, summary.ttft.p95 * 1e3, summary.tpot.p50 * 1e3)
        mark = "knee" if rung is found else "" if rung.met else "missed"
        table.add_row(str(rung.users), *(f"{figure:.1f}" for figure in figures), mark)
    console.print(table)
    if found is not None:
        console.print(
            f"The knee is at {found.users / replicas:g} requests on a replica; an autoscaler should aim at "
            f"{aim(found, replicas)} (autoscaling.requests_per_replica)."
        )


def _write(
    options: Options,
    model: str,
    result: dict[str, object],
    profile: Profile | None,
    found: Rung | None,
    known: Known,
) -> None:
    if options.json_file is not None:
        write_json(options.json_file, result)
    if options.profile_file is not None and profile is not None:
        write_json(options.profile_file, msgspec.to_builtins(profile))
    if options.values_file is not None and found is not None:
        key = known.values_key or model.rpartition("/")[2]
        _write_values(options.values_file, key, aim(found, known.replicas))


def _write_values(path: Path, key: str, requests: int) -> None:
    """Values for the chart: given to Helm with ``-f`` after the others, which say what else the model is."""
    values = {"models": {key: {"autoscaling": {"targetLoadPerReplica": requests}}}}
    try:
        path.write_text(f"# Measured by `inferdock bench --sweep`.\n{yaml.safe_dump(values)}", encoding="utf-8")
    except OSError as exc:
        raise ResourceError(f"Cannot write {path}: {exc.strerror}.", cure="Choose another file.") from exc
