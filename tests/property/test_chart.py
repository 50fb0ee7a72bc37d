"""Whatever the values: the chart refuses them with a sentence, or gives objects that are valid and belong together."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from inferdock.domain.errors import ConfigError
from inferdock.kube.naming import label_value
from tests.support.chart import chart_objects, template_objects, templates
from tests.support.kubernetes_checks import labels, of_kind
from tests.support.kubernetes_pod_checks import configuration
from tests.support.kubernetes_scaling_checks import CHECKS
from tests.support.kubernetes_schemas import problem

NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=120)
KEYS = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(-[0-9A-Za-z.-]{0,20}[0-9A-Za-z])?", fullmatch=True)
SECONDS = st.integers(1, 200)

MODEL = st.fixed_dictionaries(
    {"version": VERSIONS, "source": st.just("org/model")},
    optional={
        "name": NAMES,
        "replicas": st.none() | st.integers(0, 9),
        "gpu": st.fixed_dictionaries({"count": st.integers(0, 4), "spare": st.booleans()}),
        "maxModelLen": st.none() | st.integers(16, 10**6),
        "drain": st.fixed_dictionaries({"preStopSeconds": SECONDS, "shutdownTimeoutSeconds": SECONDS}),
        "spot": st.fixed_dictionaries({"enabled": st.booleans(), "onDemandFloor": st.integers(0, 3)}),
        "autoscaling": st.fixed_dictionaries(
            {"enabled": st.booleans(), "minReplicas": st.integers(0, 3), "maxReplicas": st.integers(1, 12)}
        ),
        "extraArgs": st.lists(NAMES, max_size=3),
        "env": st.lists(st.fixed_dictionaries({"name": st.just("A"), "value": NAMES}), max_size=1),
    },
)
SWITCHES = st.fixed_dictionaries({"enabled": st.booleans()})
VALUES = st.fixed_dictionaries(
    {"models": st.dictionaries(KEYS, MODEL, min_size=1, max_size=3)},
    optional={
        "cache": SWITCHES,
        "redis": SWITCHES,
        "ingress": SWITCHES,
        "networkPolicy": st.fixed_dictionaries({"enabled": st.booleans(), "restrictEgress": st.booleans()}),
        "metrics": st.fixed_dictionaries({"serviceMonitor": SWITCHES, "podMonitor": SWITCHES}),
        "gateway": st.fixed_dictionaries({"keys": st.fixed_dictionaries({"existingSecret": st.just("keys")})}),
        "hf_token": NAMES,
    },
)
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""To make an example small takes minutes, and a large one is as easily understood."""
ON_PURPOSE = {"updates_need_no_spare_card"}
"""A spare card may be there; the chart is told."""


@given(VALUES, st.from_regex(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?", fullmatch=True))
@example({"models": {"m": {"version": "1.0.0", "source": "org/model"}}}, "n")
@example({"models": {"true": {"version": "1.0.0", "source": "org/model"}}}, "true")
@example({"models": {"1": {"version": "1.0.0", "source": "org/model", "name": "a b: 'c' \"d\" {{ e }}"}}}, "x")
@settings(
    max_examples=40,
    deadline=None,
    phases=NO_SHRINKING,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_values_are_refused_or_give_a_whole_installation(values: dict[str, Any], name: str) -> None:
    values = {**values, "models": {"mistral-7b-instruct": None, **values["models"]}}
    everything = _objects(values, name)
    if everything is None:
        return
    assert [wrong for one in everything if (wrong := problem(one))] == []
    broken = {key: list(check(everything)) for key, check in CHECKS.items() if key not in ON_PURPOSE}
    assert {key: found for key, found in broken.items() if found} == {}
    made = [(one["kind"], one["metadata"]["name"]) for one in everything]
    assert len(made) == len(set(made))
    assert [text for _, text in made if len(text) > 63] == []
    _check_models(values, everything)


def _objects(values: dict[str, Any], name: str) -> list[Any] | None:
    """The objects; None where the values were refused with a sentence, and not with a fault of the chart."""
    try:
        return chart_objects(values, name=name)
    except ConfigError as exc:
        refused = exc
    assert refused.message
    assert not [words for words in (".tpl", "nil pointer", "%!", "not YAML") if words in refused.message]
    return None


def _check_models(values: dict[str, Any], everything: list[Any]) -> None:
    """Names arrive as they were given, in every place."""
    served = {given.get("name", key) for key, given in values["models"].items() if given is not None}
    found = templates(everything)
    assert {labels(one)["inferdock.io/model"] for one in found} == {label_value(text) for text in served}
    for config_map in found:
        for deployment in of_kind(template_objects(config_map), "Deployment"):
            template = deployment["spec"]["template"]
            config = configuration(template, template_objects(config_map))
            assert config["model"]["name"] in served
            assert "@@" not in yaml.safe_dump(deployment) or "@@" in str(values)
