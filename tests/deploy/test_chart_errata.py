"""The errata of the plan that touch Kubernetes, by number: a check that fails on the plan's sample and passes on ours.

The samples lie in `plan_samples/`. Errata of images, Terraform, dashboards and scripts have their tests elsewhere.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferdock.app.render import merged
from inferdock.domain.errors import ConfigError
from tests.support.chart import CHART, COMBINATIONS, ROOT, chart_objects
from tests.support.kubernetes_checks import of_kind, pods
from tests.support.kubernetes_pod_checks import configuration, pods_fit_on_their_nodes
from tests.support.kubernetes_scaling_checks import CHECKS

SAMPLES = Path(__file__).with_name("plan_samples")

OURS = merged(
    COMBINATIONS["prod"],
    {"metrics": {"serviceMonitor": {"enabled": True}}, "cache": {"enabled": True}, "redis": {"enabled": True}},
)
"""Production with everything on that the samples have."""


def sample(*names: str) -> list[Any]:
    """Objects of the plan; what it adds to the pod in later steps is added."""
    found = [yaml.safe_load((SAMPLES / f"{name}.yaml").read_text()) for name in names if "-" not in name]
    for name in (name for name in names if "-" in name):
        addition = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())["spec"]
        addition = addition.get("template", {}).get("spec", addition)
        pod = of_kind(found, "Deployment")[0]["spec"]["template"]["spec"]
        lifecycle = addition.pop("containers", [{}])[0]
        pod.update(addition)
        pod["containers"][0].update({key: value for key, value in lifecycle.items() if key != "name"})
    return found


SERVED = ("deployment", "service", "configmap", "pdb")
CASES: list[tuple[str, str, tuple[str, ...]]] = [
    ("03-curl-is-not-in-the-image", "no_command_that_images_lack", ("deployment", "deployment-drain")),
    ("08-liveness-kills-what-loads", "loading_is_not_taken_for_death", ("deployment",)),
    ("09-settings-that-nobody-reads", "every_setting_is_read", ("deployment", "configmap")),
    ("09-edits-that-restart-nothing", "changed_settings_restart_pods", ("deployment", "configmap")),
    ("10-image-latest", "images_are_pinned", ("deployment",)),
    ("10-no-shared-memory", "engines_have_shared_memory", ("deployment",)),
    ("10-no-security-context", "pods_are_confined", ("deployment",)),
    ("10-no-request-for-processors", "containers_ask_for_what_they_use", ("deployment",)),
    ("11-replicas-beside-an-autoscaler", "replicas_have_one_owner", ("deployment", "scaledobject")),
    ("13-monitor-that-selects-nothing", "monitors_find_targets", ("deployment", "service", "servicemonitor")),
    ("14-every-token-counts-twice", "no_pod_is_scraped_twice", ("deployment", "servicemonitor")),
    ("15-a-metric-that-is-gone", "metrics_exist", ("scaledobject",)),
    ("16-85-of-what-is-0-to-1", "ratios_are_compared_with_ratios", ("scaledobject",)),
    ("17-a-mean-divided-by-replicas", "means_are_not_divided_again", ("scaledobject",)),
    ("18-the-queue-alone", "load_counts_what_runs_too", ("scaledobject",)),
    ("19-called-gpu-utilisation", "triggers_have_no_dead_fields", ("scaledobject",)),
    ("20-metric-name", "triggers_have_no_dead_fields", ("scaledobject",)),
    ("21-no-data-means-zero", "silence_is_no_zero", ("scaledobject",)),
    ("22-prometheus-in-the-wrong-namespace", "keda_finds_prometheus", ("scaledobject",)),
    ("24-no-hold-for-30-seconds", "scaling_up_waits_for_half_a_minute", ("scaledobject",)),
    ("26-sigterm-before-the-endpoint-is-gone", "pods_leave_in_order", ("deployment", "deployment-drain")),
    (
        "27-the-whole-spot-notice",
        "spot_pods_are_gone_in_time",
        ("deployment", "deployment-drain", "deployment-spot"),
    ),
    ("28-a-budget-that-stops-drains", "budgets_let_pods_go", ("deployment", "pdb")),
    ("29-an-update-needs-a-spare-card", "updates_need_no_spare_card", ("deployment",)),
    ("46-selector-without-labels", "selectors_match_pods", ("redis",)),
    ("46-redis-without-a-service", "every_server_has_a_service", ("redis",)),
    ("46-maxmemory-is-the-limit", "redis_stays_below_its_limit", ("redis",)),
]


@pytest.mark.parametrize(("check", "names"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_sample_is_wrong_and_ours_is_right(check, names):
    assert list(CHECKS[check](sample(*names))) != []
    assert list(CHECKS[check](chart_objects(OURS))) == []


def test_06_requests_fit_on_the_nodes_that_are_named():
    assert list(pods_fit_on_their_nodes(sample("deployment"), ["g5.xlarge"])) != []
    assert list(pods_fit_on_their_nodes(chart_objects(OURS), ["g5.xlarge", "g6.xlarge"])) == []


def test_07_a_card_without_the_kernels_is_refused():
    with pytest.raises(ConfigError, match=r"AWQ in vLLM needs compute capability 7\.5, and V100 has 7\.0"):
        chart_objects(merged(OURS, {"engine": {"instanceTypes": ["p3.2xlarge"]}}))


def test_12_there_is_one_source_and_the_rest_is_rendered_from_it():
    """The plan has an image in its manifests and another in its values, and its scripts change a third by hand."""
    values = yaml.safe_load((SAMPLES / "values.yaml").read_text())
    twice = f"{values['image']['repository']}:{values['image']['tag']}"
    assert sample("deployment")[0]["spec"]["template"]["spec"]["containers"][0]["image"] == twice
    for path in (ROOT / "k8s").rglob("*.yaml"):
        assert path.read_text().startswith("# Generated by scripts/render from helm/llm-inference; do not edit.\n")


def test_23_five_minutes_come_from_stabilisation_not_from_the_cooldown():
    """KEDA's cooldown counts on the way to zero only, where the plan's scaler never goes."""
    plan = sample("scaledobject")[0]["spec"]
    assert (plan["cooldownPeriod"], plan["minReplicaCount"]) == (300, 1)
    for scaler in of_kind(chart_objects(OURS), "ScaledObject"):
        down = scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down == {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        }


def test_25_the_plans_loop_ends_while_requests_run(tmp_path):
    """Run as it is, with a `curl` that gives an engine's text with three running requests."""
    curl = tmp_path / "curl"
    curl.write_text(
        "#!/bin/sh\n"
        "echo '# HELP vllm:num_requests_running Number of requests'\n"
        "echo '# TYPE vllm:num_requests_running gauge'\n"
        "echo 'vllm:num_requests_running{model_name=\"m\"} 3.0'\n"
    )
    curl.chmod(0o755)
    pod = sample("deployment", "deployment-drain")[0]["spec"]["template"]["spec"]
    command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert "All requests completed" in done.stdout
    hooks = [template["spec"]["containers"][0].get("lifecycle") for _, template in pods(chart_objects({}))]
    assert all(list(hook["preStop"]) == ["sleep"] for hook in hooks)


