"""Panels that have no counterpart in what a client can count, and why. Pure."""

from __future__ import annotations

from typing import Final

from bench.agreement.panels import AT_REST, COUNTED, PAID, PERCENTILES, RATIOS, titles

_ENGINE: Final = "the engine's own; its counters end with it, and a client sees neither its queue nor its memory"
_TRIES: Final = "tries and moves between replicas are what a client is spared to see"
_CLUSTER: Final = "only a cluster has it"
_CHECKED: Final = "only semantic hits have it, which the load leaves off"
_SHADOW: Final = "only a shadow has it"
_DERIVED: Final = "made from numbers that are compared"
_WINDOW: Final = "over an hour and more; the same rule over other counters is compared"
REASONS: Final[dict[tuple[str, str], str]] = {
    ("serving", "Gap between outputs, p99"): "a client's reads join outputs that came close together",
    ("serving", "Requests by replica"): _TRIES,
    ("serving", "Tries on replicas"): _TRIES,
    ("serving", "Streams that lost their replica"): _TRIES,
    ("serving", "Gateways"): "the gateway's own processes and connections",
    ("release", "Replicas"): "as `Replicas by state` of the cost dashboard, which is compared",
    ("release", "Tries that failed"): _TRIES,
    ("cost", "Price of a replica for an hour"): "a setting",
    ("cost", "Cost per 1M tokens over time"): "the same as `Cost per 1M tokens`, which is compared",
    ("cost", "Spot and on-demand"): _CLUSTER,
    ("cost", "GPU utilisation beside cost"): "when a replica is busy a client cannot see; the other half needs a GPU",
    ("cost", "Paid for idle and start-up time"): "when a replica is busy a client cannot see",
    ("cost", "Tokens per dollar"): _DERIVED,
    ("cost", "Saved by the response cache"): _DERIVED,
    ("cache", "Engine time saved"): "how long the first answer took inside of the gateway",
    ("cache", "Engine seconds saved a second"): "how long the first answer took inside of the gateway",
    ("cache", "Surely wrong"): _CHECKED,
    ("cache", "Wrong hits"): _CHECKED,
    ("cache", "Checks"): _CHECKED,
    ("cache", "Look-up, p95"): "inside of the gateway",
    ("cache", "Answers"): "the gateway's memory",
    ("cache", "Memory"): "the gateway's memory",
    ("cache", "Stored and dropped"): "the gateway's memory",
    ("cache", "Redis"): "no Redis in this load",
}


def compared() -> set[tuple[str, str]]:
    """Panels that are held against counts."""
    found = {(one.dashboard, one.title) for one in COUNTED}
    found |= {(one[0], one[1]) for one in PERCENTILES} | {(one[0], one[1]) for one in RATIOS}
    return found | {(one[0], one[1]) for one in AT_REST} | set(PAID)


def without() -> dict[str, str]:
    """Dashboard and title of the others, with the reason."""
    found = {}
    for dashboard, title in titles():
        if (dashboard, title) in compared():
            continue
        reason = REASONS.get((dashboard, title), "")
        if title.startswith("Engine:"):
            reason = _ENGINE
        elif title.startswith("Shadow:"):
            reason = _SHADOW
        elif title.startswith("Missed in the last"):
            reason = _WINDOW
        found[f"{dashboard}: {title}"] = reason
    return found
