"""Puts a bill together from the settings and from what counts: a gateway's own figures now, or a Prometheus."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import aiohttp
import msgspec

from inferdock.config.extras import load_extra
from inferdock.config.settings import CostSettings, ModelCostSettings
from inferdock.cost import prometheus_api
from inferdock.cost.amounts import ZERO, exact
from inferdock.cost.bill import make_bill
from inferdock.cost.observed import ENGINE_WANTED, WANTED, observe
from inferdock.cost.prices import Catalogue, Price, Source, read_catalogue, shipped
from inferdock.cost.rates import ByModel, CatalogueMachines, OneMachine, Rates, catalogue_machines
from inferdock.cost.report import document
from inferdock.cost.series import Series, pair_up
from inferdock.cost.usage import Weights
from inferdock.domain.errors import ConfigError, UnreachableError
from inferdock.telemetry.samples import read_samples

AWS: Final = "inferdock.cost.aws"
"""Loaded by name where it is used: it needs the extra `registry`."""
ANSWER_S: Final = 60.0
MAX_METRICS_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Engine:
    """A replica whose figures are read too.

    Attributes:
        revision: "" where it is not known: its figures are then shared by all revisions of the model.
        url: without a path.
    """

    model: str
    revision: str
    url: str


@dataclass(frozen=True, slots=True)
class Where:
    """A gateway, and its engines as far as they are known.

    Attributes:
        url: under which its ``/metrics`` is.
        status_url: tells for how long it has been up; None where that cannot be had.
        engines: its replicas that may be read.
        replicas: that there are now, those that start among them; 0 where nobody knows.
    """

    url: str
    status_url: str | None = None
    engines: tuple[Engine, ...] = ()
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Counters in a window.

    Attributes:
        elapsed: its length in seconds.
        source: where they come from, for people.
    """

    gateway: list[Series]
    engines: list[Series]
    elapsed: Fraction
    source: str
    replicas: int = 0


# -- Prices ------------------------------------------------------------------------------------------------------


def catalogue(settings: CostSettings) -> Catalogue:
    """The prices that count here.

    Raises:
        ConfigError: the price file is wrong.
    """
    ours = shipped()
    return ours if settings.price_file is None else ours.joined(read_catalogue(settings.price_file.expanduser()))


def rates(settings: CostSettings) -> tuple[Rates, dict[str, Any]]:
    """What time costs, and the same for people to read.

    Raises:
        ConfigError: nobody has said what the machines are, or their price is not known.
    """
    if settings.cost_per_hour is not None:
        given: dict[str, Any] = {"cost_per_hour": settings.cost_per_hour, "source": "given"}
        return OneMachine(exact(settings.cost_per_hour, "the cost per hour")), given
    if settings.instance_type is None and not settings.models:
        raise ConfigError(
            "Nobody has said what the machines cost.",
            cure="Give --cost-per-hour (or cost.cost_per_hour), or a kind of machine: `inferdock cost prices`.",
        )
    known = catalogue(settings)
    others = _machines(settings, known) if settings.instance_type is not None else None
    models = {name: _machines(_of_model(settings, one), known) for name, one in settings.models.items()}
    described = _described(others, known) if others is not None else {}
    if models:
        described["models"] = {name: _described(one, known) for name, one in models.items()}
    return ByModel(others, models), described


def _machines(settings: CostSettings, known: Catalogue) -> CatalogueMachines:
    if settings.instance_type is None:
        raise ConfigError("A model of cost.models has no kind of machine.", cure="Set its instance_type.")
    price = known.find(settings.instance_type, settings.region)
    return catalogue_machines(price, gpus_per_replica=settings.gpus_per_replica, spot_share=settings.spot_share)


def _of_model(settings: CostSettings, own: ModelCostSettings) -> CostSettings:
    """The settings with those of one model in their place."""
    given = {name: value for name, value in own.model_dump().items() if value is not None}
    return settings.model_copy(update=given)


def _described(machines: CatalogueMachines, known: Catalogue) -> dict[str, Any]:
    price = machines.price
    return {
        "instance_type": price.instance_type,
        "region": price.region,
        "gpus": price.gpus,
        "gpus_per_replica": float(machines.gpus_per_replica),
        "spot_share": float(machines.spot_share),
        "on_demand": priced(price.on_demand, known.source(price.on_demand_source)),
        "spot": priced(price.spot, known.source(price.spot_source)),
    }


