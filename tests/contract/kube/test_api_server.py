"""What releases rely on an API server to do: the fake, through `kubectl proxy` too, and a real one where there is one.

    INFERDOCK_TEST_KUBE_CONTEXT=kind-kind INFERDOCK_TEST_KUBE_NAMESPACE=scratch pytest tests/contract/kube

The namespace must exist; what the tests make there carries a label of its own and is deleted again.
"""

import asyncio
import contextlib
import json
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inferdock.kube.access import ClusterAccess
from inferdock.kube.errors import ApiConflict, ApiMissing, ApiRefused
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.proxy import kubectl_proxy
from inferdock.kube.resources import CONFIG_MAPS, DEPLOYMENTS, LEASES, PODS, SERVICES, KubeObject, Resource
from tests.support.fake_cluster import running_fake_cluster

CONTEXT, NAMESPACE = (os.environ.get(f"INFERDOCK_TEST_KUBE_{name}") for name in ("CONTEXT", "NAMESPACE"))
OURS = "inferdock.io/test"


@dataclass
class Bench:
    """A namespace of a cluster.

    Attributes:
        api: our client.
        ns: the namespace.
        tag: value of the label :data:`OURS` on all that a test makes, and part of every name.
    """

    api: KubeObjects
    ns: str
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def named(self, name: str) -> str:
        """A name that nobody else uses."""
        return f"test-{self.tag}-{name}"

    def body(self, name: str, **more: object) -> KubeObject:
        """The begin of an object."""
        return {"metadata": {"name": self.named(name), "labels": {OURS: self.tag}}, **more}

    async def make(self, resource: Resource, name: str, **more: object) -> KubeObject:
        """Create an object."""
        return await self.api.create(resource, self.ns, self.body(name, **more), manager="maker")

    async def get(self, resource: Resource, name: str) -> KubeObject:
        """An object that is there."""
        found = await self.api.get(resource, self.ns, self.named(name))
        assert found is not None
        return found

    async def apply(
        self, resource: Resource, name: str, manager: str, *, force: bool = False, **more: object
    ) -> KubeObject:
        """Server-side apply of some fields."""
        body = self.body(name, **more) if manager == "us" else more
        return await self.api.apply(resource, self.ns, self.named(name), body, manager=manager, force=force)

    async def edit(self, resource: Resource, name: str, manager: str, **more: object) -> KubeObject:
        """Somebody's merge patch."""
        return await self.api.patch(resource, self.ns, self.named(name), more, manager=manager)

    def deployment(self, name: str, image: str = "registry.invalid/engine:1", **spec: object) -> dict[str, object]:
        """`spec` of a Deployment as a template has it: without replicas."""
        labels = {OURS: self.tag, "app": self.named(name)}
        container = {"name": "engine", "image": image, "ports": [{"name": "http", "containerPort": 8000}]}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        return {"spec": {"selector": {"matchLabels": {"app": self.named(name)}}, "template": template, **spec}}

    async def clear(self) -> None:
        """Take away what a test has made."""
        for resource in (DEPLOYMENTS, CONFIG_MAPS, LEASES, SERVICES):
            for one in (await self.api.list(resource, self.ns, selector=f"{OURS}={self.tag}"))[0]:
                await self.api.delete(resource, self.ns, one["metadata"]["name"])


@contextlib.asynccontextmanager
async def _fake(folder: Path) -> AsyncIterator[ClusterAccess]:
    async with running_fake_cluster() as cluster:
        yield ClusterAccess(cluster.url, namespace="ns")


@contextlib.asynccontextmanager
async def _fake_by_kubectl(folder: Path) -> AsyncIterator[ClusterAccess]:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    async with running_fake_cluster() as cluster:
        clusters = [{"name": "c", "cluster": {"server": cluster.url}}]
        contexts = [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}]
        users = [{"name": "u", "user": {}}]
        config = {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "contexts": contexts, "users": users}
        (folder / "kubeconfig").write_text(json.dumps(config))
        async with kubectl_proxy("here", {**os.environ, "KUBECONFIG": str(folder / "kubeconfig")}) as access:
            yield access


