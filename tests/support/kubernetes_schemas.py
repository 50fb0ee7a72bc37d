"""Whether an object is what the API would take.

Schemas of Kubernetes come from kubernetes-validate, those of KEDA and the Prometheus operator from published models of
their definitions; that of the Gateway API's HTTPRoute is written here after its reference, as far as we use it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as monitoring
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

VERSIONS = ("1.30", "1.34", "1.37")
"""Oldest that the chart takes, one that many run, newest."""

HTTP_ROUTE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "gateway.networking.k8s.io/v1"},
        "kind": {"const": "HTTPRoute"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "parentRefs": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name"],
                        "properties": {
                            key: {"type": "string"} for key in ("group", "kind", "namespace", "name", "sectionName")
                        },
                    },
                },
                "hostnames": {"type": "array", "items": {"type": "string"}},
                "rules": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "matches": {"type": "array"},
                            "filters": {"type": "array"},
                            "timeouts": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {
                                    key: {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
                                    for key in ("request", "backendRequest")
                                },
                            },
                            "backendRefs": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["name", "port"],
                                    "properties": {
                                        "name": {"type": "string"},
                                        "port": {"type": "integer"},
                                        "weight": {"type": "integer"},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}

_MODELS = {
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): keda.TriggerAuthentication,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): monitoring.ServiceMonitor,
    ("monitoring.coreos.com/v1", "PodMonitor"): monitoring.PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): monitoring.PrometheusRule,
}


def problem(one: Mapping[str, Any], version: str = VERSIONS[-1]) -> str:
    """What is wrong with the object by its schema; "" where nothing is."""
    identity = (one["apiVersion"], one["kind"])
    try:
        if identity == ("gateway.networking.k8s.io/v1", "HTTPRoute"):
            jsonschema.validate(one, HTTP_ROUTE)
        elif identity in _MODELS:
            jsonschema.validate(one, _custom(identity))
        else:
            _built_in(*identity, version).validate(one)
    except (jsonschema.ValidationError, FileNotFoundError) as exc:
        where = ".".join(map(str, getattr(exc, "absolute_path", ())))
        return f"{one['kind']} {one['metadata'].get('name')}: {where}: {getattr(exc, 'message', exc)}"
    return ""


@functools.cache
def _built_in(api: str, kind: str, version: str) -> Any:
    """A validator for a kind; made once, since kubernetes-validate reads megabytes for each object.

    Raises:
        FileNotFoundError: the version of Kubernetes has no such kind.
    """
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = schema_contents(f"{folder}/{kind.lower()}-{short}.json", version)
    return jsonschema.Draft202012Validator(schema, registry=_definitions(folder, version))


@functools.cache
def _definitions(folder: str, version: str) -> Registry[Any]:
    return Resource.from_contents(schema_contents(f"{folder}/_definitions.json", version)) @ Registry()


@functools.cache
def _custom(identity: tuple[str, str]) -> dict[str, Any]:
    schema = _MODELS[identity].model_json_schema(by_alias=True)
    _strict(schema)
    if identity == (
        "keda.sh/v1alpha1",
        "ScaledObject",
    ):  # from KEDA 2.17 on, newer than the models that this Python gets
        schema["$defs"]["Fallback"]["properties"].setdefault(
            "behavior", {"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]}
        )
    return schema


def _strict(schema: Any) -> None:
    """Refuse fields that nobody knows: the API drops them in silence."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        if str(schema.get("pattern", "")).startswith("^(?i)"):  # Go takes flags there, Python only at the front
            schema["pattern"] = "(?i)^" + schema["pattern"].removeprefix("^(?i)")
        for inside in schema.values():
            _strict(inside)
    elif isinstance(schema, list):
        for inside in schema:
            _strict(inside)
