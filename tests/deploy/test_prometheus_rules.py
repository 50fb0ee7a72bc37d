"""The rules on synthetic series, by Prometheus' own promtool: what must fire fires, what must not does not."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from scripts.render_metrics_docs import rules
from scripts.render_monitoring import ROOT, RULES

from inferdock.telemetry import names as n

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")

M = {"model": "m"}
R1 = {"model": "m", "revision": "r1"}
R2 = {"model": "m", "revision": "r2"}
E1 = {"model_name": "m", "engine": "0", "inferdock_io_revision": "r1", "namespace": "prod"}
ALERTS = [rule for rule in rules() if "alert" in rule]
LONGEST = 210
"""Minutes that series last."""


def series(name: str, labels: dict[str, str], values: str) -> dict[str, str]:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


def grows(name: str, labels: dict[str, str], per_minute: float) -> dict[str, str]:
    return series(name, labels, f"0+{per_minute:g}x{LONGEST}")


def stays(name: str, labels: dict[str, str], value: float) -> dict[str, str]:
    return series(name, labels, f"{value:g}+0x{LONGEST}")


def streams(metric: str, labels: dict[str, str], *, fast: float, slow: float, bound: str) -> list[dict[str, str]]:
    """A histogram of so many observations a minute within and above the bound."""
    bucket = f"{metric}_bucket"
    return [
        grows(bucket, {**labels, "le": "0.001"}, 0),
        grows(bucket, {**labels, "le": bound}, fast),
        grows(bucket, {**labels, "le": "5.0"}, fast + slow),
        grows(bucket, {**labels, "le": "+Inf"}, fast + slow),
        grows(f"{metric}_count", labels, fast + slow),
    ]


def requests(labels: dict[str, str], *, good: float, bad: float = 0, status: str = "500") -> list[dict[str, str]]:
    made = [grows(n.REQUESTS, {**labels, "route": "/v1/completions", "status": "200"}, good)]
    return [*made, grows(n.REQUESTS, {**labels, "route": "/v1/completions", "status": status}, bad)] if bad else made


def cost(*, replicas: int, prompt: float, output: float, **more: float) -> list[dict[str, str]]:
    """Replicas that are idle half of the time, and tokens a minute."""
    kinds = {"prompt": prompt, "output": output, **more}
    tokens = [grows(n.TENANT_TOKENS, {**R1, "tenant": "", "kind": kind}, value) for kind, value in kinds.items()]
    states = [grows(n.REPLICA_SECONDS, {**R1, "state": state}, 30 * replicas) for state in ("idle", "busy")]
    return [*tokens, *states]


def endpoint(values: str) -> dict[str, str]:
    return series(n.ENDPOINT_READY, {"endpoint": "replica-0", "model": "m"}, values)


def canary(*, errors: float, slow: float = 0, count: float = 100) -> list[dict[str, str]]:
    """r1 with nine tenths of the traffic, and r2."""
    old = [*requests(R1, good=900, bad=1), *streams(n.TTFT, R1, fast=900, slow=1, bound="0.1")]
    new = requests(R2, good=count - errors, bad=errors)
    return [*old, *new, *streams(n.TTFT, R2, fast=count - slow, slow=slow, bound="0.1")]


NODE = {"node": "spot-1", "key": "aws-node-termination-handler/spot-itn"}
ENGINE_POD = [
    stays(n.ENGINE_RUNNING, {**E1, "pod": "p0"}, 1),
    stays(n.POD_INFO, {"namespace": "prod", "pod": "p0", "node": "spot-1"}, 1),
    stays(n.POD_INFO, {"namespace": "prod", "pod": "other", "node": "spot-1"}, 1),
]
AUDIT = {"model": "m", "partition_class": "small"}


def wrong(low: float, point: float, checks: int) -> list[dict[str, str]]:
    counted = stays(n.CACHE_AUDITS, {**AUDIT, "verdict": "same"}, checks)
    bounds = [("low", low), ("point", point)]
    return [counted, *(stays(n.CACHE_WRONG_RATIO, {**AUDIT, "bound": bound}, value) for bound, value in bounds)]


Case = tuple[str, list[dict[str, str]], int, set[str]]
"""Name, series, minute, and severities (with window or figure) of the alerts of this name that fire then."""
CASES: dict[str, list[Case]] = {
    "InferdockTtftBurn": [
        ("nine of ten late", streams(n.TTFT, R1, fast=10, slow=90, bound="0.5"), 50, {"critical 1h", "critical 6h"}),
        ("two of five late", streams(n.TTFT, R1, fast=60, slow=40, bound="0.5"), 60, {"critical 6h"}),
        ("one of twenty late", streams(n.TTFT, R1, fast=95.1, slow=4.9, bound="0.5"), 200, set()),
        ("nobody asks", streams(n.TTFT, R1, fast=0, slow=0, bound="0.5"), 200, set()),
        ("eight of hundred for hours", streams(n.TTFT, R1, fast=92, slow=8, bound="0.5"), 200, {"warning 3d"}),
    ],
    "InferdockTpotBurn": [
        ("all slow", streams(n.TPOT, R1, fast=0, slow=100, bound="0.05"), 30, {"critical 1h", "critical 6h"}),
        ("a third slow", streams(n.TPOT, R1, fast=67, slow=33, bound="0.05"), 200, set()),
        ("more than half for hours", streams(n.TPOT, R1, fast=45, slow=55, bound="0.05"), 200, {"warning 3d"}),
    ],
    "InferdockErrorBurn": [
        ("a tenth fails", requests(R1, good=90, bad=10), 30, {"critical 1h", "critical 6h"}),
        (
            "a tenth breaks off",
            [*requests(R1, good=100), grows(n.BROKEN, R1, 10)],
            30,
            {"critical 1h", "critical 6h"},
        ),
        ("one of a thousand", requests(R1, good=999, bad=1), 200, set()),
        ("clients' faults are theirs", requests(R1, good=50, bad=50, status="400"), 200, set()),
        ("what is refused at the door", requests({"model": "unknown", "revision": ""}, good=1, bad=99), 200, set()),
    ],
    "InferdockCostHigh": [
        # $1.006 x 2 an hour over 0.6 million tokens an hour.
        ("dear", cost(replicas=2, prompt=5000, output=5000), 120, {"warning"}),
        ("cheap", cost(replicas=2, prompt=50_000, output=50_000), 120, set()),
        ("nobody asks", cost(replicas=2, prompt=0, output=0), 120, set()),
        (
            "the cache's tokens cost nobody",
            cost(replicas=2, prompt=5000, output=5000, spared_output=9e6),
            120,
            {"warning"},
        ),
        (
            "our price is lower",
            [
                *cost(replicas=2, prompt=5000, output=5000),
                stays("inferdock:replica_price:dollars_per_hour", {"source": "ours"}, 0.2),
            ],
            120,
            set(),
        ),
    ],
    "InferdockCacheWrongHits": [
        ("surely", wrong(0.03, 0.06, 100), 30, {"critical", "warning"}),
        ("probably", wrong(0.01, 0.03, 100), 30, {"warning"}),
        ("too few checks", wrong(0.01, 0.5, 2), 30, set()),
        ("right", wrong(0.0, 0.01, 100), 30, set()),
    ],
    "InferdockQueueGrowing": [
        ("grows", [series(n.WAITING, M, f"0+2x{LONGEST}")], 30, {"warning"}),
        (
            "grows in engines",
            [
                series(n.WAITING, M, f"0+0x{LONGEST}"),
                series(n.ENGINE_WAITING, E1 | {"namespace": ""}, f"0+2x{LONGEST}"),
            ],
            30,
            {"warning"},
        ),
        ("shrinks", [series(n.WAITING, M, f"800-2x{LONGEST}")], 30, set()),
        ("is short", [stays(n.WAITING, M, 3)], 30, set()),
    ],
    "InferdockRequestsTurnedAway": [
        (
            "a twentieth",
            [*requests(R1, good=95), grows(n.TURNED_AWAY, {**M, "reason": "queue_full"}, 5)],
            30,
            {"critical"},
        ),
        (
            "one of a thousand",
            [*requests(R1, good=999), grows(n.TURNED_AWAY, {**M, "reason": "bad_gateway"}, 1)],
            30,
            set(),
        ),
    ],
    "InferdockReplicaFlapping": [
        ("comes and goes", [endpoint("1 0 " * 20)], 20, {"warning"}),
        ("one restart", [endpoint("1 1 1 0 0 0 1+0x30")], 20, set()),
    ],
    "InferdockStreamsCut": [
        ("five", [grows(n.RESUMES, {**M, "outcome": "failed"}, 0.5)], 30, {"warning"}),
        ("those that went on", [grows(n.RESUMES, {**M, "outcome": "resumed"}, 50)], 30, set()),
    ],
    "InferdockKvCachePressure": [
        ("full", [stays(n.ENGINE_KV_USAGE, E1, 0.97)], 30, {"warning"}),
        ("full in an old engine", [stays("vllm:gpu_cache_usage_perc", E1, 0.97)], 30, {"warning"}),
        ("pushed out", [grows(n.ENGINE_PREEMPTIONS, E1, 60)], 30, {"critical"}),
        ("half", [stays(n.ENGINE_KV_USAGE, E1, 0.5), grows(n.ENGINE_PREEMPTIONS, E1, 1)], 30, set()),
        (
            "the new name wins",
            [stays(n.ENGINE_KV_USAGE, E1, 0.5), stays("vllm:gpu_cache_usage_perc", E1, 0.97)],
            30,
            set(),
        ),
    ],
    "InferdockCanaryWorse": [
        ("fails", canary(errors=10), 30, {"critical errors"}),
        ("is slow", canary(errors=0, slow=50), 30, {"warning ttft"}),
        ("is as good", canary(errors=0), 30, set()),
        ("has hardly any requests", canary(errors=0.1, count=0.2), 30, set()),
    ],
    "InferdockSpotInterruption": [
        ("a notice", [*ENGINE_POD, stays(n.NODE_TAINT, NODE, 1)], 5, {"warning"}),
        (
            "Karpenter's",
            [*ENGINE_POD, stays(n.NODE_TAINT, {**NODE, "key": "karpenter.sh/disrupted"}, 1)],
            5,
            {"warning"},
        ),
        ("another node", [*ENGINE_POD, stays(n.NODE_TAINT, {**NODE, "node": "spot-2"}, 1)], 5, set()),
        ("another taint", [*ENGINE_POD, stays(n.NODE_TAINT, {**NODE, "key": "nvidia.com/gpu"}, 1)], 5, set()),
    ],
}


def promtool(folder: Any, tests: list[dict[str, Any]]) -> str:
    """Run unit tests; gives what promtool says, empty when all pass."""
    document = {
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yaml"))],
        "evaluation_interval": "1m",
        "group_eval_order": [
            "inferdock-engine",
            "inferdock-gateway",
            "inferdock-price",
            "inferdock-cost",
            "inferdock-slo",
        ],
        "tests": tests,
    }
    (folder / "tests.yaml").write_text(yaml.safe_dump(document))
    command = ["promtool", "test", "rules", "tests.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def fired(alert: str, wanted: set[str]) -> list[dict[str, Any]]:
    """A query for each severity that gives 1 where the alert fires, and nothing else."""
    told = ("window", "figure")
    asked = []
    for rule in (rule for rule in ALERTS if rule["alert"] == alert):
        labels = rule["labels"]
        name = " ".join([labels["severity"], *(labels[key] for key in told if key in labels)])
        inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
        query = f'count(ALERTS{{alertname="{alert}",alertstate="firing",{inside}}})'
        asked.append((query, [{"labels": "{}", "value": 1}] if name in wanted else []))
    return [{"expr": query, "exp_samples": samples} for query, samples in asked]


def test_every_alert_has_cases_in_which_it_fires_and_in_which_it_does_not():
    assert set(CASES) == {rule["alert"] for rule in ALERTS}
    for cases in CASES.values():
        assert any(wanted for *_, wanted in cases)
        assert any(not wanted for *_, wanted in cases)


@pytest.mark.parametrize("alert", sorted(CASES))
def test_an_alert_fires_where_it_must_and_only_there(alert, tmp_path):
    tests = []
    for name, given, minute, wanted in CASES[alert]:
        asked = [{**one, "eval_time": f"{minute}m"} for one in fired(alert, wanted)]
        tests.append({"name": name, "interval": "1m", "input_series": given, "promql_expr_test": asked})
    assert promtool(tmp_path, tests) == ""


def gives(query: str, labels: str, value: float, minute: int = 120) -> dict[str, Any]:
    return {"expr": query, "eval_time": f"{minute}m", "exp_samples": [{"labels": labels, "value": value}]}


def test_cost_is_what_a_hand_calculation_says(tmp_path):
    """Two replicas at $5.672 / 4, 36 million prompt, 12 million output and 12 million spared tokens an hour."""
    ours = stays("inferdock:replica_price:dollars_per_hour", {"source": "ours"}, 1.418)
    given = [ours, *cost(replicas=2, prompt=600_000, output=200_000, spared_prompt=200_000)]
    asked = [
        gives(f"round(inferdock:cost_{kind}:dollars_per_million_tokens, 1e-6)", '{model="m"}', value)
        for kind, value in (("blended", 0.059083), ("output", 0.236333), ("with_cache", 0.047267))
    ]
    asked.append(gives("round(inferdock:cost:dollars_per_hour, 1e-6)", '{model="m", revision="r1"}', 2.836))
    assert promtool(tmp_path, [{"interval": "1m", "input_series": given, "promql_expr_test": asked}]) == ""


def test_several_gateways_see_the_same_replicas_once(tmp_path):
    given = [
        grows(n.REPLICA_SECONDS, {**R1, "state": state, "instance": gateway}, seconds)
        for gateway, parts in (("a", {"idle": 40, "busy": 20}), ("b", {"idle": 10, "busy": 50}))
        for state, seconds in parts.items()
    ]
    asked = [gives("round(inferdock:replicas:total_avg5m, 1e-6)", '{model="m", revision="r1"}', 1)]
    assert promtool(tmp_path, [{"interval": "1m", "input_series": given, "promql_expr_test": asked}]) == ""


def test_old_and_new_names_of_the_engine_give_one_series(tmp_path):
    old = {"model_name": "m", "pod": "old"}
    new = {"model_name": "m", "pod": "new"}
    given = [
        grows(n.ENGINE_PREFIX_HITS, new, 60),
        grows("vllm:gpu_prefix_cache_hits_total", old, 120),
        grows(f"{n.ENGINE_ITL}_bucket", {**new, "le": "+Inf"}, 60),
        grows("vllm:time_per_output_token_seconds_bucket", {**old, "le": "+Inf"}, 60),
    ]
    asked = [
        gives("sum(inferdock:engine_prefix_hits:rate5m)", "{}", 3, 30),
        gives("sum(inferdock:engine_itl_seconds_bucket:rate5m)", "{}", 2, 30),
    ]
    assert promtool(tmp_path, [{"interval": "1m", "input_series": given, "promql_expr_test": asked}]) == ""


def test_promtool_finds_nothing_to_say():
    files = [str(path) for path in sorted(RULES.glob("*.yaml"))]
    done = subprocess.run(
        ["promtool", "check", "rules", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_brings_the_same_rules_and_prometheus_takes_them(tmp_path):
    """Templates of alerts are Prometheus' own: Helm must leave them alone."""
    (rendered,) = yaml.safe_load_all((ROOT / "k8s" / "monitoring" / "prometheusrule.yaml").read_text())
    sources = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yaml"))]
    assert rendered["spec"]["groups"] == [group for source in sources for group in source["groups"]]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rendered["spec"]))
    command = ["promtool", "check", "rules", str(tmp_path / "rules.yaml")]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_the_configuration_in_the_docs_is_one_that_prometheus_takes(tmp_path):
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml prometheus\.yml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(example)
    (tmp_path / "prometheus").symlink_to(ROOT / "prometheus")
    command = ["promtool", "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


def test_an_alert_says_what_it_has_seen(tmp_path):
    """Two replicas at $1.006 over 0.6 million tokens an hour."""
    told = {
        "summary": "A million tokens of m cost more than $1.",
        "description": "Over the last hour they cost $3.35, start-up and idle time included.",
        "runbook_url": "docs/runbooks/InferdockCostHigh.md",
    }
    wanted = [{"exp_labels": {"severity": "warning", "model": "m"}, "exp_annotations": told}]
    asked = [{"alertname": "InferdockCostHigh", "eval_time": "120m", "exp_alerts": wanted}]
    given = cost(replicas=2, prompt=5000, output=5000)
    assert promtool(tmp_path, [{"interval": "1m", "input_series": given, "alert_rule_test": asked}]) == ""
