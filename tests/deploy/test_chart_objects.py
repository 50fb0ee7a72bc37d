"""Everything that the chart renders: valid by schema, and whole by laws that a schema cannot see."""

from __future__ import annotations

import pytest
import yaml

from inferdock.app.render import helm, objects
from inferdock.config.load import load
from tests.support.chart import CHART, COMBINATIONS, GIVEN, REGISTRY, ROOT, chart_objects, template_objects, templates
from tests.support.kubernetes_checks import labels, of_kind, pods, what_pods_name_exists
from tests.support.kubernetes_pod_checks import configuration
from tests.support.kubernetes_scaling_checks import CHECKS, target_labels_exist
from tests.support.kubernetes_schemas import VERSIONS, problem

BROKEN_ON_PURPOSE = {"spare-card": ("updates_need_no_spare_card",)}
"""Checks that a combination breaks on purpose."""


@pytest.fixture(scope="module", params=sorted(COMBINATIONS))
def combination(request):
    return request.param, chart_objects(COMBINATIONS[request.param])


def test_lint_finds_nothing():
    report = helm().lint(CHART, {}, strict=True, kube_version="v1.31.0")
    worse = [one for one in report["messages"] if one["severity"] > 1]
    assert not report["errors"]
    assert not worse


def test_every_object_is_what_the_api_takes(combination):
    _, everything = combination
    assert [wrong for one in everything for version in VERSIONS if (wrong := problem(one, version))] == []


def test_the_objects_fit_together(combination):
    name, everything = combination
    checks = [check for key, check in CHECKS.items() if key not in BROKEN_ON_PURPOSE.get(name, ())]
    assert [wrong for check in checks for wrong in check(everything)] == []
    assert list(what_pods_name_exists(everything, given=GIVEN)) == []


def test_names_are_labels_of_dns_and_no_two_objects_share_one(combination):
    _, everything = combination
    seen = [(one["kind"], one["metadata"]["name"]) for one in everything]
    assert len(seen) == len(set(seen))
    assert [name for _, name in seen if len(name) > 63] == []


def test_labels_fit_and_every_object_is_ours(combination):
    _, everything = combination
    for one in everything:
        if one["metadata"]["name"].endswith("extra") or one["metadata"]["name"] == "as-text":
            continue
        assert labels(one)["app.kubernetes.io/instance"] == "llm-inference"
        assert [value for value in labels(one).values() if len(value) > 63] == []


def test_a_further_revision_made_from_the_template_equals_the_first(combination):
    """What a release makes is what the chart makes, but for replicas, which belong to whoever scales."""
    _, everything = combination
    for config_map in templates(everything):
        model = labels(config_map)["inferdock.io/model"]
        first = [one for one in everything if labels(one).get("inferdock.io/model") == model and one is not config_map]
        revision = labels(first[0])["inferdock.io/revision"]
        version, _, digits = revision.rpartition("-")
        slug = first[0]["metadata"]["name"]
        again = template_objects(config_map, version=version, digits=digits, slug=slug[slug.index(_slug(version)) :])
        for one in first:
            if one["kind"] == "Deployment":
                one["spec"].pop("replicas", None)
        assert again == first


def _slug(version: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in version.lower())[:17].strip("-")


def test_objects_of_a_template_are_of_kinds_that_releases_may_make(combination):
    kinds = {"Deployment", "Service", "ScaledObject", "HorizontalPodAutoscaler", "PodDisruptionBudget", "ConfigMap"}
    for config_map in templates(combination[1]):
        made = template_objects(config_map)
        assert {one["kind"] for one in made} <= kinds | {"PodMonitor"}
        assert [wrong for one in made if (wrong := problem(one))] == []
        assert [one for one in made if {"inferdock.io/model", "inferdock.io/revision"} - labels(one).keys()] == []
        assert [one for one in of_kind(made, "Deployment") if "replicas" in one["spec"]] == []
        assert "@@" not in yaml.safe_dump(made)


def test_settings_load_as_the_processes_load_them(combination, tmp_path):
    """The ConfigMaps hold our own inferdock.yaml: an unknown key or a wrong type would keep the pods from starting."""
    _, everything = combination
    for number, (owner, template) in enumerate(pods(everything)):
        config = configuration(template, everything)
        if config is None:
            assert labels(owner)["app.kubernetes.io/component"] == "redis"
            continue
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(config))
        settings = load(file=file, env={}, flags={}).settings
        assert settings.drain_timeout_s > 0
        if labels(owner)["app.kubernetes.io/component"] == "gateway":
            assert settings.gateway.kubernetes.enabled
            assert settings.gateway.replica_drain_timeout_s < 75


