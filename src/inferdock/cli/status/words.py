"""What ``inferdock status`` says: a look at the platform as words and figures, without any drawing. Pure.

A part that is missing from a look (a gateway that restarts, an older platform, an engine that does not answer) is a
dash or a sentence, never a zero and never an error.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inferdock.app.status import Seen
from inferdock.cli.status.figures import NONE, count, dollars, is_number, rate, share, span


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a group.

    Attributes:
        name: of the figure.
        cells: one, or two where the group has columns.
        detail: what it refers to; shown where there is room.
        curve: name in the history, "" where none is kept.
    """

    name: str
    cells: tuple[str, ...]
    detail: str = ""
    curve: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Figures that belong together.

    Attributes:
        title: of the group.
        columns: titles of the cells, none where there is one.
        note: a sentence instead of rows.
    """

    title: str
    rows: tuple[Row, ...] = ()
    columns: tuple[str, ...] = ()
    note: str = ""


def groups(seen: Seen) -> list[Group]:
    """Traffic, latency, caches, money."""
    figures = _mapping(seen.live.get("figures"))
    if not figures:
        silent = "The gateway gives no figures just now."
        return [*(Group(title=title, note=silent) for title in ("Traffic", "Latency", "Caches")), _money(seen)]
    return [_traffic(seen, figures), _latency(seen, figures), _caches(seen, figures), _money(seen)]


def history(seen: Seen) -> dict[str, object]:
    """What curves are made of."""
    figures = _mapping(seen.live.get("figures"))
    return {
        "requests": figures.get("requests_per_s"),
        "tokens": figures.get("output_tokens_per_s"),
        "in_flight": seen.live.get("in_flight"),
        "waiting": figures.get("waiting"),
    }


def _traffic(seen: Seen, figures: Mapping[str, Any]) -> Group:
    gateway = _mapping(seen.gateway)
    requests, tokens = (
        figures[name] if is_number(figures.get(name)) else gateway.get(name)
        for name in ("requests_per_s", "output_tokens_per_s")
    )
    whole = f"{count(figures.get('requests_total'))} in all, {count(figures.get('failed_total'))} failed"
    said = f"{count(figures.get('output_tokens_total'))} out, {count(figures.get('prompt_tokens_total'))} in"
    return Group(
        title="Traffic",
        rows=(
            Row(name="requests", cells=(f"{rate(requests)} /s",), detail=whole, curve="requests"),
            Row(name="tokens", cells=(f"{rate(tokens)} /s",), detail=said, curve="tokens"),
            Row(name="in flight", cells=(count(seen.live.get("in_flight")),), curve="in_flight"),
            Row(name="queued", cells=(count(figures.get("waiting")),), detail="wait for a replica", curve="waiting"),
        ),
    )


def _latency(seen: Seen, figures: Mapping[str, Any]) -> Group:
    """The gateway's own last minute where it says it: the console's is as long as somebody has looked."""
    cells = {
        name: tuple(_quantile(seen, figures, name, one) for one in ("p50", "p95")) for name in ("ttft_s", "tpot_s")
    }
    if not any(is_number(one) for found in cells.values() for one in found):
        idle = not figures.get("requests_per_s") and not seen.live.get("in_flight")
        return Group(title="Latency", note=f"No {'request' if idle else 'answer'} in the last minute.")
    first, token = (tuple(span(one) for one in cells[name]) for name in ("ttft_s", "tpot_s"))
    return Group(
        title="Latency of the last minute",
        columns=("p50", "p95"),
        rows=(
            Row(name="TTFT", cells=first, detail="first token"),
            Row(name="TPOT", cells=token, detail="per token"),
        ),
    )


def _quantile(seen: Seen, figures: Mapping[str, Any], name: str, which: str) -> object:
    own = _mapping(seen.gateway).get(f"{name.removesuffix('_s')}_{which}_s")
    return own if is_number(own) else _mapping(figures.get(name)).get(which)


def _caches(seen: Seen, figures: Mapping[str, Any]) -> Group:
    kv = [one["kv_cache_usage_ratio"] for one in replicas(seen) if is_number(one.get("kv_cache_usage_ratio"))]
    fullest = "fullest replica" if len(kv) > 1 else "" if kv else "no replica says"
    prefix = figures.get("prefix_cache_ratio")
    cache = _mapping(figures.get("cache"))
    asked, hits = cache.get("requests"), cache.get("hits")
    answered = hits / asked if is_number(asked) and is_number(hits) and asked > 0 else None
    saved = Row(name="saved", cells=(count(cache.get("saved_tokens")),), detail=f"tokens, {span(cache.get('saved_s'))}")
    return Group(
        title="Caches",
        rows=(
            Row(name="KV cache", cells=(share(max(kv, default=None)),), detail=fullest),
            Row(name="prefix", cells=(share(prefix),), detail="of prompt tokens" if is_number(prefix) else "not known"),
            Row(
                name="response",
                cells=(share(answered),),
                detail="off, or not asked" if answered is None else f"{count(hits)} of {count(asked)} hit",
            ),
            *((saved,) if answered is not None else ()),
        ),
    )


def _money(seen: Seen) -> Group:
    cost = _mapping(seen.live.get("cost"))
    if not cost.get("price"):
        cure = " Set cost.cost_per_hour." if cost.get("given") is False else ""
        return Group(title="Cost", note=f"{cost.get('why') or 'Nothing is known of it.'}{cure}")
    million, saved = _mapping(cost.get("dollars_per_million")), _mapping(cost.get("saved_dollars"))
    by_prefix = saved.get("prefix_cache")
    prefix = f"prefix {dollars(by_prefix)}" if is_number(by_prefix) else ""
    return Group(
        title="Cost",
        rows=(
            Row(name="per hour", cells=(dollars(cost.get("dollars_per_hour")),)),
            Row(name="per 1M tokens", cells=(dollars(million.get("blended")),), detail="in and out"),
            Row(name="output alone", cells=(dollars(million.get("output")),), detail="per 1M tokens"),
            Row(name="cache saved", cells=(dollars(saved.get("response_cache")),), detail=prefix),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release, or the last one.

    Attributes:
        title: from what to what, and where it is.
        step: that it is at, or how it ended.
        shares: name of a version or revision, and its part of the requests.
        over: nothing moves any more.
        problem: it cannot be read.
    """

    title: str
    step: str = ""
    shares: tuple[tuple[str, float], ...] = ()
    over: bool = True
    problem: bool = False


