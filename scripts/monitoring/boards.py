"""Dashboards of requests and of releases."""

from __future__ import annotations

from typing import Final

from inferdock.telemetry import names as n
from scripts.monitoring.panels import MODEL, PLACE, RATE, REVISION, Dashboard, Panel, per_second, quantile, recorded
from scripts.monitoring.slo import SLOS

_BY: Final = "model, revision"
_WHO: Final = "{{model}} {{revision}}"
_LOST: Final = "a replica lost under a stream"

_MISSED: Final = tuple(
    Panel(
        f"Missed in the last hour: {slo.goal}",
        "percentunit",
        ((recorded(slo.series("1h")), "{{model}}"),),
        f"The part of requests that missed it; {slo.budget:.1%} may. Red from the burn rate that wakes somebody.",
        (slo.budget, min(1.0, slo.budget * slo.burns[0].factor)),
        "stat",
        runbook=slo.alert,
    )
    for slo in SLOS
)

SERVING: Final = Dashboard(
    "serving",
    "serving and service levels",
    "What clients see, and what it comes from: queue, replicas, engines.",
    (
        *_MISSED,
        Panel(
            "TTFT",
            "s",
            tuple((quantile(q, n.TTFT, REVISION, "model"), f"p{q * 100:.0f} {{{{model}}}}") for q in (0.5, 0.95, 0.99)),
            "Streams, measured at the gateway: request received to first byte of output. Goal: p95 below 0.5 s.",
            (0.4, 0.5),
            runbook="InferdockTtftBurn",
        ),
        Panel(
            "TPOT",
            "s",
            tuple((quantile(q, n.TPOT, REVISION, "model"), f"p{q * 100:.0f} {{{{model}}}}") for q in (0.5, 0.95)),
            "Streams: time per token after the first. Goal: p50 below 0.05 s.",
            (0.04, 0.05),
            runbook="InferdockTpotBurn",
        ),
        Panel(
            "Gap between outputs, p99",
            "s",
            ((quantile(0.99, n.ITL, REVISION, "model"), "{{model}}"),),
            "What a reader sees as a hitch.",
            (0.2, 0.5),
            runbook="InferdockTpotBurn",
        ),
        Panel(
            "Requests",
            "reqps",
            ((per_second(n.REQUESTS, f'{REVISION},model!="unknown"', "model, status"), "{{model}} {{status}}"),),
            "Answers by HTTP status.",
            stacked=True,
        ),
        Panel(
            "Errors",
            "percentunit",
            ((recorded("inferdock:errors:ratio_rate5m", REVISION), _WHO),),
            "Answers of 5xx, and those that began well and broke off, of all. Goal: below 0.5 %.",
            (0.005, 0.01),
            runbook="InferdockErrorBurn",
        ),
        Panel(
            "Whole request, p95",
            "s",
            ((quantile(0.95, n.DURATION, REVISION, "model"), "{{model}}"),),
            "Received to last byte: as long as answers are.",
        ),
        Panel(
            "In flight and waiting",
            "short",
            (
                (f"sum by (model) ({n.IN_FLIGHT}{{{REVISION}}})", "in flight {{model}}"),
                (f"sum by (model) ({n.WAITING}{{{MODEL}}})", "waits at the gateway {{model}}"),
                (recorded("inferdock:waiting:requests"), "waits in all {{model}}"),
            ),
            "Waiting in all counts the engines' queues too.",
            runbook="InferdockQueueGrowing",
        ),
        Panel(
            "Replicas that take requests",
            "short",
            ((f"sum by (model) (max by (namespace, model, endpoint) ({n.ENDPOINT_READY}{{{MODEL}}}))", "{{model}}"),),
            "As gateways see them.",
            runbook="InferdockReplicaFlapping",
        ),
        Panel(
            "Requests by replica",
            "short",
            ((f"sum by (endpoint) ({n.ENDPOINT_IN_FLIGHT}{{{MODEL}}})", "{{endpoint}}"),),
            "Uneven lines are sessions or prompts that stay together, or a replica that is slow.",
        ),
        Panel(
            "Tries on replicas",
            "ops",
            ((per_second(n.ATTEMPTS, REVISION, "outcome"), "{{outcome}}"),),
            "More than requests: replicas failed and others stood in.",
        ),
        Panel(
            "Turned away",
            "reqps",
            (
                (per_second(n.TURNED_AWAY, MODEL, "model, reason"), "{{model}} {{reason}}"),
                (per_second(n.RETRIES_REFUSED, MODEL, "model"), "{{model}} retry refused"),
            ),
            "Requests that got no replica, and retries that the budget did not allow.",
            runbook="InferdockRequestsTurnedAway",
            only="a request that got no replica",
        ),
        Panel(
            "Streams that lost their replica",
            "ops",
            ((per_second(n.RESUMES, MODEL, "outcome"), "{{outcome}}"),),
            "`resumed` ones went on elsewhere, and the client saw nothing.",
            runbook="InferdockStreamsCut",
            only=_LOST,
        ),
        Panel(
            "Engine: KV cache",
            "percentunit",
            ((f"max by (model, revision) ({recorded('inferdock:engine_kv_cache_usage:ratio')})", _WHO),),
            "The fullest replica of each revision.",
            (0.85, 0.95),
            runbook="InferdockKvCachePressure",
        ),
        Panel(
            "Engine: running and waiting",
            "short",
            (
                (f"sum by (model) ({recorded('inferdock:engine_running:requests')})", "running {{model}}"),
                (f"sum by (model) ({recorded('inferdock:engine_waiting:requests')})", "waiting {{model}}"),
            ),
            "Added up over replicas.",
        ),
        Panel(
            "Engine: pushed out",
            "reqps",
            ((f"sum by (model) ({recorded('inferdock:engine_preemptions:rate5m')})", "{{model}}"),),
            "Requests whose KV cache was taken away and is computed again.",
            (0.05, 0.1),
            runbook="InferdockKvCachePressure",
        ),
        Panel(
            "Engine: tokens",
            "short",
            (
                (f"sum by (model) ({recorded('inferdock:engine_prompt_tokens:rate5m')})", "read {{model}}"),
                (f"sum by (model) ({recorded('inferdock:engine_output_tokens:rate5m')})", "written {{model}}"),
            ),
            "Tokens a second.",
        ),
        Panel(
            "Engine: TTFT and gap, p95",
            "s",
            tuple(
                (f"histogram_quantile(0.95, sum by (model, le) ({recorded(name)}))", f"{what} {{{{model}}}}")
                for name, what in (
                    ("inferdock:engine_ttft_seconds_bucket:rate5m", "TTFT"),
                    ("inferdock:engine_itl_seconds_bucket:rate5m", "gap"),
                )
            ),
            "Measured in the engine: what the gateway's TTFT has more is queue and way.",
        ),
        Panel(
            "Gateways",
            "short",
            (
                (f"sum({n.CONNECTIONS}{{{PLACE}}})", "connections"),
                (f"sum({n.WORKERS}{{{PLACE}}})", "processes"),
                (f"sum({n.DRAINING}{{{PLACE}}})", "draining"),
                (f"sum(increase({n.WORKER_DEATHS}{{{PLACE}}}[{RATE}]))", "processes that died"),
                (f"sum(increase({n.REQUESTS_LOST}{{{PLACE}}}[{RATE}]))", "requests lost with them"),
            ),
            "The gateways themselves.",
        ),
    ),
    ("InferdockTtftBurn", "InferdockTpotBurn", "InferdockErrorBurn", "InferdockQueueGrowing"),
)

