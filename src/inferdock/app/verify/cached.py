"""Questions to the response cache, as a client asks them: what hits, what does not, how fast a look-up is.

Every run asks as a `user` of its own, so it neither meets the answers of others nor leaves them its own.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inferdock.app.verify.figures import exposition, quantile_bound, total
from inferdock.app.verify.ground import LackingError, faultless, verdict
from inferdock.app.verify.target import Target
from inferdock.telemetry import names
from inferdock.verify.check import Evidence

PAIRS: Final = (
    ("How do I roll back a release?", "How can I roll back a release?"),
    ("What is a canary release?", "What's a canary release?"),
    ("How do I push a model to the registry?", "How can I push a model to the registry?"),
    ("Why is the response cache off by default?", "why is the response cache off by default"),
    ("How do I create an API key?", "How can I create an API key?"),
    ("What does the gateway do?", "what does the gateway do"),
)
"""Questions, and the same in other words."""
HIT_RATE: Final = 0.10
LOOKUP_S: Final = 0.005
TTL_S: Final = 1
INDEXED_S: Final = 1.0
"""Answers become findable by their meaning a little after they were given."""
TIERS: Final = ("exact", "semantic")
OFF: Final = "Needs the response cache: start it with `cache.enabled: true` (docs/caching.md)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the gateway said about one request."""

    outcome: str
    tier: str


class Asker:
    """One user who asks.

    Raises, at each question, LackingError where the target has no cache.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._user = f"verify-{secrets.token_hex(6)}"

    async def ask(self, text: str, more: Mapping[str, Any] | None = None) -> Asked:
        """Ask, with further fields of the body."""
        body = {
            "model": self._target.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 16,
            "temperature": 0,
            "user": self._user,
            **(more or {}),
        }
        async with self._target.http.post(f"{self._target.url}/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            await answer.read()
            outcome = answer.headers.get("x-inferdock-cache")
            tier = answer.headers.get("x-inferdock-cache-tier", "")
        if outcome is None:
            raise LackingError(OFF)
        return Asked(outcome=outcome, tier=tier)


async def equal_hits(target: Target) -> Evidence:
    """Of two equal requests the second is a hit, and the counters say so."""
    asker, mine = Asker(target), {"model": target.model}
    before = await exposition(target)
    first, second = await asker.ask(PAIRS[0][0]), await asker.ask(PAIRS[0][0])
    after = await exposition(target)
    grown = {name: _grown(before, after, name, mine) for name in (names.CACHE_REQUESTS, names.CACHE_HITS)}
    requests, hits = grown[names.CACHE_REQUESTS], grown[names.CACHE_HITS]
    counted = hits == 1 if requests == 2 else hits >= 1 and requests > 2  # others may ask at the same time
    good = first.outcome == "miss" and (second.outcome, second.tier) == ("hit", "exact") and counted
    sentence = f"First {first.outcome}, then {second.outcome} {second.tier}; counted: {hits:g} hits of {requests:g}."
    return verdict(good, sentence, "inferdock cache stats", hits=hits, requests=requests)


def _grown(before: str, after: str, name: str, labels: Mapping[str, str]) -> float:
    return (total(after, name, labels) or 0.0) - (total(before, name, labels) or 0.0)


async def hit_rate(target: Target) -> Evidence:
    """Questions that come again, and in other words, hit often enough."""
    asker = Asker(target)
    first = [await asker.ask(question) for question, _ in PAIRS]
    again = [await asker.ask(question) for question, _ in PAIRS]
    await asyncio.sleep(INDEXED_S)
    reworded = [await asker.ask(other) for _, other in PAIRS]
    whole = [*first, *again, *reworded]
    hits, similar = (sum(one.outcome == "hit" for one in some) for some in (whole, reworded))
    rate = hits / len(whole)
    sentence = f"{hits} of {len(whole)} requests hit ({rate:.0%}), {similar} of {len(reworded)} in other words."
    return verdict(rate > HIT_RATE, sentence, "inferdock cache stats", hit_ratio=rate, reworded_hits=similar)


async def similar_hits(target: Target) -> Evidence:
    """A question in other words is answered by the semantic tier."""
    known = await stats(target)
    semantic = known["semantic"]
    if semantic["state"] == "off":
        raise LackingError("Needs the semantic tier: start it with `cache.semantic: true` and the extra `cache`.")
    asker = Asker(target)
    for question, _ in PAIRS:
        await asker.ask(question)
    await asyncio.sleep(INDEXED_S)
    tiers = [(await asker.ask(other)).tier for _, other in PAIRS]
    hits = tiers.count("semantic")
    trouble = f" {semantic['problem']}" if semantic["problem"] else ""
    sentence = f"{hits} of {len(tiers)} questions in other words hit by their meaning.{trouble}"
    return verdict(hits > 0, sentence, "inferdock cache explain 'How can I roll back a release?'", hits=hits)


async def quick(target: Target) -> Evidence:
    """95 of 100 look-ups take less than the plan's limit, in each tier, embedding included."""
    asker = Asker(target)
    before = await exposition(target)
    for question, other in PAIRS:
        for text in (question, question, other):
            await asker.ask(text)
    after = await exposition(target)
    tiers = {tier: quantile_bound(before, after, names.CACHE_LOOKUP, 0.95, {"tier": tier}) for tier in TIERS}
    seen = {tier: bound for tier, (bound, count) in tiers.items() if count}
    if not seen:
        return verdict(False, "No look-up was counted.")
    good = max(seen.values()) <= LOOKUP_S
    if not good and target.state is not None and os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        raise LackingError("Needs a quiet machine: more programs want its processors than it has. Run it again alone.")
    told = ", ".join(f"{tier} {bound * 1000:g} ms" for tier, bound in seen.items())
    figures = {f"{tier}_p95_s": bound for tier, bound in seen.items()}
    command = f"curl {target.url}/metrics | grep {names.CACHE_LOOKUP}"
    return verdict(good, f"95 % of the look-ups took at most: {told}.", command, **figures)


