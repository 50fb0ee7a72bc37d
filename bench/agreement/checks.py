"""Holds each shown number against the client's count: metrics, bill, status, console. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from bench.agreement.compare import Row, about, between, exact, same_bucket, within_bounds
from bench.agreement.counts import groups, share, span, tally, tpots, ttfts
from bench.agreement.shown import Exposition
from bench.agreement.traffic import Record
from inferdock.telemetry import names as n
from inferdock.telemetry.instruments import quantile

METRICS: Final = "/metrics"
QUANTILES: Final = (0.5, 0.95)
WINDOW_S: Final = 60.0
"""Of the percentiles that console and status show."""
WANTED: Final = frozenset(
    {
        n.REQUESTS, n.CANCELLED, n.BROKEN, n.PROMPT_TOKENS, n.OUTPUT_TOKENS, n.TENANT_TOKENS, n.RESUMES, n.TURNED_AWAY,
        n.CACHE_REQUESTS, n.CACHE_HITS, n.CACHE_SAVED_TOKENS, n.REPLICA_SECONDS,
        f"{n.TTFT}_bucket", f"{n.TPOT}_bucket", f"{n.DURATION}_bucket",
    }
)  # fmt: skip


def of_metrics(shown: Exposition, records: Sequence[Record], where: str = METRICS) -> list[Row]:
    """The gateway's own counters, which began with it."""
    known = [one for one in records if one.known]
    return [
        *_requests(shown, records, where),
        *_tokens(shown, known, where),
        *_cache(shown, known, where),
        *_histograms(shown, known, where),
    ]


def _requests(shown: Exposition, records: Sequence[Record], where: str) -> list[Row]:
    labels = ("revision", "route", "status")
    counted = tally(
        records,
        lambda one: (one.revision, one.route if one.known else "refused", str(one.status)),
    )
    seen = {key: value for key, value in shown.by(n.REQUESTS, *labels).items() if key[1] != "own"}
    rows = [
        exact(f"requests {' '.join(key).strip()}", where, seen.get(key, 0.0), counted.get(key, 0))
        for key in sorted({*seen, *counted})
    ]
    left = sum(one.left for one in records)
    lost = sum(one.broken for one in records)
    turned_away = sum(one.known and one.status in (429, 502, 503) for one in records)
    given_up = shown.total(n.RESUMES, outcome="failed") + shown.total(n.RESUMES, outcome="impossible")
    return [
        *rows,
        exact("requests whose client left", where, shown.total(n.CANCELLED), left),
        exact("broken answers", where, shown.total(n.BROKEN), lost),
        between("streams that could not go on", where, given_up, 0, lost),
        exact("requests turned away", where, shown.total(n.TURNED_AWAY), turned_away),
    ]


def _tokens(shown: Exposition, known: Sequence[Record], where: str) -> list[Row]:
    rows = []
    for revision, some in groups((one for one in known if one.revision), lambda one: one.revision).items():
        for name, what in ((n.PROMPT_TOKENS, "prompt"), (n.OUTPUT_TOKENS, "output")):
            rows.append(
                between(f"{what} tokens of {revision}", where, shown.total(name, revision=revision), *span(some, what))
            )
    for tenant, some in groups(known, lambda one: one.tenant).items():
        for what in ("prompt", "output"):
            for spared in (False, True):
                kind = f"spared_{what}" if spared else what
                bounds = span((one for one in some if one.spared is spared), what)
                value = shown.total(n.TENANT_TOKENS, tenant=tenant, kind=kind)
                rows.append(between(f"{kind} tokens of tenant {tenant}", where, value, *bounds))
    return rows


def _cache(shown: Exposition, known: Sequence[Record], where: str) -> list[Row]:
    outcomes = tally((one for one in known if one.cache), lambda one: (one.cache,))
    tiers = tally((one for one in known if one.spared), lambda one: (one.tier,))
    saved = shown.by(n.CACHE_SAVED_TOKENS, "kind")
    return [
        *(
            exact(f"cache: {one}", where, shown.total(n.CACHE_REQUESTS, outcome=one), outcomes[(one,)])
            for one in ("hit", "miss", "bypass")
        ),
        *(
            exact(f"cache hits: {key[0]}", where, shown.total(n.CACHE_HITS, tier=key[0]), tiers[key])
            for key in sorted(tiers)
        ),
        *(
            between(
                f"cache saved {what} tokens",
                where,
                saved.get((what,), 0.0),
                *span((one for one in known if one.spared), what),
            )
            for what in ("prompt", "output")
        ),
    ]


def _histograms(shown: Exposition, known: Sequence[Record], where: str) -> list[Row]:
    rows = []
    for revision, some in groups((one for one in known if one.revision), lambda one: one.revision).items():
        durations = sorted(one.ended - one.sent for one in some)
        for name, what, values in (
            (n.TTFT, "TTFT", ttfts(some)),
            (n.TPOT, "TPOT", tpots(some)),
            (n.DURATION, "duration", durations),
        ):
            counts, bounds = shown.buckets(name, revision=revision)
            rows.append(exact(f"{what} of {revision}: observations", where, sum(counts), len(values)))
            for q in QUANTILES:
                seen = quantile(counts, bounds, q)
                rows.append(
                    same_bucket(
                        f"{what} p{q:.0%} of {revision}".replace("%", ""), where, seen, share(values, q), bounds
                    )
                )
    return rows