RELEASE: Final = Dashboard(
    "release",
    "releases",
    "Two revisions beside each other while traffic moves. `inferdock release status` has the verdicts.",
    (
        Panel(
            "Share of requests",
            "percentunit",
            ((recorded("inferdock:share:ratio_rate5m", REVISION), _WHO),),
            "As answered, which follows the weights.",
            stacked=True,
            width=12,
        ),
        Panel(
            "Requests",
            "reqps",
            ((recorded("inferdock:requests:rate5m", f'{REVISION},revision!=""'), _WHO),),
            "A verdict needs enough of them.",
            width=12,
        ),
        Panel(
            "Errors",
            "percentunit",
            ((recorded("inferdock:errors:ratio_rate5m", f'{REVISION},revision!=""'), _WHO),),
            "Answers of 5xx, and those that broke off, of all.",
            (0.005, 0.01),
            runbook="InferdockCanaryWorse",
        ),
        Panel(
            "TTFT, p95",
            "s",
            ((recorded("inferdock:ttft_seconds:p95_5m", REVISION), _WHO),),
            "Streams, at the gateway.",
            (0.4, 0.5),
            runbook="InferdockCanaryWorse",
        ),
        Panel(
            "TPOT, p50",
            "s",
            ((recorded("inferdock:tpot_seconds:p50_5m", REVISION), _WHO),),
            "Streams, at the gateway.",
            (0.04, 0.05),
            runbook="InferdockCanaryWorse",
        ),
        Panel(
            "Replicas",
            "short",
            (
                (
                    f"max by (model, revision) (sum by (instance, model, revision) ("
                    f'rate({n.REPLICA_SECONDS}{{{REVISION},state!="unready"}}[{RATE}])))',
                    f"ready {_WHO}",
                ),
                (
                    f"max by (model, revision) (sum by (instance, model, revision) ("
                    f'rate({n.REPLICA_SECONDS}{{{REVISION},state="unready"}}[{RATE}])))',
                    f"not ready {_WHO}",
                ),
            ),
            "The old revision's stay until the release has baked, so that going back takes seconds.",
        ),
        Panel(
            "In flight",
            "short",
            ((f"sum by ({_BY}) ({n.IN_FLIGHT}{{{REVISION}}})", _WHO),),
            "A revision that is taken out keeps its requests until they end.",
        ),
        Panel(
            "Tries that failed",
            "ops",
            ((per_second(n.ATTEMPTS, f'{REVISION},outcome=~"failed|cut"', _BY), _WHO),),
            "Clients do not see those that another replica made good.",
            only="a replica that fails",
        ),
        Panel(
            "Shadow: copies",
            "reqps",
            ((per_second(n.SHADOW_REQUESTS, REVISION, "model, revision, outcome"), f"{_WHO} {{{{outcome}}}}"),),
            "Copies of requests that the new revision got before it had clients.",
            only="`inferdock release start --shadow`",
        ),
        Panel(
            "Shadow: differences",
            "percentunit",
            (
                (
                    f"{per_second(n.SHADOW_DIFFERENCES, REVISION, 'model, revision, kind')}\n"
                    f"  / on (model, revision) group_left ()"
                    f" (sum by ({_BY}) (rate({n.SHADOW_DIFFERENCES}{{{REVISION}}}[{RATE}])) > 0)",
                    f"{_WHO} {{{{kind}}}}",
                ),
            ),
            "How its answers differ from those that clients got.",
            stacked=True,
            only="`inferdock release start --shadow`",
        ),
        Panel(
            "Shadow: TTFT p95 and TPOT p50",
            "s",
            (
                (quantile(0.95, n.SHADOW_TTFT, REVISION, _BY), f"TTFT {_WHO}"),
                (quantile(0.5, n.SHADOW_TPOT, REVISION, _BY), f"TPOT {_WHO}"),
            ),
            "Copied streams.",
            only="`inferdock release start --shadow`",
        ),
    ),
    ("InferdockCanaryWorse", "InferdockErrorBurn"),
)