@contextlib.asynccontextmanager
async def _cluster(folder: Path) -> AsyncIterator[ClusterAccess]:
    async with kubectl_proxy(CONTEXT, os.environ) as access:
        access.namespace = str(NAMESPACE)
        yield access


WAYS = {"fake": _fake, "kubectl": _fake_by_kubectl} | ({"cluster": _cluster} if CONTEXT and NAMESPACE else {})


@pytest.fixture(params=WAYS)
async def bench(request, tmp_path):
    async with WAYS[request.param](tmp_path) as access, KubeObjects(access) as api:
        made = Bench(api, access.namespace)
        try:
            yield made
        finally:
            await made.clear()


def images(deployment: KubeObject) -> dict[str, str]:
    """Image of each container."""
    return {one["name"]: one["image"] for one in deployment["spec"]["template"]["spec"]["containers"]}


# -- Reading ------------------------------------------------------------------------------------------------------


async def test_an_object_is_read_as_it_was_made(bench):
    made = await bench.make(CONFIG_MAPS, "a", data={"k": "v"})
    assert (made["kind"], made["data"], made["metadata"]["namespace"]) == ("ConfigMap", {"k": "v"}, bench.ns)
    assert await bench.get(CONFIG_MAPS, "a") == made
    assert await bench.api.get(CONFIG_MAPS, bench.ns, bench.named("b")) is None


async def test_a_list_keeps_to_its_selectors_and_says_what_its_items_are(bench):
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        await bench.make(CONFIG_MAPS, name)
        await bench.edit(CONFIG_MAPS, name, "painter", metadata={"labels": {"colour": colour}})
    red, _ = await bench.api.list(CONFIG_MAPS, bench.ns, selector=f"colour in (red, none),{OURS}={bench.tag}")
    named, _ = await bench.api.list(CONFIG_MAPS, bench.ns, fields=f"metadata.name={bench.named('b')}")
    assert [one["metadata"]["name"] for one in red] == [bench.named("a"), bench.named("c")]
    assert [(one["kind"], one["apiVersion"]) for one in named] == [("ConfigMap", "v1")]


async def told(bench: Bench, version: str, count: int, **selectors: str) -> list[tuple[str, str]]:
    """Type and name of so many events of ConfigMaps after a version."""
    found: list[tuple[str, str]] = []
    watch = bench.api.watch(CONFIG_MAPS, bench.ns, version=version, **selectors)
    async with asyncio.timeout(60), contextlib.aclosing(watch) as batches:
        async for batch in batches:
            real = [event for event in batch if event.type != "BOOKMARK"]
            found += [(event.type, event.object["metadata"]["name"][-1]) for event in real]
            if len(found) >= count:
                break
    return found


async def test_a_watch_tells_what_comes_into_and_leaves_a_selection(bench):
    _, version = await bench.api.list(CONFIG_MAPS, bench.ns)
    for name in ("a", "b"):
        await bench.make(CONFIG_MAPS, name)
    for name, colour in (("a", "red"), ("b", "blue"), ("b", "red"), ("a", "green")):
        await bench.edit(CONFIG_MAPS, name, "painter", metadata={"labels": {"colour": colour}})
    await bench.api.delete(CONFIG_MAPS, bench.ns, bench.named("b"))
    selector = f"colour=red,{OURS}={bench.tag}"
    expected = [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b")]
    assert await told(bench, version, 4, selector=selector) == expected


async def test_a_watch_may_follow_one_object_by_name_before_it_is_there(bench):
    _, version = await bench.api.list(CONFIG_MAPS, bench.ns, fields=f"metadata.name={bench.named('b')}")
    for name in ("a", "b"):
        await bench.make(CONFIG_MAPS, name)
    await bench.edit(CONFIG_MAPS, "b", "us", data={"k": "v"})
    await bench.api.delete(CONFIG_MAPS, bench.ns, bench.named("b"))
    seen = await told(bench, version, 3, fields=f"metadata.name={bench.named('b')}")
    assert seen == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]


# -- Server-side apply --------------------------------------------------------------------------------------------


async def test_an_apply_makes_the_object_and_the_same_again_changes_nothing(bench):
    first = await bench.apply(CONFIG_MAPS, "a", "us", data={"k": "v"})
    again = await bench.apply(CONFIG_MAPS, "a", "us", data={"k": "v"})
    assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


