"""Holds the panels of the dashboards, and the recording rules behind them, against the client's counts.

A panel is a rate over a window. ``rate()`` does not see the first value of a series that is born within the window (a
revision's first request, a status that comes for the first time), and guesses half a scrape at either end. So a count
that is made from it may be off by these first values and by two scrapes' worth; both are measured, for each number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.agreement.compare import Row, about, exact, same_bucket, within_bounds
from bench.agreement.counts import groups, share, span, tpots, ttfts
from bench.agreement.shown import query
from bench.agreement.traffic import MODEL, Record
from inferdock.telemetry import names as n
from inferdock.telemetry.instruments import LATENCY_BUCKETS_S, TOKEN_TIME_BUCKETS_S

DASHBOARDS: Final = Path(__file__).parents[2] / "grafana" / "dashboards"
SCRAPE_S: Final = 1.0
SLACK: Final = 0.02
"""Of ratios of two rates, beyond what births explain."""
RULE_S: Final = 300.0
Key = tuple[str, ...]
Values = Callable[[Iterable[Record]], list[float]]
Test = Callable[[Record], bool]
Pairs = frozenset[tuple[str, str]]
"""Labels of an answer."""


def known(records: Iterable[Record]) -> list[Record]:
    """Requests for a model that there is."""
    return [one for one in records if one.known]


def _tokens(one: Record, what: str) -> float:
    return (one.prompt_range if what == "prompt" else one.output_range)[0]


def _doubt(one: Record) -> float:
    return sum(high - low for low, high in (one.prompt_range, one.output_range))


def _kinds(one: Record) -> dict[Key, float]:
    before = "spared_" if one.spared else ""
    return {(f"{before}{what}",): _tokens(one, what) for what in ("prompt", "output")}


def _saved(one: Record) -> dict[Key, float]:
    return {(MODEL, what): _tokens(one, what) for what in ("prompt", "output")} if one.spared else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A panel that shows how often something happened.

    Attributes:
        part: of the query that is meant, where a panel has several.
        metric: raw counter behind it.
        labels: by which it is summed.
        amounts: what one request adds to it, by these labels.
        window: ``rate`` (per second over ``$__rate_interval``), ``range`` (sum over ``$__range``), ``rule`` (per
            second over five minutes).
    """

    dashboard: str
    title: str
    metric: str
    labels: Key
    amounts: Callable[[Record], Mapping[Key, float]]
    part: str = ""
    window: str = "rate"


COUNTED: Final = (
    Counted(dashboard="serving", title="Requests", metric=n.REQUESTS, labels=("model", "status"),
            amounts=lambda one: {(MODEL, str(one.status)): 1}),
    Counted(dashboard="serving", title="Turned away", part=n.TURNED_AWAY, metric=n.TURNED_AWAY, labels=("model",),
            amounts=lambda one: {(MODEL,): 1} if one.status in (429, 502, 503) else {}),
    Counted(dashboard="release", title="Requests", metric=n.REQUESTS, labels=("model", "revision"), window="rule",
            amounts=lambda one: {(MODEL, one.revision): 1} if one.revision else {}),
    Counted(dashboard="cost", title="Tokens", metric=n.TENANT_TOKENS, labels=("kind",), amounts=_kinds),
    Counted(dashboard="cost", title="Tokens by tenant", metric=n.TENANT_TOKENS, labels=("tenant",), window="range",
            amounts=lambda one: {(one.tenant,): _tokens(one, "prompt") + _tokens(one, "output")}),
    Counted(dashboard="cache", title="Requests", metric=n.CACHE_REQUESTS, labels=("model", "outcome"),
            amounts=lambda one: {(MODEL, one.cache): 1} if one.cache else {}),
    Counted(dashboard="cache", title="Hits by tier", metric=n.CACHE_HITS, labels=("tier",),
            amounts=lambda one: {(one.tier,): 1} if one.spared else {}),
    Counted(dashboard="cache", title="Bypasses", metric=n.CACHE_BYPASSES, labels=(),
            amounts=lambda one: {(): 1} if one.cache == "bypass" else {}),
    Counted(dashboard="cache", title="Tokens saved", metric=n.CACHE_SAVED_TOKENS, labels=(), window="range",
            amounts=lambda one: {(): sum(_saved(one).values())} if one.spared else {}),
    Counted(dashboard="cache", title="Tokens saved a second", metric=n.CACHE_SAVED_TOKENS, labels=("model", "kind"),
            amounts=_saved),
)  # fmt: skip
PERCENTILES: Final[Sequence[tuple[str, str, str, float, Values, Sequence[float], str]]] = (
    ("serving", "TTFT", "0.5,", 0.5, ttfts, LATENCY_BUCKETS_S, ""),
    ("serving", "TTFT", "0.95,", 0.95, ttfts, LATENCY_BUCKETS_S, ""),
    ("serving", "TTFT", "0.99,", 0.99, ttfts, LATENCY_BUCKETS_S, ""),
    ("serving", "TPOT", "0.5,", 0.5, tpots, TOKEN_TIME_BUCKETS_S, ""),
    ("serving", "TPOT", "0.95,", 0.95, tpots, TOKEN_TIME_BUCKETS_S, ""),
    ("serving", "Whole request, p95", "", 0.95, lambda some: sorted(one.ended - one.sent for one in some),
     LATENCY_BUCKETS_S, ""),
    ("release", "TTFT, p95", "", 0.95, ttfts, LATENCY_BUCKETS_S, "revision"),
    ("release", "TPOT, p50", "", 0.5, tpots, TOKEN_TIME_BUCKETS_S, "revision"),
)  # fmt: skip
RATIOS: Final[Sequence[tuple[str, str, str, Test, Test | None]]] = (
    ("serving", "Errors", "revision", lambda one: one.status >= 500 or one.broken, lambda one: True),
    ("release", "Errors", "revision", lambda one: one.status >= 500 or one.broken, lambda one: True),
    ("release", "Share of requests", "revision", lambda one: True, None),
    ("cache", "Hits", "", lambda one: one.spared, lambda one: bool(one.cache)),
    ("cost", "Cache hit rate", "", lambda one: one.spared, lambda one: bool(one.cache)),
)
AT_REST_REPLICAS: Final = 2
AT_REST: Final[Sequence[tuple[str, str, str, int]]] = (
    ("serving", "In flight and waiting", n.IN_FLIGHT, 0), ("serving", "In flight and waiting", n.WAITING, 0),
    ("serving", "Replicas that take requests", "", AT_REST_REPLICAS), ("release", "In flight", "", 0),
)  # fmt: skip
PAID: Final = (("cost", "Cost per 1M tokens"), ("cost", "Paid per hour"), ("cost", "Replicas by state"),
               ("cost", "Where the money went"))  # fmt: skip