def release(seen: Seen) -> Release | None:
    """The release that is under way, or the last one; None where nothing is known of any."""
    found = seen.live.get("release")
    given = _mapping(seen.live.get("weights"))
    if not isinstance(found, Mapping):
        weights = tuple((str(name), float(one)) for name, one in given.items() if is_number(one))
        return Release(title="Several revisions share the requests", shares=weights) if len(weights) > 1 else None
    if found.get("problem"):
        return Release(title="The release cannot be read", step=str(found["problem"]), problem=True)
    known = _mapping(found.get("names"))
    over = bool(found.get("over"))
    shares = tuple((str(known.get(name, name)), float(one)) for name, one in given.items() if is_number(one))
    steps, at = found.get("steps"), found.get("next")
    place = (
        f"step {min(at + 1, len(steps))} of {len(steps)}: "
        if is_number(at) and isinstance(steps, list) and steps
        else ""
    )
    return Release(
        title=f"{found.get('from') or 'nothing'} → {found.get('to') or NONE}: {found.get('state') or 'unknown'}",
        step=str(found.get("outcome") or "") if over else f"{place}{found.get('step') or ''}".removesuffix(": "),
        shares=shares if not over or len(shares) > 1 else (),
        over=over,
    )


def replicas(seen: Seen) -> list[dict[str, Any]]:
    """Replicas as the console has them, with the address, port and log that the platform wrote down."""
    written = {one.get("name"): one for one in seen.state.get("replicas") or [] if isinstance(one, Mapping)}
    told = {one.get("name"): one for one in _mapping(seen.gateway).get("endpoints") or [] if isinstance(one, Mapping)}
    rows = seen.live.get("replicas")
    found = [one for one in rows if isinstance(one, Mapping)] if isinstance(rows, list) else [*written.values()]
    return [
        {**written.get(one.get("name"), {"url": told.get(one.get("name"), {}).get("url", "")}), **one} for one in found
    ]


def ready(rows: Iterable[Mapping[str, Any]]) -> int:
    """How many may take requests."""
    return sum(one.get("state") == "ready" for one in rows)


def problems(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why replicas died last."""
    return [
        f"{one.get('name')}: {one['problem']}" + (f" Log: {one['log']}" if one.get("log") else "")
        for one in rows
        if one.get("problem")
    ]


def notices(seen: Seen) -> list[str]:
    """What a person should know first."""
    found = []
    rows = replicas(seen)
    if seen.live.get("stopping"):
        found.append("Draining: open requests finish, new ones are refused.")
    if seen.gateway is None:
        found.append("The gateway does not answer just now.")
    if not rows:
        found.append("There is no replica.")
    elif not ready(rows):
        found.append("No replica is ready: requests wait, or are refused.")
    return found


def clock(seen: Seen) -> str:
    """Time of day of the look."""
    at = seen.live.get("time")
    return datetime.datetime.fromtimestamp(at).strftime("%H:%M:%S") if is_number(at) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
