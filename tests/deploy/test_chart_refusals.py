"""Values that cannot work, and the sentence that each gets."""

from __future__ import annotations

import pytest

from inferdock.app.render import merged
from inferdock.domain.errors import ConfigError
from tests.support.chart import REGISTRY, chart_objects

M = "mistral-7b-instruct"
SCALED = {"engine": {"autoscaling": {"enabled": True}}}


def model(**values):
    return {"models": {M: values}}


CASES = {
    "unknown-key": ({"gateway": {"replicaCont": 3}}, "'replicaCont' not allowed"),
    "unknown-key-of-a-model": (model(versoin="1.0.0"), "'versoin' not allowed"),
    "wrong-type": ({"service": {"port": "http"}}, "`service.port`: got string, want integer"),
    "digest-that-is-none": ({"engine": {"image": {"digest": "sha256:abc"}}}, "`engine.image.digest`"),
    "key-that-is-no-label": ({"models": {"a/b": {"source": "o/m"}}}, "a/b"),
    "no-model": ({"models": {M: None}}, "no model to serve"),
    "name-of-two-lines": (model(name="a\x85b"), "does not match pattern"),
    "text-that-yaml-cannot-hold": (
        {"engine": {"extraArgs": ["\x15\x9b\U000592d2"]}},
        "characters that YAML cannot hold",
    ),
    "grace-below-the-sum": (
        {"engine": {"terminationGracePeriodSeconds": 60}},
        r"is 60, but preStop \(5\) \+ shutdown timeout \(75\) \+ margin \(10\) are 90",
    ),
    "gateways-grace-below-the-sum": ({"gateway": {"terminationGracePeriodSeconds": 30}}, "open requests would be cut"),
    "grace-beyond-the-spot-notice": (
        {"engine": {"spot": {"enabled": True}, "drain": {"shutdownTimeoutSeconds": 100}}},
        "a spot node is gone 120 s after its notice",
    ),
    "replicas-beside-an-autoscaler": (merged(SCALED, model(replicas=2)), "exclude each other"),
    "least-above-most": (
        {"engine": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}},
        r"minReplicas \(5\) is above maxReplicas \(2\)",
    ),
    "surge-without-a-spare-card": (
        {"engine": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}},
        "needs a spare card",
    ),
    "budget-that-lets-no-pod-go": ({"engine": {"pdb": {"minAvailable": 1}}}, "minAvailable is 1 of 1 replicas"),
    "budget-of-all": ({"engine": {"pdb": {"minAvailable": "100%"}}}, "drains of nodes would hang"),
    "budget-of-none": ({"engine": {"pdb": {"maxUnavailable": 0}}}, "lets no pod go"),
    "gateways-budget": ({"gateway": {"pdb": {"minAvailable": 2}}}, "minAvailable is 2 of 2"),
    "floor-without-an-autoscaler": (
        {"engine": {"spot": {"enabled": True, "onDemandFloor": 1}}},
        "onDemandFloor is a Deployment beside the autoscaled one",
    ),
    "floor-of-everything": (
        {"engine": {"spot": {"enabled": True, "onDemandFloor": 10}, "autoscaling": {"enabled": True}}},
        "leaves nothing",
    ),
    "prometheus-without-its-namespace": (
        merged(SCALED, {"prometheus": {"serverAddress": "http://prometheus:9090"}}),
        "KEDA would look for in its own namespace",
    ),
    "scraped-twice": (
        {"metrics": {"annotations": True, "serviceMonitor": {"enabled": True}}},
        "every token counts twice",
    ),
    "open-to-the-world": ({"ingress": {"enabled": True}}, "serve anybody outside of the cluster"),
    "load-balancer-without-keys": ({"service": {"type": "LoadBalancer"}}, "serve anybody outside of the cluster"),
    "nobody-could-use-it": ({"gateway": {"keys": {"allowUnauthenticated": False}}}, "Nobody could use the gateway"),
    "route-to-nowhere": (
        {"route": {"enabled": True}, "gateway": {"keys": {"existingSecret": "k"}}},
        r"needs route\.parentRefs",
    ),
    "redis-for-nobody": ({"redis": {"enabled": True}}, "response cache that would use it is off"),
    "two-of-redis": (
        {"cache": {"enabled": True}, "redis": {"enabled": True, "external": {"url": "redis://x:6379"}}},
        "exclude each other",
    ),
    "image-latest": ({"engine": {"image": {"tag": "latest"}}}, "`latest` says nothing"),
    "slow-kernel": ({"engine": {"quantization": "awq"}}, "slow kernel"),
    "does-not-fit-on-the-card": (model(gpu={"product": "T4"}), "does not fit: vLLM may take 12.6 GiB"),
    "context-too-long": (model(gpu={"product": "A10G"}, maxModelLen=60000), "one sequence of 60000 tokens"),
    "unknown-card": (model(gpu={"product": "B9000"}), "knows no card B9000"),
    "bfloat16-on-an-old-card": (
        {"engine": {"dtype": "bfloat16", "gpu": {"product": "T4"}}},
        r"bfloat16 needs compute capability 8\.0",
    ),
    "unknown-node": ({"engine": {"instanceTypes": ["m5.large"]}}, "knows no node type m5.large"),
    "memory-beyond-the-node": (
        {"engine": {"instanceTypes": ["g5.xlarge"], "resources": {"requests": {"memory": "24Gi"}}}},
        "asks for 24Gi of memory, and a node g5.xlarge has 13.8 GiB",
    ),
    "processors-beyond-the-node": (
        {"engine": {"instanceTypes": ["g5.xlarge"], "resources": {"requests": {"cpu": 4}}}},
        "asks for 4 processors",
    ),
    "cards-beyond-the-node": ({"engine": {"instanceTypes": ["g5.xlarge"], "gpu": {"count": 2}}}, "asks for 2 cards"),
    "registry-without-an-address": (model(source=""), r"registry\.url is empty"),
    "registry-without-a-revision": (
        merged(REGISTRY, {"models": {"m": {"revision": ""}}}),
        "give its `version` and `revision`",
    ),
    "revision-that-is-no-digest": (
        merged(REGISTRY, {"models": {"m": {"revision": "champion"}}}),
        "must be the version's digest",
    ),
    "two-models-of-one-name": (
        {"models": {"other": {"source": "o/m", "name": "mistralai/Mistral-7B-Instruct-v0.2"}}},
        "are both called",
    ),
    "two-keys-of-one-slug": ({"models": {"a.b": {"source": "o/m"}, "a-b": {"source": "o/n"}}}, "the same names"),
    "unreadable-memory": (
        {"engine": {"instanceTypes": ["g5.xlarge"], "resources": {"requests": {"memory": "12 bananas"}}}},
        "no amount of memory",
    ),
    "claim-without-a-name": ({"engine": {"modelCache": {"kind": "existingClaim"}}}, "name the claim"),
    "token-without-its-key": ({"hf_token": {"secretName": "hf"}}, "`hf_token`"),
    "login-without-a-secret": (
        merged(SCALED, {"prometheus": {"authentication": {"mode": "bearer"}}}),
        r"needs prometheus\.authentication\.existingSecret",
    ),
}


@pytest.mark.parametrize(("values", "sentence"), CASES.values(), ids=CASES.keys())
def test_values_that_cannot_work_are_refused_with_a_sentence(values, sentence):
    with pytest.raises(ConfigError, match=sentence) as refused:
        chart_objects(values)
    assert ".tpl" not in refused.value.message
    assert "<nil>" not in refused.value.message
    assert "%!" not in refused.value.message
