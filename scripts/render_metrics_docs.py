"""Writes docs/metrics.md from the table of metrics, the rules and the dashboards: `make docs`.

Tests compare the page with `render()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from inferdock.telemetry.table import CLUSTER, ENGINE, GATEWAY, PLATFORM, Metric
from scripts.render_monitoring import BOARDS, ROOT, RULES

PAGE: Final = ROOT / "docs" / "metrics.md"
RUNBOOKS: Final = ROOT / "docs" / "runbooks"

HEAD: Final = """\
<!-- Written by scripts/render_metrics_docs.py from code, rules and dashboards; do not edit: run `make docs`. -->

# Metrics, rules, alerts, dashboards

The gateway's `/metrics` and that of each engine are in the Prometheus text format. Labels are bounded: a made-up
model or key adds no series, and no label holds a prompt, a key or
an id of a request. Percentiles are estimated from buckets, so they are as exact as the bucket that they fall into;
0.5 s for TTFT and 0.05 s for TPOT are bounds of buckets.

## Where to get it

In a cluster the chart does it: `metrics.serviceMonitor.enabled`, `metrics.prometheusRule.enabled` and
`metrics.dashboards.enabled`. Panels and alerts about nodes need kube-state-metrics
with `--metric-labels-allowlist=nodes=[eks.amazonaws.com/capacityType,karpenter.sh/capacity-type]`, those about GPUs
the NVIDIA DCGM exporter.

Here, with `inferdock up` at its usual port and a Prometheus of your own. Engines have other ports after each start;
Prometheus reads the file again by itself:

```bash
inferdock status -o json \\
  | jq '[.replicas[] | {targets: [.url | ltrimstr("http://")], labels: {revision: .revision}}]' > engines.json
```

```yaml prometheus.yml
global: {scrape_interval: 15s, evaluation_interval: 15s}
rule_files: [prometheus/rules/*.yaml]
scrape_configs:
  - job_name: inferdock-gateway
    static_configs: [{targets: ["127.0.0.1:8080"]}]
  - job_name: inferdock-engine
    file_sd_configs: [{files: [engines.json]}]
```

`promtool check rules prometheus/rules/*.yaml` checks the rules; Grafana takes `grafana/dashboards/*.json` by import.
What a replica costs in an hour says a rule of yours: `prometheus/rules/price.yaml` shows how, and holds the default,
one g5.xlarge on demand. Without a Grafana, `python -m scripts.look_at_dashboards http://127.0.0.1:9090 FOLDER` draws
every panel.