async def test_replicas_that_nobody_gave_are_a_default_that_nobody_owns(bench):
    made = await bench.apply(DEPLOYMENTS, "llm", "us", **bench.deployment("llm"))
    assert made["spec"]["replicas"] == 1
    (ours,) = [one for one in made["metadata"]["managedFields"] if one["manager"] == "us"]
    assert "f:replicas" not in ours["fieldsV1"]["f:spec"]


async def test_a_field_that_somebody_else_owns_is_a_conflict_that_names_both(bench):
    await bench.apply(DEPLOYMENTS, "llm", "us", **bench.deployment("llm"))
    await bench.edit(DEPLOYMENTS, "llm", "kubectl-edit", spec={"progressDeadlineSeconds": 60})
    with pytest.raises(ApiConflict, match="progressDeadlineSeconds") as caught:
        await bench.apply(DEPLOYMENTS, "llm", "us", **bench.deployment("llm", progressDeadlineSeconds=90))
    assert caught.value.owners == (("kubectl-edit", ".spec.progressDeadlineSeconds"),)
    assert not caught.value.exists
    assert (await bench.get(DEPLOYMENTS, "llm"))["spec"]["progressDeadlineSeconds"] == 60


async def test_items_of_keyed_lists_have_owners_of_their_own(bench):
    await bench.apply(DEPLOYMENTS, "llm", "us", **bench.deployment("llm"))
    sidecar = {"template": {"spec": {"containers": [{"name": "mesh", "image": "registry.invalid/mesh:1"}]}}}
    both = await bench.apply(DEPLOYMENTS, "llm", "mesh", spec=sidecar)
    assert set(images(both)) == {"engine", "mesh"}
    new = await bench.apply(DEPLOYMENTS, "llm", "us", **bench.deployment("llm", image="registry.invalid/engine:2"))
    assert images(new) == {"engine": "registry.invalid/engine:2", "mesh": "registry.invalid/mesh:1"}
    theirs = {"template": {"spec": {"containers": [{"name": "engine", "image": "registry.invalid/mine"}]}}}
    with pytest.raises(ApiConflict) as caught:
        await bench.apply(DEPLOYMENTS, "llm", "mesh", spec=theirs)
    assert caught.value.owners == (("us", '.spec.template.spec.containers[name="engine"].image'),)


async def test_force_takes_a_field_over_and_the_former_owner_then_conflicts(bench):
    await bench.apply(CONFIG_MAPS, "t", "us", data={"k": "1"})
    await bench.apply(CONFIG_MAPS, "t", "them", data={"k": "2"}, force=True)
    with pytest.raises(ApiConflict) as caught:
        await bench.apply(CONFIG_MAPS, "t", "us", data={"k": "1"})
    assert caught.value.owners == (("them", ".data.k"),)


async def test_each_manager_gives_up_only_its_own_keys(bench):
    await bench.apply(CONFIG_MAPS, "t", "us", data={"a": "1", "b": "1"})
    await bench.apply(CONFIG_MAPS, "t", "them", data={"b": "1", "c": "1"})
    after = await bench.apply(CONFIG_MAPS, "t", "us")
    assert after["data"] == {"b": "1", "c": "1"}


async def test_a_dry_run_says_what_would_be_and_changes_nothing(bench):
    await bench.apply(CONFIG_MAPS, "t", "us", data={"a": "1"})
    name, change = bench.named("t"), {"data": {"a": "2"}}
    would = await bench.api.apply(CONFIG_MAPS, bench.ns, name, change, manager="us", dry_run=True)
    assert (would["data"], (await bench.get(CONFIG_MAPS, "t"))["data"]) == ({"a": "2"}, {"a": "1"})
    with pytest.raises(ApiConflict):
        await bench.api.apply(CONFIG_MAPS, bench.ns, name, change, manager="them", dry_run=True)


