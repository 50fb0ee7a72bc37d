"""From a template to the objects of a revision; the chart's own template among them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from inferdock.domain.errors import ConfigError
from inferdock.kube.naming import label_value
from inferdock.release.drivers.kubernetes.template import Part, revision_parts
from inferdock.release.records.cluster_names import MODEL, REFERENCE, REVISION, lease_name, object_name, revision_name
from inferdock.release.steps import Target
from tests.docs.pages import ROOT

K8S = ROOT / "k8s"
TARGET = Target(reference="m@1.0.0", revision="1.0.0-abcdef012345", replicas=1)
LABELS = {MODEL: "m", REVISION: "@@REVISION@@"}


def deployment(**changes: Any) -> dict[str, Any]:
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "m-@@NAME@@", "labels": dict(LABELS), "annotations": {REFERENCE: "@@REFERENCE@@"}},
        "spec": {
            "selector": {"matchLabels": dict(LABELS)},
            "template": {"metadata": {"labels": dict(LABELS)}, "spec": {"containers": [{"args": ["@@REFERENCE@@"]}]}},
        },
    }
    return {**made, **changes}


def made(*objects: Any, target: Target = TARGET, namespace: str = "ns") -> tuple[Part, ...]:
    text = yaml.safe_dump(json.loads(json.dumps(list(objects))))
    return revision_parts(text, target, model_label="m", namespace=namespace)


def test_placeholders_are_filled_in_texts() -> None:
    (part,) = made(deployment())
    assert part.name == "m-1-0-0-abcdef012345"
    meta = part.body["metadata"]
    assert meta["labels"] == {MODEL: "m", REVISION: TARGET.revision}
    assert meta["annotations"] == {REFERENCE: "m@1.0.0", REVISION: TARGET.revision}
    assert part.body["spec"]["template"]["spec"]["containers"] == [{"args": ["m@1.0.0"]}]
    assert "@@" not in json.dumps(part.body)


def test_a_revision_that_no_label_can_hold_is_kept_verbatim_beside_its_label() -> None:
    odd = Target(reference="m@1.0.0+gpu", revision="1.0.0+gpu-abcdef012345", replicas=1)
    (part,) = made(deployment(), target=odd)
    assert part.body["metadata"]["labels"][REVISION] == label_value(odd.revision) != odd.revision
    assert part.body["metadata"]["annotations"][REVISION] == odd.revision


def test_what_others_need_is_made_before_them() -> None:
    def other(api: str, kind: str) -> dict[str, Any]:
        return {"apiVersion": api, "kind": kind, "metadata": {"name": "m-@@NAME@@", "labels": dict(LABELS)}}

    parts = made(
        other("keda.sh/v1alpha1", "ScaledObject"), deployment(), other("v1", "Service"), other("v1", "ConfigMap")
    )
    assert [part.resource.kind for part in parts] == ["ConfigMap", "Service", "Deployment", "ScaledObject"]


def _without(key: str, where: str) -> dict[str, Any]:
    one = deployment()
    holder = one["metadata"] if where == "object" else one["spec"]["template"]["metadata"]
    del holder["labels"][key]
    return one


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ([], "no list"),
        (["text"], "no object"),
        ([{"kind": "Deployment"}], "not for a revision"),
        ([deployment(kind="DaemonSet")], "not for a revision"),
        ([deployment(metadata=None)], "does not contain @@NAME@@"),
        ([deployment(metadata={"name": 3})], "does not contain @@NAME@@"),
        ([deployment(metadata={**deployment()["metadata"], "name": "m"})], "would share it"),
        ([deployment(metadata={**deployment()["metadata"], "namespace": "other"})], "for namespace 'other'"),
        ([_without(MODEL, "object")], "is labelled"),
        ([_without(REVISION, "object")], "is labelled"),
        ([_without(MODEL, "pods")], "pod template"),
        ([_without(REVISION, "pods")], "pod template"),
        ([deployment(spec=None)], "no pod template"),
        ([deployment(spec={**deployment()["spec"], "replicas": 2})], "replicas"),
        ([deployment(), deployment()], "stands there twice"),
        (
            [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "@@NAME@@", "labels": LABELS}}],
            "no Deployment",
        ),
        ([deployment()] * 51, "no list of 1 to 50"),
    ],
)
def test_what_would_be_missed_later_is_refused_now(objects: list[Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        made(*objects)
    assert caught.value.cure


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- " * 5000,
        "[" * 5000,
        "- !!python/object/apply:os.system [ls]",
        "\x00",
        "- {a: 2020-01-01}",
        "- &a [*a]",
        "a: b",
    ],
    ids=["empty", "nested", "deep", "python", "zero", "a date", "itself", "a map"],
)
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        revision_parts(text, TARGET, model_label="m", namespace="ns")


def test_the_first_revision_of_the_chart_is_what_a_release_would_make_of_its_template() -> None:
    documents = [one for path in sorted(K8S.rglob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    documents = [one for one in documents if one and "metadata" in one]
    template = next(one for one in documents if (one["metadata"].get("labels") or {}).get("inferdock.io/template"))
    label = template["metadata"]["labels"][MODEL]
    rendered = [one for one in documents if REVISION in (one["metadata"].get("labels") or {})]
    first = next(one for one in rendered if one["kind"] == "Deployment")
    target = Target(
        reference=first["metadata"]["annotations"][REFERENCE],
        revision=first["metadata"]["labels"][REVISION],
        replicas=1,
    )
    parts = revision_parts(
        template["data"]["objects.yaml"],
        target,
        model_label=label,
        namespace=template["metadata"].get("namespace", "default"),
    )
    charts = {(one["kind"], one["metadata"]["name"]): one for one in rendered if one["kind"] != "Pod"}
    for part in parts:
        chart = charts[part.resource.kind, part.name]
        chart.get("spec", {}).pop("replicas", None)  # at first the chart says how many; then releases do
        del part.body["metadata"]["annotations"][REVISION]
        assert part.body == chart


@pytest.mark.parametrize(
    "revision", ["1.0.0-abcdef012345", "X_1.0-rc.2+build-abcdef012345", "ü-abcdef012345", "folder", "-", ""]
)
def test_names_of_revisions_fit_into_names_of_objects(revision: str) -> None:
    name = revision_name(revision)
    assert len(name) <= 30
    assert name.replace("-", "").isalnum()
    assert name == name.lower()
    assert not name.startswith("-")


def test_models_do_not_share_names() -> None:
    names = ["demo", "Demo", "org/demo", "org-demo", "org_demo", "ü", "x" * 300, "x" * 299, "-", ""]
    for name_of in (object_name, lease_name):
        made_names = [name_of(name) for name in names]
        assert len(set(made_names)) == len(names)
        assert all(len(name) <= 70 and name.strip("-") == name and name.isascii() for name in made_names)
