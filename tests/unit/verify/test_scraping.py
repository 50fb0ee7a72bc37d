"""Checks of metrics, of installed objects and of what a run lacks, on targets that are right and on broken ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferdock.app.verify import installed, scraping
from inferdock.app.verify.command import Order, checkout_at, find
from inferdock.app.verify.target import Target
from inferdock.kube.errors import ApiRefused
from inferdock.kube.resources import DEPLOYMENTS, PODS, Resource
from inferdock.verify.check import Evidence, Need
from tests.docs.pages import ROOT

WHOLE = "".join(
    f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}\n{name} 1\n" for name in sorted(scraping.ALWAYS)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE, "each with its type"),
        (WHOLE.replace("llm_gateway_workers", "llm_gateway_wrokers"), "llm_gateway_workers missing"),
        (WHOLE + "untyped_thing 1\n", "untyped_thing"),
        (WHOLE + "one two three\n", ""),
    ],
    ids=["right", "missing", "untyped", "nonsense"],
)
async def test_the_metrics_page(monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    async def shown(_: Target) -> str:
        return text

    monkeypatch.setattr(scraping, "exposition", shown)
    async with aiohttp.ClientSession() as http:
        target = Target(url="http://x", model="m", http=http)
        if not said:
            with pytest.raises(ValueError, match=r"\S"):
                await scraping.form(target)
            return
        found = await scraping.form(target)
    assert (found.outcome == "pass") == (text is WHOLE)
    assert said in found.sentence


class Cluster:
    """A cluster's API as far as the checks ask it."""

    def __init__(self, pods: list[dict[str, Any]], deployments: list[dict[str, Any]], refused: str = "") -> None:
        self._found = {PODS: pods, DEPLOYMENTS: deployments}
        self._refused = refused
        self.models = b'{"data": [{"id": "m"}]}'

    async def list(self, resource: Resource, namespace: str, *, selector: str = "") -> tuple[list[Any], str]:
        assert (namespace, selector.split(",")[0]) == ("models", "app.kubernetes.io/instance=r")
        return self._found[resource], "1"

    async def read_pod(self, namespace: str, pod: str, port: int, path: str, *, most: int) -> bytes:
        assert (port, path) == (8080, "v1/models")
        return self.models

    async def apply(self, resource: Resource, namespace: str, name: str, body: Any, **how: Any) -> dict[str, Any]:
        assert how["dry_run"]
        if resource.kind == self._refused:
            raise ApiRefused("Not like this.", status=422)
        return {}


def _pod(phase: str = "Running", ready: str = "True") -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"app.kubernetes.io/component": "gateway"}},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
    }


def _deployment(available: int = 2) -> dict[str, Any]:
    status = {"availableReplicas": available, "updatedReplicas": 2}
    return {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2}, "status": status}


async def _seen(cluster: Cluster) -> dict[str, Evidence]:
    async with aiohttp.ClientSession() as http:
        target = Target(
            url="http://x",
            model="m",
            http=http,
            checkout=ROOT,
            cluster=cluster,  # type: ignore[arg-type]
            namespace="models",
            release="r",
        )
        return {one.id: await one.run(target) for one in (*installed.BASE, *installed.CHART)}


@pytest.mark.parametrize(
    ("cluster", "broken"),
    [
        (Cluster([_pod()], [_deployment()]), set()),
        (Cluster([_pod(), _pod("Pending")], [_deployment()]), {"1.2.pods"}),
        (Cluster([_pod(ready="False")], [_deployment()]), {"1.2.pods", "1.2.forward"}),
        (Cluster([], [_deployment()]), {"1.2.pods", "1.2.forward"}),
        (Cluster([_pod()], []), {"1.3.install"}),
        (Cluster([_pod()], [_deployment(1)]), {"1.3.install"}),
        (Cluster([_pod()], [_deployment()], "PodDisruptionBudget"), {"1.2.apply"}),
    ],
    ids=["right", "pending", "unready", "no-pod", "no-deployment", "too-few", "refused"],
)
async def test_the_cluster(cluster: Cluster, broken: set[str]) -> None:
    found = await _seen(cluster)
    assert {name for name, evidence in found.items() if evidence.outcome != "pass"} == broken


def test_kinds_are_asked_for_where_the_api_serves_them() -> None:
    kinds = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses", "ServiceAccount": "serviceaccounts"}
    found = {kind: installed.resource_of({"apiVersion": "v1", "kind": kind}).plural for kind in kinds}
    assert found == kinds


def test_a_checkout_is_found_from_any_folder_in_it(tmp_path: Path) -> None:
    assert checkout_at(ROOT / "docs" / "runbooks") == ROOT
    assert checkout_at(tmp_path) is None


async def test_what_a_run_lacks_is_what_was_not_given(tmp_path: Path) -> None:
    async with find(Order(url="http://127.0.0.1:9", state_root=tmp_path), {}) as found:
        assert set(found.lacking) == set(Need) - {Need.ENGINE, Need.GPU} | (set(found.lacking) & {Need.GPU})
    given = Order(
        url="http://127.0.0.1:9",
        state_root=tmp_path,
        admin_url="http://127.0.0.1:9",
        checkout=ROOT,
        candidate="m@2",
        disruptive=True,
        long=True,
        aws=True,
    )
    async with find(given, {}) as found:
        assert set(found.lacking) - {Need.GPU} == {Need.TARGET, Need.CLUSTER}
        assert "inferdock up" in found.lacking[Need.TARGET]