async def ends(target: Target) -> Evidence:
    """An answer is served for as long as it may be, and not longer."""
    asker, short = Asker(target), {"cache": {"ttl": TTL_S}}
    first, soon = await asker.ask(PAIRS[0][0], short), await asker.ask(PAIRS[0][0], short)
    await asyncio.sleep(TTL_S + 0.3)
    late = await asker.ask(PAIRS[0][0], short)
    wanted = {"at first": (first, "miss"), "at once": (soon, "hit"), f"after {TTL_S + 0.3:g} s": (late, "miss")}
    faults = [
        f"It is a {one.outcome} {when}, not a {due}." for when, (one, due) in wanted.items() if one.outcome != due
    ]
    return faultless(faults, f"With {TTL_S} s to live: a hit at once, a miss after {TTL_S + 0.3:g} s.")


async def shared(target: Target) -> Evidence:
    """The gateway is connected to Redis, and follows it."""
    known = (await stats(target))["redis"]
    if known is None:
        raise LackingError("Needs a Redis: start one and set `cache.redis.url`.")
    good = bool(known["connected"] and known["synced"])
    sentence = (
        f"Redis is {'connected' if known['connected'] else 'away'}, {'in step' if known['synced'] else 'not read yet'}."
    )
    return verdict(good, sentence, "inferdock cache stats")


async def stats(target: Target) -> dict[str, Any]:
    """What the cache says of itself, on the admin port.

    Raises:
        LackingError: the target has no cache, or its admin port is not known.
    """
    if target.admin_url is None:
        raise LackingError("The admin port is not known: give --admin-url.")
    async with target.http.get(f"{target.admin_url}/admin/cache") as answer:
        if answer.status in (400, 404, 409):
            raise LackingError(OFF)
        answer.raise_for_status()
        document: dict[str, Any] = await answer.json()
    return document
