"""``inferdock simulate``: an autoscaling policy against a traffic trace, on paper."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from inferdock.autoscale.of_settings import policy_of
from inferdock.cli.output import note, output_option, print_json
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.extras import load_extra
from inferdock.domain.errors import ConfigError, ResourceError
from inferdock.simulation import traffic
from inferdock.simulation.profile import load_profile
from inferdock.simulation.report import document
from inferdock.simulation.scenario import Result, Scenario, Spot
from inferdock.simulation.traffic import Asked, Lengths, Users
from inferdock.simulation.world import simulate as play

SAY_EVERY_S: Final = 5.0
SAMPLE_S: Final = 5.0
"""Between two rows of the history where nobody said how long the traffic is."""
MOST_SAMPLES: Final = 5_000
"""Rows of the history, so that a year is no longer a document than a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked on the command line about traffic."""

    trace: Path | None
    diurnal: tuple[float, float] | None
    burst: tuple[float, float, float, float] | None
    ramp: tuple[float, float, float] | None
    users: bool
    duration: float
    prompt_tokens: int
    output_tokens: int
    spread: float
    seed: int

    @property
    def lengths(self) -> Lengths:
        """Of generated requests."""
        return Lengths(self.prompt_tokens, self.output_tokens, self.spread)

    @property
    def words(self) -> str:
        """For the report."""
        if self.trace is not None:
            return f"trace {self.trace.name}"
        if self.users:
            return "users: 1 to 50 in 5 minutes, 50 for 5 minutes, then 5"
        if self.burst is not None:
            base, peak, begin, length = self.burst
            return f"{base:g}/s, from {begin:g} s on for {length:g} s {peak:g}/s, over {self.duration:g} s"
        if self.ramp is not None:
            base, peak, length = self.ramp
            return f"{base:g}/s to {peak:g}/s in {length:g} s, over {self.duration:g} s"
        peak, trough = self.diurnal or (0.0, 0.0)
        return f"days with {trough:g}/s to {peak:g}/s, over {self.duration:g} s"


@click.command(context_settings={"show_default": True})
@config_file_option
@click.option(
    "--profile",
    "profile_file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="How fast one replica is; `inferdock bench --sweep --profile` writes it.",
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV file with the columns seconds, prompt_tokens, output_tokens.",
)
@click.option(
    "--diurnal",
    nargs=2,
    type=click.FloatRange(min=0),
    metavar="PEAK TROUGH",
    help="Days: requests per second at noon and at midnight.",
)
@click.option(
    "--burst",
    nargs=4,
    type=click.FloatRange(min=0),
    metavar="BASE PEAK BEGIN LENGTH",
    help="Requests per second, and seconds.",
)
@click.option(
    "--ramp",
    nargs=3,
    type=click.FloatRange(min=0),
    metavar="BASE PEAK LENGTH",
    help="Requests per second from one to the other, and seconds.",
)
@click.option("--users", is_flag=True, help="A closed loop: to 50 users in 5 minutes, 5 minutes of them, then 5.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    default=traffic.DAY_S,
    help="Seconds of generated traffic.",
)
@click.option("--prompt-tokens", type=click.IntRange(min=1), default=200, help="Median of generated prompts.")
@click.option("--output-tokens", type=click.IntRange(min=1), default=150, help="Median of generated answers.")
@click.option("--spread", type=click.FloatRange(min=0, max=3), default=0.6, help="Sigma of their log-normal lengths.")
@click.option("--replicas", type=click.IntRange(min=0), help="At the start; default: engine.replicas.")
@click.option("--fixed", is_flag=True, help="Without an autoscaler: the number of replicas stays.")
@click.option("--min-replicas", type=click.IntRange(min=0), help="Default: autoscaling.min_replicas.")
@click.option("--max-replicas", type=click.IntRange(min=1), help="Default: autoscaling.max_replicas.")
@click.option(
    "--requests-per-replica",
    type=click.FloatRange(min=0, min_open=True),
    help="Default: autoscaling.requests_per_replica.",
)
@click.option(
    "--startup", type=click.FloatRange(min=0), help="Seconds until a replica is ready; default: the profile's."
)
@click.option(
    "--figures-age",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Seconds by which the autoscaler's figures are old (scrape plus poll interval).",
)
@click.option(
    "--spot", type=click.FloatRange(min=0), metavar="PER_HOUR", help="Interruptions of a spot replica per hour."
)
@click.option("--spot-at", metavar="S,S,...", help="Seconds at which a spot replica goes for certain.")
@click.option("--spot-notice", type=click.FloatRange(min=0), default=120.0, help="Seconds from the notice to the end.")
@click.option("--spot-price", type=click.FloatRange(min=0, max=1), default=0.35, help="Share of the on-demand price.")
@click.option("--on-demand", type=click.IntRange(min=0), default=0, help="Replicas that are never interrupted.")
@click.option("--price", type=click.FloatRange(min=0), default=0.0, help="Of a replica, per hour, on demand.")
@click.option("--ttft-slo", type=click.FloatRange(min=0, min_open=True), default=0.5, help="Seconds.")
@click.option("--tpot-slo", type=click.FloatRange(min=0, min_open=True), default=0.05, help="Seconds.")
@click.option("--seed", type=int, default=1, help="Seed of chance.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the full result here."
)
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a PNG picture here.")
@output_option
def simulate(
    config_file: Path | None,
    profile_file: Path,
    replicas: int | None,
    fixed: bool,
    min_replicas: int | None,
    max_replicas: int | None,
    requests_per_replica: float | None,
    startup: float | None,
    figures_age: float,
    spot: float | None,
    spot_at: str | None,
    spot_notice: float,
    spot_price: float,
    on_demand: int,
    price: float,
    ttft_slo: float,
    tpot_slo: float,
    json_file: Path | None,
    plot_file: Path | None,
    output: str,
    **asked: Any,
) -> None:
    """Replay traffic through the autoscaling policy and a queueing model of the replicas, without running any.

    Replicas are as fast as a measured profile says, start as slowly, and may be interrupted as spot machines are. The
    policy is the configuration's group `autoscaling`, decided by the same code as in `inferdock up`.

    \b
    Example:
      inferdock simulate --profile a10g.json --diurnal 20 2 --max-replicas 12 --price 1.006 --plot day.png
      inferdock simulate --profile a10g.json --trace monday.csv --spot 0.05 --on-demand 1
      inferdock simulate --profile a10g.json --trace monday.csv --spot-at 3600,3660 --spot-notice 120
    """
    wanted = Wanted(**asked)
    picture = _picture() if plot_file is not None else None
    flags = {
        "autoscaling.min_replicas": ("--min-replicas", min_replicas),
        "autoscaling.max_replicas": ("--max-replicas", max_replicas),
        "autoscaling.requests_per_replica": ("--requests-per-replica", requests_per_replica),
    }
    settings = load_settings(config_file, flags).settings
    profile = load_profile(profile_file)
    if startup is not None:
        profile = msgspec.structs.replace(profile, startup_s=startup)
    policy = None if fixed else policy_of(settings.autoscaling)
    machines = _spot(spot, spot_at, notice_s=spot_notice, on_demand=on_demand, price_share=spot_price)
    scenario = _scenario(
        profile=profile,
        replicas=settings.engine.replicas if replicas is None else replicas,
        policy=policy,
        sync_s=settings.autoscaling.sync_s,
        figures_age_s=figures_age,
        drain_timeout_s=settings.drain_timeout_s,
        spot=machines,
        price_per_hour=price,
        ttft_slo_s=ttft_slo,
        tpot_slo_s=tpot_slo,
        sample_s=SAMPLE_S if wanted.trace is not None or wanted.users else max(1.0, wanted.duration / MOST_SAMPLES),
        seed=wanted.seed,
    )
    with _traffic(wanted) as (stream, users):
        result = play(scenario, _told(stream), users)
    written = document(scenario, result, traffic=wanted.words)
    if output == "json":
        print_json(written)
    else:
        _print(written, result, scenario)
    if json_file is not None:
        _write(json_file, written)
    if picture is not None:
        picture.draw(plot_file, result, wanted.words)


def _picture() -> Any:
    return load_extra("inferdock.simulation.picture", extra="plot", sentence="Pictures need the package {package}.")


def _spot(
    per_hour: float | None, at: str | None, *, notice_s: float, on_demand: int, price_share: float
) -> Spot | None:
    """Machines that may go; None where nothing was said of them."""
    if per_hour is None and at is None:
        return None
    try:
        times = tuple(float(text) for text in at.split(",")) if at else ()
        return Spot(per_hour=per_hour or 0.0, at=times, notice_s=notice_s, on_demand=on_demand, price_share=price_share)
    except ValueError as exc:
        raise ConfigError(f"`{at}` is no list of seconds.", cure="Write for instance --spot-at 60,90.5.") from exc


def _scenario(**given: Any) -> Scenario:
    try:
        return Scenario(**given)
    except ValueError as exc:
        raise ConfigError(f"This cannot be simulated: {exc}.") from exc


@contextlib.contextmanager
def _traffic(wanted: Wanted) -> Iterator[tuple[Iterable[Asked], Users | None]]:
    """Open traffic, and users beside it.

    Raises:
        ConfigError: not exactly one kind was asked for, or the trace cannot be read.
    """
    kinds = [wanted.trace, wanted.diurnal, wanted.burst, wanted.ramp, wanted.users or None]
    if sum(kind is not None for kind in kinds) != 1:
        raise ConfigError("Say what is asked.", cure="One of --trace, --diurnal, --burst, --ramp, --users.")
    rng = random.Random(wanted.seed)
    if wanted.users:
        yield (), traffic.plan_users(wanted.lengths)
    elif wanted.trace is not None:
        with _opened(wanted.trace) as lines:
            yield traffic.read_trace(lines, str(wanted.trace)), None
    else:
        rate, peak = _rate(wanted)
        yield traffic.poisson(rate, peak, wanted.duration, wanted.lengths, rng), None


def _rate(wanted: Wanted) -> tuple[traffic.Rate, float]:
    if wanted.burst is not None:
        return traffic.burst(*wanted.burst), max(wanted.burst[:2])
    if wanted.ramp is not None:
        base, peak, length = wanted.ramp
        return traffic.ramp(base, peak, 0.0, length), max(base, peak)
    peak, trough = wanted.diurnal or (0.0, 0.0)
    return traffic.diurnal(peak, trough), max(peak, trough)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Iterable[str]]:
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            yield file
    except OSError as exc:
        raise ConfigError(f"Cannot read {path}: {exc.strerror}.") from exc


def _told(stream: Iterable[Asked]) -> Iterator[Asked]:
    """The same, and from time to time a line about how far it is."""
    last = time.monotonic()
    for number, asked in enumerate(stream):
        if number % 4096 == 0 and time.monotonic() - last > SAY_EVERY_S:
            last = time.monotonic()
            note(f"{number:,} requests, {asked.at / 3600:.1f} hours simulated")
        yield asked


def _print(written: dict[str, Any], result: Result, scenario: Scenario) -> None:
    console = Console(soft_wrap=True, highlight=False)
    table = Table("", "mean", "p50", "p95", "p99", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, key in (("TTFT ms", "ttft_s"), ("TPOT ms", "tpot_s")):
        table.add_row(name, *("–" if v is None else f"{v * 1e3:.1f}" for v in written[key].values()))
    console.print(written["traffic"])
    console.print(table)
    share = f" ({result.good / result.answered:.2%} within the objectives)" if result.answered else ""
    console.print(f"{result.answered:,}/{result.asked:,} requests answered{share}, {result.moved:,} moved")
    console.print(
        f"replicas: {result.mean_replicas:.2f} on average, {result.most_replicas} at most, "
        f"{len(result.actions)} changes; longest queue {written['requests']['most_waiting']:,}"
    )
    if scenario.price_per_hour and written["cost"]["per_million_tokens"] is not None:
        console.print(f"cost: {result.cost:.2f}, {result.cost_per_million:.3f} per million tokens")
    if result.answered < result.asked:
        console.print("Requests were left when a day had passed since the last one: too few replicas.", style="red")


def _write(path: Path, value: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(value) + "\n", encoding="utf-8")
    except OSError as exc:
        raise ResourceError(f"Cannot write {path}: {exc.strerror}.", cure="Choose another file.") from exc