def test_the_gateway_follows_its_own_services_only():
    everything = chart_objects(COMBINATIONS["two-models"], name="one")
    (config,) = [one for one in of_kind(everything, "ConfigMap") if one["metadata"]["name"].endswith("-gateway")]
    kubernetes = yaml.safe_load(config["data"]["inferdock.yaml"])["gateway"]["kubernetes"]
    assert kubernetes["label_selector"] == "app.kubernetes.io/instance=one,inferdock.io/model"
    assert "o/Large" in kubernetes["model_names"].values()
    assert "small" not in kubernetes["model_names"].values()  # a label can hold it as it is


def test_labels_of_models_are_those_that_the_code_makes():
    naming = pytest.importorskip("inferdock.kube.naming")
    for given in ("mistral", "mistralai/Mistral-7B-Instruct-v0.2", "x" * 80, "a b/c", "ends-"):
        everything = chart_objects({"models": {"mistral-7b-instruct": {"name": given, "facts": None}}})
        assert labels(templates(everything)[0])["inferdock.io/model"] == naming.label_value(given)


def test_queries_select_by_labels_that_monitors_attach():
    for monitor in ("serviceMonitor", "podMonitor"):
        everything = chart_objects(
            {"engine": {"autoscaling": {"enabled": True}}, "metrics": {monitor: {"enabled": True}}}
        )
        assert list(target_labels_exist(everything)) == []


def test_the_gateways_rights_are_two_reads():
    everything = chart_objects({})
    (role,) = of_kind(everything, "Role")
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["inferdock-traffic"],
            "verbs": ["get", "list", "watch"],
        },
    ]


def test_a_version_from_the_registry_is_pulled_and_held_to_its_revision():
    (deployment,) = [one for one in of_kind(chart_objects(REGISTRY), "Deployment") if "-m-" in one["metadata"]["name"]]
    spec = deployment["spec"]["template"]["spec"]
    assert spec["initContainers"][0]["command"] == ["inferdock", "model", "pull", "m@1.2.3"]
    main = spec["containers"][0]
    assert main["command"][:4] == ["inferdock", "engine", "--model", "m@1.2.3"]
    assert main["args"] == ["--offline", "--revision", "1.2.3-abcdef012345"]


def test_a_token_for_hugging_face_is_taken_from_the_secret_that_is_named():
    for name, secret in (("token-in-secret", ("hf", "token")), ("token-as-text", ("llm-inference-hf", "token"))):
        text = yaml.safe_dump(chart_objects(COMBINATIONS[name]))
        assert f"key: {secret[1]}\n            name: {secret[0]}" in text or secret[0] in text
    everything = chart_objects(COMBINATIONS["token-in-secret"])
    assert of_kind(everything, "Secret") == []


def test_a_floor_is_a_deployment_of_its_own_on_other_nodes():
    everything = chart_objects(COMBINATIONS["floor-and-sleep"])
    main, floor = (one for one in of_kind(everything, "Deployment") if "gateway" not in one["metadata"]["name"])
    assert "replicas" not in main["spec"]
    assert floor["spec"]["replicas"] == 2
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    (term,) = floor["spec"]["template"]["spec"]["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["ON_DEMAND"]
    (scaler,) = of_kind(everything, "ScaledObject")
    assert (scaler["spec"]["minReplicaCount"], scaler["spec"]["maxReplicaCount"]) == (0, 8)


def test_a_chart_upgrade_restarts_no_engine():
    """Pod templates hold nothing that changes with the chart's version but the image, which values may pin."""
    for _, template in pods(chart_objects({})):
        assert "helm.sh/chart" not in template["metadata"]["labels"]
        assert "app.kubernetes.io/version" not in template["metadata"]["labels"]


def test_what_we_build_on_is_that_of_the_list_of_versions():
    versions = yaml.safe_load((ROOT / "deploy" / "versions.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    redis = values["redis"]["image"]
    assert redis["repository"] == versions["redis"]["image"]
    assert (redis["tag"], redis["digest"]) == (versions["redis"]["tag"], versions["redis"]["digest"])
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={versions['kubernetes']['oldest']}.0-0"


def test_the_helm_test_is_python_that_runs(tmp_path):
    compile((CHART / "files" / "test.py").read_text(), "test.py", "exec")
    (pod,) = of_kind(chart_objects({}), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    compile(pod["spec"]["containers"][0]["args"][0], "args", "exec")


def test_rendering_is_the_same_each_time():
    assert chart_objects(COMBINATIONS["prod"]) == chart_objects(COMBINATIONS["prod"])


def test_text_that_breaks_yaml_is_a_sentence():
    with pytest.raises(Exception, match="not YAML"):
        objects({"templates/x.yaml": "a: [\n"})
