"""The chart rendered for tests, and the values that tests try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from inferdock.app.render import objects, read_values, render

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "llm-inference"

REGISTRY: dict[str, Any] = {
    "models": {"mistral-7b-instruct": None, "m": {"version": "1.2.3", "revision": "abcdef0123456789"}},
    "registry": {"url": "s3://models/prod", "region": "eu-west-1"},
}
"""One model from the registry."""
OPEN: dict[str, Any] = {"gateway": {"keys": {"existingSecret": "keys"}}}

COMBINATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "prod": read_values([CHART / "values-prod.yaml"], []),
    "dev": read_values([CHART / "values-dev.yaml"], []),
    "registry": REGISTRY,
    "registry-trusted-keys": {
        **REGISTRY,
        "registry": {
            "url": "s3://b",
            "trustedKeysConfigMap": "trusted",
            "trustedKeys": ["a.pem"],
            "existingSecret": "aws",
        },
    },
    "two-models": {
        "models": {
            "small": {"version": "1.0.0", "source": "org/small", "replicas": 3, "autoscaling": {"enabled": False}},
            "Large_Model.v2": {"version": "2.0.0-rc.1", "source": "o/large", "gpu": {"count": 4}, "name": "o/Large"},
        }
    },
    "long-names": {
        "fullnameOverride": "a-very-long-release-name-that-is-cut-somewhere",
        "models": {"a" * 63: {"version": "100.200.300-" + "x" * 30, "source": "o/m", "name": "n/" + "y" * 190}},
        "engine": {"autoscaling": {"enabled": True}},
    },
    "autoscaled": {"engine": {"autoscaling": {"enabled": True}}},
    "sleeps": {"engine": {"autoscaling": {"enabled": True, "minReplicas": 0}}},
    "floor-and-sleep": {
        "engine": {"autoscaling": {"enabled": True, "minReplicas": 1}, "spot": {"enabled": True, "onDemandFloor": 2}}
    },
    "prometheus-login": {
        "engine": {"autoscaling": {"enabled": True}},
        "prometheus": {"authentication": {"mode": "basic", "existingSecret": "prometheus-login"}},
    },
    "spare-card": {
        "engine": {"gpu": {"spare": True}, "modelCache": {"kind": "hostPath"}, "runtimeClassName": "nvidia"},
    },
    "claim": {"engine": {"modelCache": {"kind": "existingClaim", "existingClaim": "weights"}}},
    "cache": {"cache": {"enabled": True}, "redis": {"enabled": True}},
    "cache-own-secret": {"cache": {"enabled": True}, "redis": {"enabled": True, "existingSecret": "redis-login"}},
    "cache-external": {
        "cache": {"enabled": True},
        "redis": {"external": {"url": "rediss://redis.example.com:6380/0", "existingSecret": "redis-login"}},
    },
    "ingress": {**OPEN, "ingress": {"enabled": True, "className": "alb", "tls": [{"hosts": ["llm.example.com"]}]}},
    "route": {**OPEN, "route": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["llm.example.com"]}},
    "service-monitor": {"metrics": {"serviceMonitor": {"enabled": True, "additionalLabels": {"release": "kps"}}}},
    "pod-monitor": {"metrics": {"podMonitor": {"enabled": True}}},
    "annotations": {"metrics": {"annotations": True}},
    "rules-and-dashboards": {
        "metrics": {
            "prometheusRule": {
                "enabled": True,
                "groups": [{"name": "g", "rules": [{"alert": "A", "expr": "llm_gateway_workers == 0"}]}],
            },
            "dashboards": {"enabled": True},
        }
    },
    "runner": {"releases": {"runner": {"enabled": True, "readNodes": True}}},
    "closed": {
        "cache": {"enabled": True},
        "redis": {"enabled": True},
        "networkPolicy": {"restrictEgress": True, "apiServerCIDRs": ["10.0.0.0/28"]},
    },
    "token-as-text": {"hf_token": "not-a-real-token"},
    "token-in-secret": {"hf_token": {"secretName": "hf", "secretKey": "token"}},
    "no-accounts": {"serviceAccount": {"create": False}, "gateway": {"serviceAccount": {"create": False}}},
    "gateway-autoscaled": {"gateway": {"autoscaling": {"enabled": True}}},
    "bare": {
        "networkPolicy": {"enabled": False},
        "engine": {"pdb": {"enabled": False}},
        "gateway": {"pdb": {"enabled": False}},
        "tests": {"enabled": False},
    },
    "extras": {
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}, "data": {}},
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: as-text}\ndata: {}\n",
        ],
        "commonLabels": {"team": "ml"},
        "commonAnnotations": {"example.com/owner": "ml"},
        "imagePullSecrets": [{"name": "pull"}],
        "engine": {
            "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "INFO"}],
            "extraArgs": ["--enable-prefix-caching"],
            "config": {"engine": {"restart_backoff_s": 2}},
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
            "affinity": {"podAntiAffinity": {}},
            "nodeSelector": {"gpu": "yes"},
            "podAnnotations": {"a": "b"},
        },
    },
}  # fmt: skip
"""Values that must give a working installation, by name."""

GIVEN = ("keys", "aws", "trusted", "weights", "redis-login", "prometheus-login", "hf", "pull", "inferdock-keys")
"""Secrets, ConfigMaps and claims that these values say are there."""


def chart_objects(values: dict[str, Any], *, name: str = "llm-inference", namespace: str = "models") -> list[Any]:
    """All objects for some values."""
    return objects(render(CHART, values, name=name, namespace=namespace))


def template_objects(
    config_map: Any, *, version: str = "9.8.7", digits: str = "0123456789ab", slug: str = "9-8-7-0123456789ab"
) -> list[Any]:
    """The objects of a further revision, made from a template ConfigMap as a release makes them."""
    name = config_map["metadata"]["annotations"]["inferdock.io/registry-name"]
    text = config_map["data"]["objects.yaml"]
    for placeholder, value in (("REVISION", f"{version}-{digits}"), ("REFERENCE", f"{name}@{version}"), ("NAME", slug)):
        text = text.replace(f"@@{placeholder}@@", value)
    loaded: list[Any] = yaml.safe_load(text)
    return loaded


def templates(everything: list[Any]) -> list[Any]:
    """The template ConfigMaps."""
    return [one for one in everything if "inferdock.io/template" in (one["metadata"].get("labels") or {})]