async def test_replicas_are_set_through_scale_and_an_apply_without_them_leaves_them(bench):
    await bench.apply(DEPLOYMENTS, "llm", "us", **bench.deployment("llm"))
    name = bench.named("llm")
    scale = await bench.api.patch(DEPLOYMENTS, bench.ns, name, {"spec": {"replicas": 0}}, subresource="scale")
    assert scale["kind"] == "Scale"
    assert scale["spec"].get("replicas", 0) == 0
    after = await bench.apply(DEPLOYMENTS, "llm", "us", **bench.deployment("llm", image="registry.invalid/engine:2"))
    assert after["spec"]["replicas"] == 0
    with pytest.raises(ApiConflict, match="inferdock-release"):
        await bench.apply(DEPLOYMENTS, "llm", "us", **bench.deployment("llm", replicas=1))


# -- Preconditions ------------------------------------------------------------------------------------------------


async def test_only_one_of_two_who_saw_the_same_version_changes_it(bench):
    lease = await bench.make(LEASES, "l", spec={"holderIdentity": "a"})
    seen = {"resourceVersion": lease["metadata"]["resourceVersion"]}
    await bench.edit(LEASES, "l", "b", metadata=seen, spec={"holderIdentity": "b"})
    with pytest.raises(ApiConflict, match="has been modified"):
        await bench.edit(LEASES, "l", "c", metadata=seen, spec={"holderIdentity": "c"})
    assert (await bench.get(LEASES, "l"))["spec"]["holderIdentity"] == "b"


async def test_an_object_is_made_once(bench):
    made = await asyncio.gather(*(bench.make(LEASES, "l", spec={}) for _ in range(8)), return_exceptions=True)
    refused = [one for one in made if isinstance(one, ApiConflict)]
    assert (len(refused), all(one.exists for one in refused)) == (7, True)


async def test_an_object_is_deleted_only_if_it_is_the_one_that_was_meant(bench):
    made = await bench.make(CONFIG_MAPS, "a")
    with pytest.raises(ApiConflict, match="UID"):
        await bench.api.delete(CONFIG_MAPS, bench.ns, bench.named("a"), uid=str(uuid.uuid4()))
    assert await bench.api.delete(CONFIG_MAPS, bench.ns, bench.named("a"), uid=made["metadata"]["uid"])
    assert not await bench.api.delete(CONFIG_MAPS, bench.ns, bench.named("a"))


async def test_a_patch_of_nothing_is_missing(bench):
    with pytest.raises(ApiMissing, match="not found"):
        await bench.edit(CONFIG_MAPS, "a", "us", data={"k": "v"})


async def test_null_takes_a_field_away(bench):
    await bench.make(CONFIG_MAPS, "a", data={"k": "v", "l": "w"})
    assert (await bench.edit(CONFIG_MAPS, "a", "us", data={"k": None}))["data"] == {"l": "w"}


async def test_many_at_once_each_keep_their_own_key(bench):
    await bench.apply(CONFIG_MAPS, "t", "us")
    await asyncio.gather(*(bench.apply(CONFIG_MAPS, "t", f"m{n}", data={f"k{n}": "v"}) for n in range(10)))
    assert set((await bench.get(CONFIG_MAPS, "t"))["data"]) == {f"k{n}" for n in range(10)}


# -- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "more", "said"),
    [
        (CONFIG_MAPS, {"data": {"no/slash": ""}}, "config key"),
        (CONFIG_MAPS, {"data": {"k": "x" * 1024 * 1024}}, "Too long"),
        (DEPLOYMENTS, {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {}}}, "selector"),
    ],
    ids=["key", "size", "selector"],
)
async def test_what_a_cluster_does_not_take_is_refused(bench, resource, more, said):
    with pytest.raises(ApiRefused, match=said) as caught:
        await bench.make(resource, "a", **more)
    assert caught.value.status == 422


@pytest.mark.parametrize("label", ["1.0+x", "a/b", "x" * 64, "-a"])
async def test_a_label_that_is_none_is_refused(bench, label):
    await bench.make(CONFIG_MAPS, "a")
    with pytest.raises(ApiRefused, match="label") as caught:
        await bench.edit(CONFIG_MAPS, "a", "us", metadata={"labels": {"l": label}})
    assert caught.value.status == 422


async def test_a_pod_that_is_not_there_is_missing_through_the_proxy_too(bench):
    with pytest.raises(ApiMissing, match="not found"):
        await bench.api.read_pod(bench.ns, bench.named("none"), 8080, "/metrics", most=1000)
    assert await bench.api.get(PODS, bench.ns, bench.named("none")) is None
