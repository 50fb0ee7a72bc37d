"""From counters to what a bill is made of: tokens of tenants, and time of replicas. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from inferdock.cost.amounts import MAX_TOKENS, ZERO, divided
from inferdock.cost.series import Growth, Series, growth
from inferdock.cost.usage import Tokens, Usage
from inferdock.telemetry import names

STATES: Final = ("unready", "idle", "busy")
KINDS: Final = ("prompt", "output", "spared_prompt", "spared_output")
WANTED: Final = (names.TENANT_TOKENS, names.TENANT_CACHED, names.REPLICA_SECONDS)
"""Samples of the gateway that are read."""
ENGINE_WANTED: Final = (names.ENGINE_PREFIX_HITS,)
"""Samples of engines that are read."""
_OWN: Final = frozenset({"model", "revision", "tenant", "kind", "state", "__name__"})
Line = tuple[str, str, str]
Revision = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ReplicaTime:
    """Time of the replicas of one revision, in seconds of replicas."""

    unready: Fraction = ZERO
    idle: Fraction = ZERO
    busy: Fraction = ZERO

    @property
    def total(self) -> Fraction:
        """All of it."""
        return self.unready + self.idle + self.busy


@dataclass(slots=True)
class Observed:
    """What was seen in a window.

    Attributes:
        usages: by tenant.
        times: by model and revision.
        prefix_cache_seen: some engine told what its prefix cache held.
        notes: what a reader should know about these figures.
    """

    usages: list[Usage] = field(default_factory=list)
    times: dict[Revision, ReplicaTime] = field(default_factory=dict)
    prefix_cache_seen: bool = False
    notes: list[str] = field(default_factory=list)


def observe(gateway: Iterable[Series], engines: Iterable[Series] = ()) -> Observed:
    """Put together what a gateway (or several) and its engines counted.

    Args:
        gateway: series of :data:`WANTED`.
        engines: series of :data:`ENGINE_WANTED`, with the label ``model`` or ``model_name``, and ``revision`` where it
            is known.
    """
    seen = Observed()
    grown = [(one, growth(one)) for one in gateway]
    seen.times, several = _times(grown)
    tokens = _tokens(grown)
    hits = [(one, growth(one)) for one in engines]
    told = _told(grown, tokens)
    cached = _cached(tokens, _hits(hits), told)
    seen.usages = [_usage(line, kinds, cached.get(line, 0)) for line, kinds in tokens.items()]
    seen.notes += _notes([*(found for _, found in grown), *(found for _, found in hits)])
    if several:
        seen.notes.append(
            "Several gateways were read: a replica counts as busy for as long as the one that used it most says."
        )
    if seen.usages and not any(one.tenant for one in seen.usages):
        seen.notes.append("Tenants are not told apart; the gateway counts them with keys.tenants_in_metrics.")
    if not seen.times:
        seen.notes.append("Nobody told the time of a replica: what was paid for tokens is not known.")
    seen.prefix_cache_seen = bool(hits or told)
    if not seen.prefix_cache_seen:
        seen.notes.append("No engine told what its prefix cache held: cached prompt tokens are not told apart.")
    return seen


def _notes(grown: Iterable[Growth]) -> list[str]:
    resets, ignored = 0, 0
    for one in grown:
        resets, ignored = max(resets, one.resets), ignored + one.ignored
    found = []
    if resets:
        found.append(f"Counters began anew {resets} time{'s' * (resets > 1)}: what was counted just before is lost.")
    if ignored:
        found.append(f"{ignored} reading{'s' * (ignored > 1)} made no sense (no number, negative, out of order).")
    return found


def _tokens(grown: Iterable[tuple[Series, Growth]]) -> dict[Line, dict[str, int]]:
    """Tokens by tenant and kind, over all gateways."""
    found: dict[Line, dict[str, int]] = {}
    for one, grew in grown:
        kind = one.labels.get("kind", "")
        if one.name == names.TENANT_TOKENS and kind in KINDS and grew.amount:
            line = (one.labels.get("model", ""), one.labels.get("revision", ""), one.labels.get("tenant", ""))
            kinds = found.setdefault(line, dict.fromkeys(KINDS, 0))
            kinds[kind] = min(MAX_TOKENS // 4, kinds[kind] + round(grew.amount))
    return found


def _usage(line: Line, kinds: Mapping[str, int], cached: int) -> Usage:
    model, revision, tenant = line
    return Usage(
        model=model,
        revision=revision,
        tenant=tenant,
        tokens=Tokens(prompt=kinds["prompt"] - cached, cached=cached, output=kinds["output"]),
        spared=Tokens(prompt=kinds["spared_prompt"], output=kinds["spared_output"]),
    )


def _hits(grown: Iterable[tuple[Series, Growth]]) -> dict[tuple[str, str | None], int]:
    """Cached prompt tokens by model and revision; None where the engine's series does not say its revision."""
    found: dict[tuple[str, str | None], int] = defaultdict(int)
    for one, grew in grown:
        if one.name in ENGINE_WANTED:
            model = one.labels.get("model") or one.labels.get("model_name", "")
            found[model, one.labels.get("revision")] += round(grew.amount)
    return found