def test_26_the_gateway_moves_what_is_left_before_the_engine_ends():
    everything = chart_objects(OURS)
    configs = [configuration(template, everything) for _, template in pods(everything)]
    (gateway,) = [config for config in configs if config and "gateway" in config]
    engines = [config for config in configs if config and "engine" in config]
    assert gateway["gateway"]["replica_drain_timeout_s"] < min(one["drain_timeout_s"] for one in engines)


def test_40_the_slow_kernel_is_refused():
    quantization = yaml.safe_load((SAMPLES / "values-prod.yaml").read_text())["model"]["quantization"]
    with pytest.raises(ConfigError, match="slow kernel"):
        chart_objects({"engine": {"quantization": quantization}})
    assert "awq_marlin" in str(chart_objects(OURS))


def test_41_weights_and_context_are_computed_not_the_share_of_the_card():
    """With 0.95 of the card reserved whatever the weights are, only the sum of weights and KV cache says if it fits."""
    plan = yaml.safe_load((SAMPLES / "values-prod.yaml").read_text())["model"]
    assert plan["gpuMemoryUtilization"] * 22 > 12, "the plan wants less than 12 GiB in use, and asks for all of an A10G"
    full = {"models": {"mistral-7b-instruct": {"gpu": {"product": "T4"}}}}
    with pytest.raises(ConfigError, match=r"one sequence of 4096 tokens needs 0\.50 GiB"):
        chart_objects(full)
    chart_objects({"models": {"mistral-7b-instruct": {"gpu": {"product": "A10G"}}}})


def test_43_clients_keep_the_models_name_when_the_weights_change():
    plan = [
        yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())["model"]["name"] for name in ("values", "values-prod")
    ]
    assert plan[0] != plan[1]
    served = set()
    for values in ({}, OURS):
        everything = chart_objects(values)
        configs = [configuration(template, everything) for _, template in pods(everything)]
        served |= {config["model"]["name"] for config in configs if config and "model" in config}
    assert served == {"mistralai/Mistral-7B-Instruct-v0.2"}


@pytest.mark.parametrize(
    ("label", "spot", "other"),
    [("eks.amazonaws.com/capacityType", "SPOT", "ON_DEMAND"), ("karpenter.sh/capacity-type", "spot", "on-demand")],
    ids=["eks", "karpenter"],
)
def test_45_the_label_of_spot_nodes_is_a_value(label, spot, other):
    node_label = {"key": label, "spot": spot, "onDemand": other}
    everything = chart_objects(merged(OURS, {"engine": {"spot": {"nodeLabel": node_label}}}))
    text = yaml.safe_dump(of_kind(everything, "Deployment"))
    assert f"key: {label}\n" in text
    assert f"- {spot}\n" in text
    assert f"- {other}\n" in text
    assert "node.kubernetes.io/lifecycle" in yaml.safe_dump(sample("deployment", "deployment-spot"))


def test_49_defaults_install_anywhere():
    """No object of a definition that may be absent: the plan's ServiceMonitor is on by default."""
    plan = yaml.safe_load((SAMPLES / "values.yaml").read_text())
    assert plan["metrics"]["serviceMonitor"]["enabled"] is True
    groups = {one["apiVersion"].partition("/")[0] for one in chart_objects({})}
    assert groups <= {"v1", "apps", "policy", "networking.k8s.io", "rbac.authorization.k8s.io"}


def test_49_streams_outlive_the_load_balancers_minute():
    (ingress,) = of_kind(chart_objects(COMBINATIONS["ingress"]), "Ingress")
    annotations = ingress["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/load-balancer-attributes"] == "idle_timeout.timeout_seconds=600"


def test_49_there_are_a_schema_a_test_and_budgets():
    assert (CHART / "values.schema.json").is_file()
    everything = chart_objects({})
    assert len(of_kind(everything, "PodDisruptionBudget")) == 2
    assert of_kind(everything, "Pod")[0]["metadata"]["annotations"]["helm.sh/hook"] == "test"
