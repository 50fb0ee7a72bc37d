"""``inferdock plan``: the cheapest fleet that carries a load within its objectives."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from inferdock.app.cost import catalogue
from inferdock.cli.output import note, output_option, print_json
from inferdock.cli.plan_size import SizeOptions, size_options
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.domain.errors import CheckFailedError, ConfigError
from inferdock.simulation.fleet import Fleet, Load, Machine, Objectives, fleets
from inferdock.simulation.memory import Footprint
from inferdock.simulation.profile import Profile, load_profile
from inferdock.simulation.traffic import Lengths


@click.command(context_settings={"show_default": True})
@config_file_option
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True, max=1e7), required=True, help="Requests per second."
)
@click.option("--profile", "profiles", multiple=True, required=True, metavar="TYPE=FILE",
              help="How fast a replica is on a kind of machine; several are compared.")  # fmt: skip
@click.option("--region", help="Where the machines are; default: cost.region.")
@click.option("--gpus-per-replica", type=click.IntRange(min=1), default=1, help="GPUs that a replica takes.")
@click.option("--prompt-tokens", type=click.IntRange(min=1), default=200, help="Median of prompts.")
@click.option("--output-tokens", type=click.IntRange(min=1), default=150, help="Median of answers.")
@click.option("--spread", type=click.FloatRange(min=0, max=3), default=0.6, help="Sigma of their log-normal lengths.")
@click.option("--ttft-slo", type=click.FloatRange(min=0, min_open=True), default=0.5, help="Seconds, 95th percentile.")
@click.option("--tpot-slo", type=click.FloatRange(min=0, min_open=True), default=0.05, help="Seconds, median.")
@click.option("--on-demand-floor", type=click.FloatRange(min=0, max=1), default=0.2,
              help="Share of the replicas that no spot interruption can take.")  # fmt: skip
@click.option("--spot", type=click.FloatRange(min=0, max=60), default=0.02, metavar="PER_HOUR",
              help="Interruptions of a spot replica per hour.")  # fmt: skip
@click.option("--seed", type=int, default=1, help="Seed of chance.")
@size_options
@output_option
def plan(
    config_file: Path | None,
    rate: float,
    profiles: tuple[str, ...],
    region: str | None,
    gpus_per_replica: int,
    prompt_tokens: int,
    output_tokens: int,
    spread: float,
    ttft_slo: float,
    tpot_slo: float,
    on_demand_floor: float,
    spot: float,
    seed: int,
    size: SizeOptions,
    output: str,
) -> None:
    """Find the cheapest fleet that carries a load within TTFT (p95) and TPOT (p50).

    Each profile was measured on the kind of machine it is named for (`inferdock bench --sweep --profile`). Prices are
    the catalogue's (`inferdock cost prices`). With --model or --weights-gib, kinds of machines on whose GPUs the model
    does not fit are left out. Exit code 8 when it fits on none, or no fleet keeps the objectives.

    \b
    Example:
      inferdock plan --rate 200 --profile g5.xlarge=a10g.json --profile g6e.xlarge=l40s.json --region us-east-1
      inferdock plan --rate 200 --profile g5.xlarge=awq.json --model mistral-7b-awq@1.0.0 --max-model-len 4096
    """
    flags = {"cost.region": ("--region", region), "registry.url": ("--registry", size.registry)}
    settings = load_settings(config_file, flags).settings
    footprint = size.footprint(settings.registry, os.environ)
    known = catalogue(settings.cost)
    load = Load(
        rate=rate,
        lengths=Lengths(prompt_tokens, output_tokens, spread),
        objectives=Objectives(ttft_slo, tpot_slo),
        seed=seed,
    )
    machines: list[Machine] = []
    for text in profiles:
        kind, profile = _profile(text)
        machine = Machine(known.find(kind, settings.cost.region), profile, gpus_per_replica)
        if machine.price.gpus < gpus_per_replica:
            raise ConfigError(f"{kind} has {machine.price.gpus} GPUs, and a replica takes {gpus_per_replica}.")
        machines.append(machine)
    if footprint is not None:
        machines = _fitting(machines, footprint, size)
    found: list[Fleet] = []
    for machine in machines:
        ways = list(fleets(machine, load, floor=on_demand_floor, per_hour=spot))
        if not ways:
            note(f"{machine.price.instance_type}: not even an idle replica keeps the objectives.")
        found += ways
    found.sort(key=lambda fleet: (fleet.cost_per_hour, fleet.instance_type))
    if output == "json":
        print_json([asdict(fleet) for fleet in found])
    elif found:
        _print(found, load)
    if not machines:
        raise CheckFailedError(
            "The model fits on none of these machines.",
            cure="Shorten --max-model-len, quantise the model, or take larger GPUs or more of them.",
        )
    if not found:
        raise CheckFailedError("No fleet of these machines keeps the objectives.", cure="Try faster machines.")


def _fitting(machines: list[Machine], footprint: Footprint, size: SizeOptions) -> list[Machine]:
    fitting: list[Machine] = []
    for machine in machines:
        judged = size.on(machine, footprint)
        if isinstance(judged, str):
            note(judged)
        else:
            fitting.append(judged)
    return fitting


def _profile(text: str) -> tuple[str, Profile]:
    kind, equals, name = text.partition("=")
    if not (kind and equals and name):
        raise ConfigError(f"`{text[:200]}` is not TYPE=FILE.", cure="For instance g5.xlarge=profile.json.")
    return kind, load_profile(Path(name))


def _print(found: list[Fleet], load: Load) -> None:
    console = Console(soft_wrap=True, highlight=False)
    table = Table(
        "machine", "replicas", "on demand", "spot", "each carries", "$/hour", "$/1M tokens", box=None, pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for fleet in found:
        table.add_row(
            fleet.instance_type,
            f"{fleet.replicas:,}",
            f"{fleet.on_demand:,}",
            f"{fleet.spot:,}",
            f"{fleet.per_replica:.2f}/s",
            f"{fleet.cost_per_hour:,.2f}",
            f"{fleet.cost_per_million:.3f}",
        )
    console.print(table)
    goals = load.objectives
    console.print(
        f"For {load.rate:,g} requests/s, TTFT p95 in {goals.ttft_p95_s:g} s, TPOT p50 in {goals.tpot_p50_s:g} s; "
        "the first row is the cheapest."
    )