def priced(amount: float | None, source: Source | None) -> dict[str, Any] | None:
    """A price with its source, for documents."""
    if amount is None or source is None:
        return None
    date = source.date.isoformat() if source.date else None
    return {"cost_per_hour": amount, "date": date, "approximate": source.approximate, "source": source.text}


def refreshed(known: Catalogue, region: str, kinds: Iterable[str]) -> tuple[list[Price], dict[str, Source], list[str]]:
    """Today's prices of AWS, see :func:`inferdock.cost.aws.refreshed`.

    Args:
        kinds: instance types; none: all of the catalogue.

    Raises:
        ConfigError: boto3 is not installed, or a kind is not known.
        UnreachableError: AWS does not answer, or refuses.
    """
    wanted = set(kinds)
    rows = [price for price in known.prices.values() if not wanted or price.instance_type in wanted]
    missing = wanted - {price.instance_type for price in rows}
    if missing:
        raise ConfigError(
            f"The catalogue has no {sorted(missing)[0][:200]!r}, so the number of its GPUs is not known.",
            cure="Add a row to a price file, and give it with --price-file.",
        )
    sentence = "Asking AWS for prices needs the Python package {package}, which is not installed."
    aws = load_extra(AWS, extra="registry", sentence=sentence)
    pricing, ec2 = aws.clients(region)
    found: tuple[list[Price], dict[str, Source], list[str]] = aws.refreshed(
        rows, pricing=pricing, ec2=ec2, region=region, now=datetime.datetime.now(datetime.UTC)
    )
    return found


# -- Figures -----------------------------------------------------------------------------------------------------


async def since_start(http: aiohttp.ClientSession, where: Where) -> Figures:
    """All that a gateway has counted.

    Raises:
        UnreachableError: it does not answer.
        ConfigError: nobody can say since when it counts.
    """
    if where.status_url is None:
        raise ConfigError(
            "This gateway's /metrics does not say since when it counts.",
            cure="Give --window, or its admin address with --admin-url.",
        )
    gateway, engines, _ = await _read(http, where)
    elapsed = await gateway_uptime(http, where.status_url)
    whole = [replace(one, from_zero=True) for one in gateway]
    counted = [replace(one, from_zero=True) for one in engines]
    return Figures(whole, counted, elapsed, f"{where.url} since its start", where.replicas)


async def over_window(
    http: aiohttp.ClientSession,
    where: Where,
    window_s: float,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Figures:
    """What a gateway counts from now on for so long.

    Raises:
        UnreachableError: it does not answer.
    """
    gateway, engines, began = await _read(http, where)
    await sleep(window_s)
    later, engines_later, ended = await _read(http, where)
    known = {(one.name, *sorted(one.labels.items())) for one in engines}
    engines_later = [one for one in engines_later if (one.name, *sorted(one.labels.items())) in known]
    elapsed = Fraction(max(0.0, ended - began))
    paired = pair_up(engines, engines_later)
    return Figures(pair_up(gateway, later), paired, elapsed, f"{where.url}, two looks", where.replicas)


async def _read(http: aiohttp.ClientSession, where: Where) -> tuple[list[Series], list[Series], float]:
    """The counters of a gateway and its engines, and when (monotonic seconds)."""
    text = await metrics_text(http, f"{where.url}/metrics")
    at = time.monotonic()
    gateway = [Series(one.name, one.labels, [(at, one.value)]) for one in read_samples(text, WANTED)]
    answers = await asyncio.gather(*(_engine(http, engine, at) for engine in where.engines))
    return gateway, [one for series in answers for one in series], at


async def _engine(http: aiohttp.ClientSession, engine: Engine, at: float) -> list[Series]:
    """Its counters; none where it does not answer just now (it may be starting)."""
    labels = {"model": engine.model, "instance": engine.url}
    if engine.revision:
        labels["revision"] = engine.revision
    try:
        samples = read_samples(await metrics_text(http, f"{engine.url}/metrics"), ENGINE_WANTED)
    except UnreachableError:
        return []
    return [Series(one.name, {**one.labels, **labels}, [(at, one.value)]) for one in samples]


async def gateway_uptime(http: aiohttp.ClientSession, url: str, timeout_s: float = ANSWER_S) -> Fraction:
    """Seconds since the gateway's start, from its ``/admin/status``.

    Raises:
        UnreachableError: nothing answers in time, or not as a gateway does.
    """
    raw = await _bytes(http, "GET", url, MAX_METRICS_BYTES, timeout_s=timeout_s)
    try:
        return exact(float(msgspec.json.decode(raw, type=dict[str, Any])["uptime_s"]), "its uptime")
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, RecursionError) as exc:
        raise UnreachableError(f"What answers at {url} is no gateway of ours: {exc}.") from exc