def _told(grown: Iterable[tuple[Series, Growth]], tokens: Mapping[Line, Mapping[str, int]]) -> dict[Line, int]:
    """Cached prompt tokens by tenant, of revisions whose engines say them with each answer."""
    counted: dict[Line, int] = defaultdict(int)
    for one, grew in grown:
        if one.name == names.TENANT_CACHED:
            line = (one.labels.get("model", ""), one.labels.get("revision", ""), one.labels.get("tenant", ""))
            counted[line] += round(grew.amount)
    revisions = {line[:2] for line in counted}
    return {line: min(counted.get(line, 0), of["prompt"]) for line, of in tokens.items() if line[:2] in revisions}


def _cached(
    tokens: Mapping[Line, Mapping[str, int]], hits: Mapping[tuple[str, str | None], int], told: Mapping[Line, int]
) -> dict[Line, int]:
    """What is told by tenant; the rest of each engine's cached tokens is divided among the tenants that it served, by
    their prompt tokens."""
    found: dict[Line, int] = defaultdict(int, told)
    for (model, revision), whole in hits.items():
        hit = whole if revision is not None else max(0, whole - sum(n for line, n in told.items() if line[0] == model))
        lines = [line for line in tokens if line[0] == model and revision in (None, line[1]) and line not in told]
        left = [tokens[line]["prompt"] - found[line] for line in lines]
        for line, part in zip(lines, divided(min(hit, sum(left)), left), strict=True):
            found[line] += part
    return found


def _times(grown: Iterable[tuple[Series, Growth]]) -> tuple[dict[Revision, ReplicaTime], bool]:
    """Time by revision, and whether more than one gateway tells it: each sees all replicas, so they do not add up."""
    by_reader: dict[Revision, dict[frozenset[tuple[str, str]], dict[str, Fraction]]] = {}
    for one, grew in grown:
        state = one.labels.get("state", "")
        if one.name == names.REPLICA_SECONDS and state in STATES:
            key = (one.labels.get("model", ""), one.labels.get("revision", ""))
            reader = frozenset((k, v) for k, v in one.labels.items() if k not in _OWN)
            states = by_reader.setdefault(key, {}).setdefault(reader, dict.fromkeys(STATES, ZERO))
            states[state] += grew.amount
    times = {key: _time(list(readers.values())) for key, readers in by_reader.items()}
    several = any(len(readers) > 1 for readers in by_reader.values())
    return {key: one for key, one in times.items() if one.total}, several


def _time(readers: list[dict[str, Fraction]]) -> ReplicaTime:
    widest = max(readers, key=lambda states: sum(states.values()))
    busy = max(states["busy"] for states in readers)
    unready = min(widest["unready"], sum(widest.values(), ZERO) - busy)
    return ReplicaTime(unready=unready, busy=busy, idle=sum(widest.values(), ZERO) - busy - unready)