def of_bill(bill: Mapping[str, Any], records: Sequence[Record], dollars: tuple[float, float], where: str) -> list[Row]:
    """The bill: tokens are exact, dollars within 2 % of price times time.

    Args:
        dollars: least and most by hand, since the gateway's start and the bill's look lie between two moments each.
    """
    known = [one for one in records if one.known]
    worked = [one for one in known if not one.spared]
    hit = [one for one in known if one.spared]
    total = bill["total"]

    def rows(name: str, row: Mapping[str, Any], some: Sequence[Record], saved: Sequence[Record]) -> list[Row]:
        tokens, spared = row["tokens"], row["spared_tokens"]
        return [
            between(f"prompt tokens{name}", where, tokens["prompt"] + tokens["cached"], *span(some, "prompt")),
            between(f"output tokens{name}", where, tokens["output"], *span(some, "output")),
            between(f"spared prompt tokens{name}", where, spared["prompt"], *span(saved, "prompt")),
            between(f"spared output tokens{name}", where, spared["output"], *span(saved, "output")),
        ]

    found = rows("", total, worked, hit)
    for row in bill["tenants"]:
        of = (row["revision"], row["tenant"])
        mine = [one for one in known if (one.revision, one.tenant) == of]
        name = f" of {row['tenant']} at {row['revision']}"
        found += rows(name, row, [one for one in mine if not one.spared], [one for one in mine if one.spared])
    tokens = sum(total["tokens"].values())  # which the rows above hold against the clients' counts
    least, most = dollars
    per_million = total["dollars_per_million"]["blended"]
    return [
        *found,
        within_bounds("dollars", where, total["dollars"], least, most, 0.02),
        within_bounds(
            "dollars per million tokens", where, per_million, least / tokens * 1e6, most / tokens * 1e6, 0.02
        ),
    ]


def of_status(status: Mapping[str, Any], records: Sequence[Record]) -> list[Row]:
    """`inferdock status -o json`, once all is at rest."""
    where, gateway = "status", status["gateway"]
    known = [one for one in records if one.known]
    answered = [one for one in known if one.revision or one.status]
    return [
        exact("requests", where, gateway["requests_total"], len(answered)),
        between("output tokens", where, gateway["output_tokens_total"], *span(known, "output")),
        exact("in flight", where, gateway["in_flight"], 0),
        exact(
            "replicas that are ready",
            where,
            sum(row["state"] == "ready" for row in status["replicas"]),
            len(status["replicas"]),
        ),
    ]


def of_console(
    documents: Sequence[Mapping[str, Any]],
    records: Sequence[Record],
    offset: float,
    bounds: Mapping[str, Sequence[float]],
) -> list[Row]:
    """The console's stream: totals of its last document, rates and percentiles of one in the middle of the load.

    Args:
        offset: what a time since 1970 has more than the monotonic clock.
        bounds: of the histograms ``ttft`` and ``tpot``.
    """
    where = "console"
    known = [one for one in records if one.known]
    last = documents[-1]["figures"]
    hits = [one for one in known if one.spared]
    saved = [sum(pair) for pair in zip(span(hits, "prompt"), span(hits, "output"), strict=True)]
    failed = sum(one.status >= 500 for one in known)
    rows = [
        exact("requests", where, last["requests_total"], len(known)),
        exact("failed requests", where, last["failed_total"], failed),
        between("prompt tokens", where, last["prompt_tokens_total"], *span(known, "prompt")),
        between("output tokens", where, last["output_tokens_total"], *span(known, "output")),
        exact("cache: requests", where, last["cache"]["requests"], sum(bool(one.cache) for one in known)),
        exact("cache: hits", where, last["cache"]["hits"], len(hits)),
        between("cache: saved tokens", where, last["cache"]["saved_tokens"], saved[0], saved[1]),
    ]
    return [*rows, *_in_the_middle(documents, known, offset, bounds)]


def _in_the_middle(
    documents: Sequence[Mapping[str, Any]],
    known: Sequence[Record],
    offset: float,
    bounds: Mapping[str, Sequence[float]],
) -> list[Row]:
    """Of the last document while requests were still sent."""
    stop = max(one.sent for one in known) + offset
    place = max(index for index, one in enumerate(documents) if one["time"] <= stop and one["figures"])
    at = documents[place]["time"] - offset
    figures, before = documents[place]["figures"], documents[max(0, place - 10)]["time"] - offset
    ended = [one for one in known if before < one.ended <= at]
    edge = sum(abs(one.ended - moment) <= 0.5 for one in known for moment in (before, at))
    rows = [
        about(
            "requests/s in the middle",
            "console",
            figures["requests_per_s"],
            len(ended) / (at - before),
            (edge + 1) / (at - before),
        )
    ]
    lately = [one for one in known if at - WINDOW_S < one.ended <= at]
    for what, values in (("ttft", ttfts(lately)), ("tpot", tpots(lately))):
        for q in QUANTILES:
            seen = figures[f"{what}_s"][f"p{q * 100:.0f}"]
            rows.append(
                same_bucket(
                    f"{what.upper()} p{q * 100:.0f} in the middle", "console", seen, share(values, q), bounds[what]
                )
            )
    return rows


def held_between(history: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Seconds of replicas between two moments, from (moment, seconds of replicas so far)."""
    return sum(b - a for (_, a), (at, b) in pairwise(history) if start < at <= end)