async def from_prometheus(http: aiohttp.ClientSession, base: str, window_s: int, selector: str = "") -> Figures:
    """What a Prometheus saw in a window that ends now.

    Raises:
        UnreachableError: it does not answer, or not as one.
    """
    url = f"{base.rstrip('/')}/api/v1/query"
    answers: dict[str, list[Series]] = {}
    for name in prometheus_api.QUESTIONS:
        query = prometheus_api.question(name, window_s=window_s, selector=selector)
        limit = prometheus_api.MAX_ANSWER_BYTES
        raw = await _bytes(http, "POST", url, limit, (200, 400, 422), data={"query": query})  # refusals say why
        answers[name] = prometheus_api.read_matrix(raw, name)
    window = prometheus_api.assemble(answers)
    return Figures(window.gateway, window.engines, window.elapsed, f"Prometheus at {base}")


async def metrics_text(http: aiohttp.ClientSession, url: str, timeout_s: float = ANSWER_S) -> str:
    """An exposition.

    Raises:
        UnreachableError: nothing answers in time, it refuses, or says more than :data:`MAX_METRICS_BYTES`.
    """
    return (await _bytes(http, "GET", url, MAX_METRICS_BYTES, timeout_s=timeout_s)).decode("utf-8", "replace")


async def _bytes(
    http: aiohttp.ClientSession,
    method: str,
    url: str,
    limit: int,
    good: tuple[int, ...] = (200,),
    *,
    timeout_s: float = ANSWER_S,
    **options: Any,
) -> bytes:
    """The body of an answer with one of these statuses.

    Raises:
        UnreachableError: nothing answers, it refuses, or says more than ``limit`` bytes.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    pieces: list[bytes] = []
    size = 0
    try:
        async with http.request(method, url, timeout=timeout, **options) as response:
            async for piece in response.content.iter_chunked(65536):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise UnreachableError(f"{url} says more than {limit >> 20} MiB.", cure="Take a shorter window.")
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        raise UnreachableError(f"Nothing answers at {url}: {str(exc) or type(exc).__name__}.") from exc
    if response.status not in good:
        raise UnreachableError(f"{url} answers with HTTP {response.status}.")
    return b"".join(pieces)


# -- The bill ----------------------------------------------------------------------------------------------------


def report(settings: CostSettings, figures: Figures) -> dict[str, Any]:
    """The bill of a window as a document.

    Raises:
        ConfigError: prices or weights are wrong.
    """
    return report_at(rates(settings), settings, figures)


def report_at(pricing: tuple[Rates, dict[str, Any]], settings: CostSettings, figures: Figures) -> dict[str, Any]:
    """The same at rates that are known already, see :func:`rates`."""
    how, described = pricing
    try:
        weights = Weights.of(settings.prompt_weight, settings.cached_weight)
    except ValueError as exc:
        raise ConfigError(f"The weights cannot be used: {exc}.") from exc
    seen = observe(figures.gateway, figures.engines)
    notes = [*seen.notes, *_remarks(described)]
    try:
        capacities = how.capacities(seen.times, figures.elapsed, figures.replicas)
        bill = make_bill(capacities, seen.usages, weights)
    except ValueError as exc:
        raise UnreachableError(f"The figures of {figures.source} make no sense: {exc}.") from exc
    if figures.elapsed == ZERO:
        notes.append("Nothing was seen in this window.")
    known = seen.prefix_cache_seen
    body = document(bill, elapsed=figures.elapsed, weights=weights, notes=notes, prefix_cache_seen=known)
    return {"source": figures.source, "price": described, **body}


def _remarks(described: Mapping[str, Any]) -> list[str]:
    """What to know of the prices that are used."""
    found = []
    for one in (described, *described.get("models", {}).values()):
        share = one.get("spot_share", 0)
        for kind, used in (("on_demand", share < 1), ("spot", share > 0)):
            price = one.get(kind)
            if price and used and price["approximate"]:
                found.append(f"The {kind.replace('_', '-')} price is approximate: {price['source']}.")
    return list(dict.fromkeys(found))
