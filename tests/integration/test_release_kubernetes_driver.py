"""The driver on a fake cluster whose controllers are at work."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from msgspec.structs import replace

from inferdock.domain.errors import ConfigError, ConflictError, InferdockError, ModelError
from inferdock.kube.naming import traffic_key
from inferdock.kube.resources import CONFIG_MAPS, DEPLOYMENTS, HPAS, PDBS, SCALED_OBJECTS, SERVICES
from inferdock.release.records.cluster_names import OWN_BOUNDS, RETIRED, revision_name
from inferdock.release.steps import Target
from tests.support.cluster_platform import NEW, NS, OLD, TRAFFIC, ClusterPlatform, cluster_platform
from tests.support.fake_cluster_pods import PodPlan

ONE = replace(NEW, replicas=1)


def number(version: int) -> Target:
    return Target(reference=f"demo@{version}.0.0", revision=f"{version}.0.0-{version:012x}", replicas=1)


# -- the life of a revision ----------------------------------------------------------------------------------


async def test_a_revision_is_made_of_the_template_and_runs() -> None:
    async with cluster_platform(work={"drain_s": 0.1}) as platform:
        await platform.install(OLD)
        driver = platform.driver()
        await platform.until_ready(OLD, 2)
        await driver.start(NEW)
        await driver.start(NEW)
        await platform.until_ready(NEW, 2)
        seen = await driver.observe()
        running = seen.of(NEW.revision)
        assert running is not None
        assert (running.reference, running.wanted, running.problem) == (NEW.reference, 2, "")
        assert seen.weights == {OLD.revision: 100.0}
        name = f"llm-demo-{revision_name(NEW.revision)}"
        for resource in (DEPLOYMENTS, SERVICES, CONFIG_MAPS, PDBS):
            assert platform.cluster.store.get(resource, NS, name) is not None
        owners = platform.deployment(NEW)["metadata"]["managedFields"]
        ours = {one["manager"]: one for one in owners if one["manager"].startswith("inferdock-release")}
        assert ours.keys() == {"inferdock-release", "inferdock-release-scale"}
        assert "f:replicas" not in json.dumps(ours["inferdock-release"]["fieldsV1"])
        assert len(await driver.address(NEW.revision)) == 2


async def test_weights_are_written_where_gateways_follow_them() -> None:
    async with cluster_platform() as platform:
        await platform.install(OLD)
        await platform.driver().shift({OLD.revision: 0.9, NEW.revision: 0.1})
        body = platform.cluster.store.get(CONFIG_MAPS, NS, TRAFFIC)
        assert body is not None
        told = json.loads(body["data"][traffic_key(platform.model)])
        assert told == {"model": platform.model, "weights": {OLD.revision: 90.0, NEW.revision: 10.0}}
        seen = await platform.driver().observe()
        assert seen.share(NEW.revision) == pytest.approx(0.1)


async def test_copies_are_asked_for_beside_the_weights() -> None:
    async with cluster_platform() as platform:
        driver, key = platform.driver(), traffic_key(platform.model)

        def told() -> dict:
            body = platform.cluster.store.get(CONFIG_MAPS, NS, TRAFFIC)
            return json.loads(body["data"][key]) if body is not None else {}

        await driver.mirror(None, 0.0)
        assert told() == {}
        await driver.shift({OLD.revision: 1.0})
        await driver.mirror(NEW.revision, 0.1)
        await driver.shift({OLD.revision: 0.5, NEW.revision: 0.5})
        assert told()["shadow"] == {"revision": NEW.revision, "share": 0.1}
        assert told()["weights"] == {OLD.revision: 50.0, NEW.revision: 50.0}
        await driver.mirror(None, 0.0)
        assert told() == {"model": platform.model, "weights": {OLD.revision: 50.0, NEW.revision: 50.0}}


async def test_two_models_write_side_by_side() -> None:
    async with cluster_platform() as platform:
        other = ClusterPlatform(platform.cluster, platform.api, platform.work, "other")
        await asyncio.gather(
            *(platform.driver().shift({OLD.revision: 1.0}) for _ in range(5)),
            *(other.driver().shift({NEW.revision: 1.0}) for _ in range(5)),
        )
        assert (await platform.driver().observe()).weights == {OLD.revision: 100.0}
        assert (await other.driver().observe()).weights == {NEW.revision: 100.0}


async def test_a_revision_that_starts_where_no_weights_were_set_gets_no_traffic() -> None:
    async with cluster_platform() as platform:
        await platform.install(OLD, weights=False)
        await platform.until_ready(OLD, 2)
        await platform.driver().start(NEW)
        assert (await platform.driver().observe()).weights == {OLD.revision: 100.0}


async def test_a_retired_revision_has_no_replicas_and_comes_back_at_once() -> None:
    async with cluster_platform(work={"drain_s": 0.3}) as platform:
        await platform.install(OLD)
        driver = platform.driver()
        await driver.start(ONE)
        await platform.until_ready(ONE, 1)
        await driver.retire(ONE.revision)
        running = (await driver.observe()).of(ONE.revision)
        assert running is not None
        assert running.wanted == 0
        await platform.until_gone(ONE)
        assert platform.deployment(ONE)["metadata"]["annotations"][RETIRED]
        await driver.retire(ONE.revision)
        await driver.retire("nobody")
        await driver.start(ONE)
        await platform.until_ready(ONE, 1)
        assert RETIRED not in platform.deployment(ONE)["metadata"]["annotations"]


async def test_what_helm_made_is_scaled_and_never_deleted_or_changed() -> None:
    async with cluster_platform() as platform:
        await platform.install(OLD)
        await platform.until_ready(OLD, 2)
        before = platform.deployment(OLD)["spec"]["template"]
        driver = platform.driver()
        await driver.retire(OLD.revision)
        await platform.until_gone(OLD)
        for version in range(3, 9):
            await driver.start(number(version))
            await driver.retire(number(version).revision)
            await platform.until_gone(number(version))
        await driver.start(OLD)
        await platform.until_ready(OLD, 2)
        assert platform.deployment(OLD)["spec"]["template"] == before


async def test_the_newest_three_retired_revisions_stay_and_older_ones_go_wholly() -> None:
    async with cluster_platform(scaler="keda") as platform:
        driver = platform.driver()
        for version in range(1, 7):
            await driver.start(number(version))
            await platform.until_ready(number(version), 1)
            await driver.retire(number(version).revision)
            await platform.until_gone(number(version))
        await driver.retire(number(6).revision)
        left = {one["metadata"]["name"] for one in platform.cluster.store.all(DEPLOYMENTS, NS)}
        assert left == {f"llm-demo-{revision_name(number(version).revision)}" for version in (4, 5, 6)}
        for resource in (SERVICES, PDBS, SCALED_OBJECTS):
            assert {one["metadata"]["name"] for one in platform.cluster.store.all(resource, NS)} == left


async def test_a_template_that_changed_does_not_touch_revisions_that_are_there() -> None:
    async with cluster_platform() as platform:
        driver = platform.driver()
        await driver.start(NEW)
        await platform.until_ready(NEW, 2)
        text = platform.cluster.store.get(CONFIG_MAPS, NS, "llm-demo-template")
        assert text is not None
        changed = text["data"]["objects.yaml"].replace("engine:1", "engine:2")
        platform.cluster.store.patch(CONFIG_MAPS, NS, "llm-demo-template", {"data": {"objects.yaml": changed}})
        await driver.start(replace(NEW, replicas=3))
        await platform.until_ready(NEW, 3)
        pod = platform.deployment(NEW)["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"] == "engine:1"


async def test_a_runner_that_died_between_objects_is_followed_by_one_that_makes_the_rest() -> None:
    async with cluster_platform() as platform:
        for stop in range(1, 12):
            platform.cluster.fault("drop", 99, method="PATCH")
            platform.cluster.faults[-1].hits = _after(stop)  # type: ignore[method-assign]
            with contextlib.suppress(InferdockError):
                await platform.driver().start(NEW)
            platform.cluster.faults.clear()
        await platform.driver().start(NEW)
        await platform.until_ready(NEW, 2)


def _after(count: int):
    left = [count]

    def hits(request) -> bool:
        if request.method == "PATCH":
            left[0] -= 1
        return request.method == "PATCH" and left[0] < 0

    return hits


# -- autoscalers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaler", ["keda", "hpa"])
async def test_replicas_are_left_to_an_autoscaler_and_its_bounds_come_back(scaler: str) -> None:
    resource, least = (SCALED_OBJECTS, "minReplicaCount") if scaler == "keda" else (HPAS, "minReplicas")
    async with cluster_platform(scaler=scaler, least=1, most=5) as platform:
        await platform.install(OLD, replicas=1)
        await platform.until_ready(OLD, 1)
        driver = platform.driver()
        await driver.start(replace(NEW, replicas=3))
        await platform.until_ready(NEW, 3)
        name = f"llm-demo-{revision_name(NEW.revision)}"

        def bounds() -> dict:
            found = platform.cluster.store.get(resource, NS, name)
            assert found is not None
            return found

        assert bounds()["spec"][least] == 3
        platform.work.demand[name] = 4
        await platform.until_ready(NEW, 4)
        await driver.shift({NEW.revision: 1.0})
        await driver.retire(OLD.revision)
        await platform.until_gone(OLD)
        assert bounds()["spec"][least] == 1
        assert OWN_BOUNDS not in (bounds()["metadata"].get("annotations") or {})
        await driver.start(replace(OLD, replicas=2))
        await platform.until_ready(OLD, 2)


@pytest.mark.parametrize("scaler", ["keda", "hpa", ""])
async def test_a_fleet_is_made_smaller_whatever_its_autoscaler_would_like(scaler: str) -> None:
    async with cluster_platform(scaler=scaler, least=1, most=5) as platform:
        driver = platform.driver()
        await driver.start(replace(NEW, replicas=3))
        await platform.until_ready(NEW, 3)
        name = f"llm-demo-{revision_name(NEW.revision)}"
        platform.work.demand[name] = 3
        await driver.scale(NEW.revision, 1)
        await platform.until_ready(NEW, 1)
        await asyncio.sleep(0.1)
        running = (await driver.observe()).of(NEW.revision)
        assert running is not None
        assert running.wanted == 1
        await driver.start(replace(NEW, replicas=3))
        await platform.until_ready(NEW, 3)


async def test_more_than_an_autoscaler_allows_is_refused() -> None:
    async with cluster_platform(scaler="keda", most=2) as platform:
        with pytest.raises(ConfigError, match="allows 2"):
            await platform.driver().start(replace(NEW, replicas=3))


async def test_a_floor_has_its_replicas_and_the_main_deployment_the_rest() -> None:
    async with cluster_platform(floor=1) as platform:
        driver = platform.driver()
        await driver.start(replace(NEW, replicas=3))
        await platform.until_ready(NEW, 3)
        counts = {name[-5:]: one["spec"]["replicas"] for name, one in platform.deployments.items()}
        assert sorted(counts.values()) == [1, 2]
        assert counts["floor"] == 1
        await driver.retire(NEW.revision)
        await platform.until_gone(NEW)


# -- others in the cluster -----------------------------------------------------------------------------------


async def test_a_number_that_somebody_else_has_set_is_not_overwritten_and_they_are_named() -> None:
    async with cluster_platform() as platform:
        driver = platform.driver()
        await driver.start(NEW)
        await platform.until_ready(NEW, 2)
        platform.cluster.scale(NS, f"llm-demo-{revision_name(NEW.revision)}", 5, manager="argocd")
        with pytest.raises(ConflictError, match=r"argocd.*--take-over") as caught:
            await driver.retire(NEW.revision)
        assert ".spec.replicas" in caught.value.message
        await platform.driver(take_over=True).retire(NEW.revision)
        await platform.until_gone(NEW)


async def test_an_autoscaler_that_is_not_in_the_template_is_named() -> None:
    async with cluster_platform() as platform:
        driver = platform.driver()
        await driver.start(NEW)
        await platform.until_ready(NEW, 2)
        name = f"llm-demo-{revision_name(NEW.revision)}"
        spec = {"scaleTargetRef": {"kind": "Deployment", "name": name}, "minReplicas": 3, "maxReplicas": 3}
        platform.cluster.store.create(HPAS, NS, {"metadata": {"name": "stranger"}, "spec": spec})
        await platform.until_ready(NEW, 3)
        with pytest.raises(ConflictError, match="autoscaler sets it"):
            await driver.retire(NEW.revision)


async def test_weights_that_somebody_edited_are_ours_again_with_the_next_shift() -> None:
    async with cluster_platform() as platform:
        driver = platform.driver()
        await driver.shift({OLD.revision: 1.0})
        key = traffic_key(platform.model)
        platform.cluster.store.patch(CONFIG_MAPS, NS, TRAFFIC, {"data": {key: "what?"}}, "kubectl-edit")
        assert (await driver.observe()).weights == {}
        await driver.shift({OLD.revision: 1.0})
        assert (await driver.observe()).weights == {OLD.revision: 100.0}


# -- troubles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (PodPlan(trouble="Unschedulable"), "0/1 nodes are available"),
        (PodPlan(trouble="CrashLoopBackOff", exit_code=11), "exit code 11"),
        (PodPlan(trouble="ImagePullBackOff"), 'image "engine:1"'),
        (PodPlan(trouble="InitFailed"), "init container"),
    ],
    ids=lambda value: getattr(value, "trouble", "says"),
)
async def test_why_a_pod_is_not_ready_is_said(plan: PodPlan, says: str) -> None:
    async with cluster_platform(work={"plan": lambda pod: plan}, deadline_s=600) as platform:
        driver = platform.driver()
        await driver.start(ONE)
        found: list[str] = []
        async with asyncio.timeout(20):
            while says not in (found or [""])[-1]:
                await asyncio.sleep(0.05)
                running = (await driver.observe()).of(ONE.revision)
                assert running is not None
                found.append(running.problem)
                assert not running.given_up


async def test_without_progress_within_its_deadline_it_is_given_up() -> None:
    stuck = {"plan": lambda pod: PodPlan(trouble="NotReady"), "deadline_s": 0.2}
    async with cluster_platform(work=stuck) as platform:
        driver = platform.driver()
        await driver.start(ONE)
        async with asyncio.timeout(20):
            while not ((await driver.observe()).of(ONE.revision) or pytest.fail("it is gone")).given_up:
                await asyncio.sleep(0.05)


async def test_a_cluster_without_keda_has_no_scaled_objects() -> None:
    async with cluster_platform() as platform:
        platform.cluster.unknown = {"scaledobjects"}
        await platform.driver().start(ONE)
        await platform.until_ready(ONE, 1)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (None, "no template"),
        ("", "no list"),
        ("[]", "no list"),
        ("{", "no YAML"),
        ("- &a [*a]", "aliases"),
        ("- {apiVersion: v1, kind: Secret, metadata: {name: x-@@NAME@@}}", "not for a revision"),
        ("- {apiVersion: v1, kind: ConfigMap, metadata: {name: x}}", "would share it"),
        ("- {apiVersion: v1, kind: ConfigMap, metadata: {name: x-@@NAME@@}}", "is labelled"),
    ],
    ids=["none", "empty", "no objects", "broken", "aliases", "secret", "shared", "unlabelled"],
)
async def test_a_template_that_is_none_is_refused(harm: str | None, says: str) -> None:
    async with cluster_platform() as platform:
        if harm is None:
            platform.cluster.store.delete(CONFIG_MAPS, NS, "llm-demo-template")
        else:
            platform.cluster.store.patch(CONFIG_MAPS, NS, "llm-demo-template", {"data": {"objects.yaml": harm}})
        with pytest.raises(ConfigError, match=says):
            await platform.driver().start(NEW)


async def test_what_the_api_finds_wrong_with_an_object_is_no_reason_to_try_again() -> None:
    async with cluster_platform() as platform:
        text = platform.cluster.store.get(CONFIG_MAPS, NS, "llm-demo-template")
        assert text is not None
        bad = text["data"]["objects.yaml"].replace("image: engine:1", "image: engine:1").replace("containers:", "cans:")
        platform.cluster.store.patch(CONFIG_MAPS, NS, "llm-demo-template", {"data": {"objects.yaml": bad}})
        with pytest.raises(ModelError, match="containers"):
            await platform.driver().start(NEW)


async def test_who_may_not_see_is_told_so() -> None:
    async with cluster_platform() as platform:
        platform.cluster.forbidden = lambda verb, resource, name: resource == DEPLOYMENTS and verb == "patch"
        with pytest.raises(ConfigError, match="forbidden") as caught:
            await platform.driver().start(NEW)
        assert caught.value.cure