def _grouped(by: str) -> Callable[[Record], str]:
    return (lambda one: one.revision) if by else (lambda one: "")


def queries(dashboard: str, title: str) -> list[str]:
    """Of a panel."""
    document = json.loads((DASHBOARDS / f"{dashboard}.json").read_text())
    return [target["expr"] for panel in _panels(document) if panel["title"] == title for target in panel["targets"]]


def titles() -> list[tuple[str, str]]:
    """All panels that ask something."""
    return [
        (path.stem, panel["title"])
        for path in sorted(DASHBOARDS.glob("*.json"))
        for panel in _panels(json.loads(path.read_text()))
    ]


def _panels(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for panel in document["panels"]:
        found += [one for one in (panel, *panel.get("panels", [])) if one.get("targets")]
    return found


def filled(text: str, window_s: float) -> str:
    """A query as Grafana would send it, with everything chosen."""
    for name in ("namespace", "model", "revision", "tenant"):
        text = text.replace(f"${name}", ".*")
    for name in ("$__rate_interval", "$__range"):
        text = text.replace(name, f"{window_s:.0f}s")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Looker:
    """Asks one Prometheus about one moment.

    Attributes:
        at, began: seconds since 1970; the moment that is asked about, and when the load began.
        offset: what these have more than the monotonic clock of the records.
        held: gives the seconds of replicas between two moments of the monotonic clock.
        price: dollars of a replica's hour, as the rules have it.
        paid: least and most dollars of the machine since the platform's start, by hand.
    """

    http: aiohttp.ClientSession
    base: str
    at: float
    began: float
    offset: float
    records: Sequence[Record]
    held: Callable[[float, float], float]
    price: float
    paid: tuple[float, float]

    @property
    def whole(self) -> float:
        """A window that begins just before the load."""
        return float(round(self.at - self.began + 2))

    async def rows(self) -> list[Row]:
        """All that have a counterpart."""
        found: list[Row] = []
        for panel in COUNTED:
            found += await self._counted(panel)
        found += await self._percentiles()
        found += await self._ratios()
        for dashboard, title, part, wanted in AT_REST:
            value = await self._one(dashboard, title, part)
            found.append(exact(f"{title} {part}".strip(), f"panel {dashboard}", value, wanted))
        return [*found, *await self._paid()]

    def _in(self, window_s: float) -> list[Record]:
        start = self.at - window_s - self.offset
        return [one for one in known(self.records) if one.ended > start]

    async def _ask(self, dashboard: str, title: str, part: str = "") -> dict[Pairs, float]:
        """Values by all labels that the answer has."""
        text = next(one for one in queries(dashboard, title) if part in one)
        found = await query(self.http, self.base, filled(text, self.whole), self.at)
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in found}

    async def _one(self, dashboard: str, title: str, part: str = "") -> float | None:
        found = await self._ask(dashboard, title, part)
        return sum(found.values()) if found else None

    async def _births(self, metric: str, labels: Key, window_s: float) -> dict[Key, float]:
        """What series had when they were seen first, of those that were born within the window."""
        text = f'{metric}{{model!="unknown"}}[{window_s:.0f}s]'
        found: dict[Key, float] = {}
        for one in await query(self.http, self.base, text, self.at):
            first_at, first = one["values"][0]
            if float(first_at) > self.at - window_s + 1.5 * SCRAPE_S:
                key = tuple(one["metric"].get(label, "") for label in labels)
                found[key] = found.get(key, 0.0) + float(first)
        return found

    async def _counted(self, panel: Counted) -> list[Row]:
        window_s = RULE_S if panel.window == "rule" else self.whole
        answer = await self._ask(panel.dashboard, panel.title, panel.part)
        scale = 1.0 if panel.window == "range" else window_s
        shown: dict[Key, float] = {}
        for pairs, value in answer.items():
            named = dict(pairs)
            key = tuple(named.get(label, "") for label in panel.labels)
            shown[key] = shown.get(key, 0.0) + value * scale
        births = await self._births(panel.metric, panel.labels, window_s)
        counted: dict[Key, float] = {}
        doubt: dict[Key, float] = {}
        times: dict[Key, list[float]] = {}
        for one in self._in(window_s):
            for key, amount in panel.amounts(one).items():
                counted[key] = counted.get(key, 0.0) + amount
                doubt[key] = doubt.get(key, 0.0) + _doubt(one)
                times.setdefault(key, []).append(one.ended)
        rows = []
        for key in sorted({*counted, *(key for key, value in shown.items() if value)}):
            moments = times.get(key, [0.0])
            lasted = max(max(moments) - min(moments), 4 * SCRAPE_S)
            guessed = 2 * SCRAPE_S * counted.get(key, 0.0) / lasted
            tokens = doubt.get(key, 0.0) if "tokens" in panel.metric else 0.0
            margin = births.get(key, 0.0) + guessed + tokens
            name = f"{panel.title}: {' '.join(key)}"
            rows.append(about(name, f"panel {panel.dashboard}", shown.get(key, 0.0), counted.get(key, 0.0), margin))
        return rows

    async def _percentiles(self) -> list[Row]:
        rows = []
        for dashboard, title, part, q, values, bounds, by in PERCENTILES:
            some = self._in(RULE_S if by else self.whole)
            answer = await self._ask(dashboard, title, part)
            for revision, mine in groups((one for one in some if one.revision), _grouped(by)).items():
                shown = [value for key, value in answer.items() if not by or ("revision", revision) in key]
                counted = share(values(mine), q)
                name = f"{title} p{q * 100:.0f} {revision}".strip()
                rows.append(same_bucket(name, f"panel {dashboard}", shown[0] if shown else None, counted, bounds))
        return rows

    async def _ratios(self) -> list[Row]:
        rows = []
        some = self._in(RULE_S)
        births = sum((await self._births(n.REQUESTS, (), RULE_S)).values())
        for dashboard, title, by, part, whole in RATIOS:
            answer = await self._ask(dashboard, title)
            named = [one for one in some if one.revision] if by else some
            for revision, mine in groups(named, _grouped(by)).items():
                of = [one for one in named if one.revision] if whole is None else [one for one in mine if whole(one)]
                counted = sum(map(part, mine)) / len(of)
                shown = [value for key, value in answer.items() if not by or ("revision", revision) in key]
                margin = SLACK + births / len(of)
                name = f"{title} {revision}".strip()
                rows.append(about(name, f"panel {dashboard}", shown[0] if shown else None, counted, margin))
        return rows

    async def _replica_births(self) -> tuple[float, float]:
        """When Prometheus saw the first time of a replica (monotonic), and seconds in series that were born later."""
        series = await query(self.http, self.base, f"{n.REPLICA_SECONDS}[3600s]", self.at)
        starts = [(float(one["values"][0][0]), float(one["values"][0][1])) for one in series]
        first = min(at for at, _ in starts)
        return first - self.offset, sum(value for at, value in starts if at > first + 1.5 * SCRAPE_S)

    async def _paid(self) -> list[Row]:
        """Price times time of replicas by hand, against the panels; these see nothing before their first scrape."""
        end = self.at - self.offset
        first, unseen = await self._replica_births()
        worked = [one for one in known(self.records) if not one.spared]
        tokens = span(worked, "prompt")[0] + span(worked, "output")[0]
        by_hand = self.price * self.held(first, end) / 3600 / tokens * 1e6
        births = sum(
            value
            for (kind,), value in (await self._births(n.TENANT_TOKENS, ("kind",), 3600)).items()
            if not kind.startswith("spared")
        )
        doubt = sum(_doubt(one) for one in known(self.records)) / tokens
        blended = await self._one("cost", "Cost per 1M tokens", "cost_blended")
        edge = unseen + 2 * SCRAPE_S * AT_REST_REPLICAS
        margin = by_hand * (SLACK + births / tokens + doubt + edge / self.held(first, end))
        lately = self.held(max(first, end - RULE_S), end) / RULE_S
        apart = lately * SLACK + edge / RULE_S
        per_hour = await self._one("cost", "Paid per hour")
        replicas = await self._one("cost", "Replicas by state")
        parts = await self._one("cost", "Where the money went")
        return [
            within_bounds("Where the money went: all", "panel cost", parts, *self.paid, SLACK),
            about("Cost per 1M tokens: blended", "panel cost", blended, by_hand, margin),
            about("Paid per hour", "panel cost", per_hour, lately * self.price, apart * self.price),
            about("Replicas by state: all", "panel cost", replicas, lately, apart),
        ]