A counter's series begins with its first event, and `rate()` does not see that first one: an error ratio is exact from
the second on.
"""

OF_THE_PLATFORM: Final = """\
`inferdock up` knows these, and its gateway shows them in the same `/metrics`; they are up to five seconds old. The
gateways of a cluster do not have them: a release is run there by a command that ends, and its journal is the record
(`inferdock release status -o json`); the number of replicas is KEDA's and the HorizontalPodAutoscaler's, whose figures
kube-state-metrics shows; bills are made from recorded series (`inferdock:cost*`)."""

PICTURES: Final = """\
The pictures are no screenshots of Grafana: `scripts/look_at_dashboards.py` drew each panel's queries from a Prometheus
beside a gateway with two simulated replicas, a shadow and then a canary that breaks off some of its answers. Time is in
seconds. Recorded series look five minutes back, so they rise at the start, when there was nothing to look back at."""

RECORDED: Final = {
    "engine_running:requests": "of a replica: requests that it works on",
    "engine_waiting:requests": "of a replica: requests that wait in it",
    "engine_kv_cache_usage:ratio": "of a replica: used part of the KV cache",
    "engine_prompt_tokens:rate5m": "of a replica: prompt tokens a second",
    "engine_output_tokens:rate5m": "of a replica: output tokens a second",
    "engine_preemptions:rate5m": "of a replica: requests pushed out a second",
    "engine_prefix_queries:rate5m": "of a replica: prompt tokens looked up in the prefix cache",
    "engine_prefix_hits:rate5m": "of a replica: those found",
    "engine_ttft_seconds_bucket:rate5m": "of a revision: TTFT in the engine, buckets",
    "engine_itl_seconds_bucket:rate5m": "of a revision: gaps between tokens, buckets",
    "requests:rate5m": "of a revision: requests a second",
    "errors:rate5m": "of a revision: failed and broken ones",
    "errors:ratio_rate5m": "of a revision: their part of all",
    "share:ratio_rate5m": "of a revision: its part of the model's requests",
    "ttft_seconds:p95_5m": "of a revision: TTFT p95 at the gateway",
    "tpot_seconds:p50_5m": "of a revision: TPOT p50 at the gateway",
    "waiting:requests": "of a model: requests that wait, at gateways and in engines",
    "cache_hits:ratio_rate5m": "of a model: response cache hits of all requests that met it",
    "replica_price:dollars_per_hour": "what a replica costs; give your own",
    "replicas:avg5m": "of a revision and state: replicas in the last five minutes",
    "replicas:total_avg5m": "of a revision: the same, all states",
    "replicas:total_avg1h": "of a revision: the same in the last hour",
    "price:dollars_per_hour": "of a revision: what one of its replicas costs in an hour",
    "tokens:rate1h": "of a revision and kind: tokens a second",
    "cost:dollars_per_hour": "of a revision: replicas of the last five minutes times their price",
    "cost_blended:dollars_per_million_tokens": "of a model: over all tokens that engines worked for",
    "cost_output:dollars_per_million_tokens": "of a model: over output tokens",
    "cost_with_cache:dollars_per_million_tokens": "of a model: over all tokens that clients got",
    "slo_ttft_missed:ratio_rate": "of a model: part of streams that began after 500 ms; for seven windows",
    "slo_tpot_missed:ratio_rate": "of a model: part of streams above 50 ms per token; for seven windows",
    "slo_errors_missed:ratio_rate": "of a model: part of requests that failed; for seven windows",
}
"""What recorded series are; names without ``inferdock:``, and without the window where there are several."""


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every file."""
    for path in sorted(RULES.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def short_name(record: str) -> str:
    """The key of a recorded series in :data:`RECORDED`."""
    name = record.removeprefix("inferdock:")
    return name.rstrip("0123456789mhd") if name.startswith("slo_") else name


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield _row(*heads)
    yield "|" + "---|" * len(heads)
    yield from (_row(*row) for row in rows)
    yield ""


def _of(metric: Metric) -> tuple[str, ...]:
    return f"`{metric.name}`", metric.kind, metric.unit, ", ".join(metric.labels), metric.meaning


def _ours() -> Iterator[str]:
    heads = ("Name", "Type", "Unit", "Labels", "Meaning", "There from")
    yield from _table(heads, ((*_of(metric), metric.when or "the start") for metric in GATEWAY))


def _platform() -> Iterator[str]:
    heads = ("Name", "Type", "Unit", "Labels", "Meaning", "There from")
    yield from _table(heads, ((*_of(metric), metric.when or "the start") for metric in PLATFORM))


def _engines() -> Iterator[str]:
    heads = ("Name", "Type", "Unit", "Labels", "Meaning", "In other versions")
    told = {m.name: ", ".join(f"`{a.name}` ({a.versions})" for a in m.aliases) or "the same" for m in ENGINE}
    yield from _table(heads, ((*_of(metric), told[metric.name]) for metric in ENGINE))


def _cluster() -> Iterator[str]:
    heads = ("Name", "Type", "Unit", "Labels", "Meaning", "From")
    yield from _table(heads, ((*_of(metric), metric.when) for metric in CLUSTER))


def _recorded() -> Iterator[str]:
    seen = dict.fromkeys(short_name(rule["record"]) for rule in rules() if "record" in rule)
    windows = {name: "WINDOW" if name.startswith("slo_") else "" for name in seen}
    yield from _table(("Name", "What"), ((f"`inferdock:{name}{windows[name]}`", RECORDED[name]) for name in seen))


def _alerts() -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for rule in rules():
        if "alert" in rule:
            found.setdefault(rule["alert"], []).append(rule["labels"]["severity"])
    first = {name: (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8").splitlines()[2] for name in found}
    rows = (
        (f"[{name}](runbooks/{name}.md)", ", ".join(dict.fromkeys(severities)), first[name])
        for name, severities in found.items()
    )
    yield from _table(("Alert", "Severity", "It means"), rows)


def _dashboards() -> Iterator[str]:
    for board in BOARDS:
        yield f"### {board.title.capitalize()}: `grafana/dashboards/{board.name}.json`\n"
        yield f"{board.text}\n"
        yield f"![{board.title}](dashboards/{board.name}.png)\n"
        yield from _table(("Panel", "What", "Needs"), ((p.title, p.text, p.only or "traffic") for p in board.panels))


def render() -> str:
    """The whole page."""
    parts = [HEAD, "## The gateway\n", *_ours(), "## The platform\n", f"{OF_THE_PLATFORM}\n", *_platform()]
    parts += ["## Engines\n", "vLLM 0.32, as far as rules, dashboards and the autoscaler read it.\n", *_engines()]
    parts += ["## Of the cluster\n", *_cluster()]
    parts += ["## Recorded series\n", "`prometheus/rules/`. Dashboards and alerts ask for these.\n", *_recorded()]
    parts += ["## Alerts\n", *_alerts(), "## Dashboards\n", f"{PICTURES}\n", *_dashboards()]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    Path(PAGE).write_text(render(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
