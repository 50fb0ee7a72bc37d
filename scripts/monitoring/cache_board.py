"""The dashboard of the response cache."""

from __future__ import annotations

from typing import Final

from inferdock.telemetry import names as n
from scripts.monitoring.panels import MODEL, PLACE, RATE, Dashboard, Panel, per_second, quantile, recorded

CACHE: Final = Dashboard(
    "cache",
    "response cache",
    "What it answers, what that saves, and whether it is ever wrong.",
    (
        Panel(
            "Hits",
            "percentunit",
            ((recorded("inferdock:cache_hits:ratio_rate5m"), "{{model}}"),),
            "Of all requests that met the cache, those that may not use it too.",
            kind="stat",
            width=6,
        ),
        Panel(
            "Tokens saved",
            "short",
            ((f"sum(increase({n.CACHE_SAVED_TOKENS}{{{MODEL}}}[$__range]))", "tokens"),),
            "In the time that is shown.",
            kind="stat",
            width=6,
        ),
        Panel(
            "Engine time saved",
            "s",
            ((f"sum(increase({n.CACHE_SAVED_SECONDS}{{{MODEL}}}[$__range]))", "seconds"),),
            "In the time that is shown.",
            kind="stat",
            width=6,
        ),
        Panel(
            "Surely wrong",
            "percentunit",
            ((f'max by (model) ({n.CACHE_WRONG_RATIO}{{{MODEL},bound="low"}})', "{{model}}"),),
            "At least so many of the checked semantic hits were wrong.",
            (0.01, 0.02),
            "stat",
            width=6,
            runbook="InferdockCacheWrongHits",
            only="semantic hits that were checked (`cache.audit_ratio`)",
        ),
        Panel(
            "Requests",
            "reqps",
            ((per_second(n.CACHE_REQUESTS, MODEL, "model, outcome"), "{{model}} {{outcome}}"),),
            "By outcome.",
            stacked=True,
        ),
        Panel(
            "Hits by tier",
            "reqps",
            ((per_second(n.CACHE_HITS, MODEL, "tier"), "{{tier}}"),),
            "`flight` shares an answer that is being written.",
            stacked=True,
        ),
        Panel(
            "Bypasses",
            "reqps",
            ((per_second(n.CACHE_BYPASSES, MODEL, "reason"), "{{reason}}"),),
            "Requests that may not use the cache, by reason.",
        ),
        Panel(
            "Look-up, p95",
            "s",
            ((quantile(0.95, n.CACHE_LOOKUP, PLACE, "tier"), "{{tier}}"),),
            "Goals: 0.5 ms for equal requests, 5 ms for those that mean the same.",
            (0.005, 0.02),
        ),
        Panel(
            "Tokens saved a second",
            "short",
            ((per_second(n.CACHE_SAVED_TOKENS, MODEL, "model, kind"), "{{model}} {{kind}}"),),
            "That no engine had to read or write.",
        ),
        Panel(
            "Engine seconds saved a second",
            "short",
            ((per_second(n.CACHE_SAVED_SECONDS, MODEL, "model"), "{{model}}"),),
            "Requests that engines would have held at a time.",
        ),
        Panel(
            "Wrong hits",
            "percentunit",
            ((f"max by (model, partition_class, bound) ({n.CACHE_WRONG_RATIO}{{{MODEL}}})", "{{model}} {{bound}}"),),
            "With the bounds of the 95 % interval, over all that was checked since the start.",
            (0.01, 0.02),
            runbook="InferdockCacheWrongHits",
            only="semantic hits that were checked (`cache.audit_ratio`)",
        ),
        Panel(
            "Checks",
            "ops",
            (
                (per_second(n.CACHE_AUDITS, MODEL, "model, verdict"), "{{model}} {{verdict}}"),
                (per_second(n.CACHE_PROMOTIONS, MODEL, "model"), "{{model}} let pass by the judge"),
            ),
            "Semantic hits that were generated again.",
            only="semantic hits that were checked (`cache.audit_ratio`)",
        ),
        Panel(
            "Answers",
            "short",
            ((f"sum({n.CACHE_ENTRIES}{{{PLACE}}})", "answers"), (f"sum({n.CACHE_VECTORS}{{{PLACE}}})", "messages")),
            "In the memory of gateways.",
        ),
        Panel("Memory", "bytes", ((f"sum({n.CACHE_BYTES}{{{PLACE}}})", "answers"),), "Of these answers."),
        Panel(
            "Stored and dropped",
            "ops",
            (
                (f"sum(rate({n.CACHE_STORED}{{{MODEL}}}[{RATE}]))", "stored"),
                (per_second(n.CACHE_EVICTIONS, PLACE, "reason"), "dropped: {{reason}}"),
            ),
            "Dropped for lack of room: `cache.max_bytes` is too small.",
        ),
        Panel(
            "Redis",
            "short",
            (
                (f"sum({n.CACHE_REDIS_UP}{{{PLACE}}})", "processes that reach it"),
                (f"sum(increase({n.CACHE_STORE_ERRORS}{{{PLACE}}}[{RATE}]))", "calls that failed"),
            ),
            "Without it each gateway has its own memory only.",
        ),
    ),
    ("InferdockCacheWrongHits",),
)
