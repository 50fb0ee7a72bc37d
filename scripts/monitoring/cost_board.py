"""The dashboard of cost: the plan's four panels, and what they come from."""

from __future__ import annotations

from typing import Final

from inferdock.telemetry import names as n
from scripts.monitoring.panels import MODEL, REVISION, Dashboard, Panel, per_second

_REPLICAS: Final = f"inferdock:replicas:avg5m{{{REVISION}}}"
_TOTAL: Final = f"inferdock:replicas:total_avg5m{{{REVISION}}}"
_COST: Final = f"inferdock:cost:dollars_per_hour{{{REVISION}}}"
_BUSY: Final = f'inferdock:replicas:avg5m{{{REVISION},state="busy"}}'
SPARED: Final = f'{REVISION},kind=~"spared_.*"'
_KINDS: Final = (("blended", "blended"), ("output", "output"), ("with_cache", "with cache"))
_PER_MILLION: Final = tuple(
    (f"inferdock:cost_{name}:dollars_per_million_tokens{{{MODEL}}}", f"{told} {{{{model}}}}") for name, told in _KINDS
)
_LABELS: Final = ("label_eks_amazonaws_com_capacity_type", "label_karpenter_sh_capacity_type")


def _engines_on(label: str) -> str:
    """Engines by how their node is paid."""
    nodes = f'max by (node, {label}) ({n.NODE_LABELS}{{{label}!=""}})'
    engines = f'max by (namespace, pod, node) ({n.POD_INFO}{{namespace=~"$namespace"}})'
    ours = f"{engines} and on (namespace, pod) inferdock:engine_running:requests{{{MODEL}}}"
    paid = f"count by ({label}) (({ours}) * on (node) group_left ({label}) {nodes})"
    return f"{paid} / scalar(count({ours}))"


COST: Final = Dashboard(
    "cost",
    "cost",
    "What a million tokens cost, and what is paid for nothing. `inferdock cost` tells it by tenant, and exactly.",
    (
        Panel(
            "Cost per 1M tokens",
            "currencyUSD",
            _PER_MILLION,
            "What was paid in the last hour, start-up and idle time included, over tokens: all that engines worked for,"
            " output alone, all that clients got. Goal: below $0.60. The price of a replica is"
            " `inferdock:replica_price:dollars_per_hour` (prometheus/rules/price.yaml).",
            (0.6, 1),
            "stat",
            width=12,
            runbook="InferdockCostHigh",
        ),
        Panel(
            "Paid per hour",
            "currencyUSD",
            ((f"sum by (model) ({_COST})", "{{model}}"),),
            "Replicas times their price, over the last five minutes.",
            kind="stat",
            width=6,
        ),
        Panel(
            "Price of a replica for an hour",
            "currencyUSD",
            (("inferdock:replica_price:dollars_per_hour", "{{source}} {{model}}"),),
            "`default` yields to a rule of your own.",
            kind="stat",
            width=6,
        ),
        Panel(
            "Cost per 1M tokens over time",
            "currencyUSD",
            _PER_MILLION,
            "Each point is the hour before it. Nothing where nobody asked.",
            (0.6, 1),
            width=12,
            runbook="InferdockCostHigh",
        ),
        Panel(
            "Spot and on-demand",
            "percentunit",
            tuple((_engines_on(label), f"{{{{{label}}}}}") for label in _LABELS),
            "Engines by how their nodes are paid.",
            stacked=True,
            width=12,
            only="a cluster with kube-state-metrics that shows the nodes' capacity labels (docs/metrics.md)",
        ),
        Panel(
            "Cache hit rate",
            "percentunit",
            (
                (f"inferdock:cache_hits:ratio_rate5m{{{MODEL}}}", "response cache {{model}}"),
                (
                    f"sum by (model) (inferdock:engine_prefix_hits:rate5m{{{MODEL}}})\n"
                    f"  / (sum by (model) (inferdock:engine_prefix_queries:rate5m{{{MODEL}}}) > 0)",
                    "prefix cache {{model}}",
                ),
            ),
            "The response cache by requests, the engines' prefix cache by prompt tokens.",
            width=12,
        ),
        Panel(
            "GPU utilisation beside cost",
            "percentunit",
            (
                (f"sum by (model) ({_BUSY}) / sum by (model) ({_TOTAL})", "replicas busy {{model}}"),
                (
                    f'avg({n.GPU_BUSY}{{namespace=~"$namespace"}} and on (namespace, pod)'
                    " inferdock:engine_running:requests) / 100",
                    "GPUs work",
                ),
            ),
            "Low lines: paid for nothing. The second needs the NVIDIA DCGM exporter.",
            width=12,
        ),
        Panel(
            "Replicas by state",
            "short",
            ((f"sum by (state) ({_REPLICAS})", "{{state}}"),),
            "Over the last five minutes. `idle` ones are ready and have no request.",
            stacked=True,
        ),
        Panel(
            "Paid for idle and start-up time",
            "currencyUSD",
            (
                (
                    f"sum by (model) ({_COST})\n  * (1 - sum by (model) ({_BUSY}) / (sum by (model) ({_TOTAL}) > 0))",
                    "{{model}}",
                ),
            ),
            "Dollars an hour that no token has earned.",
        ),
        Panel(
            "Where the money went",
            "currencyUSD",
            ((f"sum by (part) ({n.COST_DOLLARS}{{{REVISION}}})", "{{part}}"),),
            "Dollars since the platform's start: work on tokens, idle time, start-up time, what could not be assigned.",
            stacked=True,
            only="`inferdock up` with a price (`cost`)",
        ),
        Panel(
            "Tokens per dollar",
            "short",
            ((f"1e6 / (inferdock:cost_blended:dollars_per_million_tokens{{{MODEL}}} > 0)", "{{model}}"),),
            "Effective throughput.",
        ),
        Panel(
            "Tokens",
            "short",
            ((per_second(n.TENANT_TOKENS, f'{REVISION},tenant=~"$tenant"', "kind"), "{{kind}}"),),
            "A second. `spared_` ones came from the response cache.",
            stacked=True,
        ),
        Panel(
            "Tokens by tenant",
            "short",
            (
                (
                    f"topk(15, sum by (tenant) (increase({n.TENANT_TOKENS}"
                    f'{{{REVISION},tenant=~"$tenant"}}[$__range])))',
                    "{{tenant}}",
                ),
            ),
            "In the time that is shown; told apart with `keys.tenants_in_metrics`.",
            kind="bargauge",
        ),
        Panel(
            "Saved by the response cache",
            "currencyUSD",
            (
                (
                    f"0.0036 * {per_second(n.TENANT_TOKENS, SPARED, 'model')}\n"
                    f"  * on (model) group_left () sum by (model) ("
                    f"inferdock:cost_blended:dollars_per_million_tokens{{{MODEL}}})",
                    "{{model}}",
                ),
            ),
            "Dollars an hour that its tokens would have cost as blended ones; `inferdock cost` weighs them by work.",
        ),
    ),
    ("InferdockCostHigh",),
    ("tenant",),
)
