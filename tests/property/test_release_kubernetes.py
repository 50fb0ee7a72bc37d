"""Laws of releases in a cluster: over any story something ready has the traffic; no object breaks the reader."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inferdock.app.release_cluster import Cluster, cluster_place
from inferdock.app.release_places import Place
from inferdock.config.settings import Settings
from inferdock.domain.errors import ConfigError, ConflictError, UnreachableError
from inferdock.kube.objects import EndpointSlice
from inferdock.kube.resources import CONFIG_MAPS, PODS
from inferdock.release.drivers.kubernetes.seen import Fleet, assembled, read_weights
from inferdock.release.drivers.kubernetes.template import revision_parts
from inferdock.release.drivers.kubernetes.views import Autoscaler, Deployment, Pod, view, views
from inferdock.release.machine import OVER
from inferdock.release.progress import Progress
from inferdock.release.records.cluster_lease import ClusterLease
from inferdock.release.records.cluster_names import (
    MAX_NAME,
    MODEL,
    REFERENCE,
    RETIRED,
    REVISION,
    object_name,
    revision_name,
)
from inferdock.release.records.mailbox import Request, Wish
from inferdock.release.steps import Target
from tests.support.cluster_mortal import desk_of, plan_of, registry
from tests.support.cluster_platform import NEW, NS, OLD, TRAFFIC, ClusterPlatform, cluster_platform
from tests.support.cluster_releases import QUICK
from tests.support.fake_driver import BY
from tests.support.releases import drafted

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.text("ab@/-\n\x00ü", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)

# -- objects -------------------------------------------------------------------------------------------------


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Objects that are almost what the API sends."""
    labels = draw(st.dictionaries(st.sampled_from([MODEL, REVISION, "x"]), st.sampled_from(["m", "r1", "r2"])))
    notes = draw(st.dictionaries(st.sampled_from([REFERENCE, RETIRED, REVISION]), st.text("ab1", max_size=3)))
    status = st.fixed_dictionaries(
        {},
        optional={
            "conditions": st.lists(
                st.fixed_dictionaries({"type": st.text("PR", max_size=2), "status": st.just("True")})
            ),
            "containerStatuses": st.lists(
                st.fixed_dictionaries({"name": st.just("c"), "state": st.dictionaries(st.just("waiting"), st.none())})
            ),
            "observedGeneration": st.integers(0, 3),
        },
    )
    whole = {
        "metadata": {"name": draw(st.sampled_from(["a", "b"])), "labels": labels, "annotations": notes},
        "spec": draw(st.dictionaries(st.sampled_from(["replicas", "minReplicas", "scaleTargetRef"]), JSON)),
        "status": draw(status),
    }
    return draw(st.sampled_from([whole, draw(st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), JSON))]))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(deployments=st.lists(bodies(), max_size=3), pods=st.lists(bodies(), max_size=3), others=st.lists(bodies()))
def test_whatever_the_api_sends_is_seen_or_refused(
    deployments: list[dict], pods: list[dict], others: list[dict]
) -> None:
    try:
        seen = assembled(
            deployments=views(deployments, Deployment),
            pods=views(pods, Pod),
            slices=views(others, EndpointSlice),
            scaled_objects=views(others, Autoscaler),
            hpas=views(others, Autoscaler),
            weights={},
        )
    except UnreachableError:
        return
    for running in seen.observed().revisions:
        assert running.wanted >= 0 or any((one["spec"].get("replicas") or 0) < 0 for one in deployments)
        assert running.ready >= 0
        assert running.problem.isprintable()


@settings(deadline=None)
@given(value=st.lists(JSON, max_size=3) | JSON, text=st.text(max_size=30))
@example(value=None, text="- {<<: 3}")
@example(value=None, text="? - a\n: b")
def test_whatever_a_template_holds_is_used_or_refused(value: Any, text: str) -> None:
    target = Target(reference="m@1", revision="1-abcdef012345", replicas=1)
    for spelt in (yaml.safe_dump(value), json.dumps(value), text):
        with contextlib.suppress(ConfigError):
            revision_parts(spelt, target, model_label="m", namespace="ns")


@given(revision=st.text(max_size=80), model=st.text(max_size=80))
def test_every_name_is_one_that_kubernetes_takes(revision: str, model: str) -> None:
    for name, most in ((revision_name(revision), MAX_NAME), (object_name(model), 49)):
        assert 0 < len(name) <= most
        assert name == name.lower()
        assert name.isascii()
        assert name[0].isalnum()
        assert name[-1].isalnum()


@given(replicas=st.integers(0, 50), floors=st.lists(st.integers(0, 9), max_size=3))
def test_replicas_that_are_divided_add_up(replicas: int, floors: list[int]) -> None:
    made = [
        view({"metadata": {"name": f"d{n}", "annotations": {"inferdock.io/replicas": str(count)}}}, Deployment)
        for n, count in enumerate([0, *floors])
    ]
    divided = Fleet(revision="r", deployments=tuple(made)).divided(replicas)
    assert sum(divided.values()) == replicas
    assert min(divided.values()) >= 0


# -- stories -------------------------------------------------------------------------------------------------

HAPPENINGS = ("away", "lose", "refuse", "expire", "crash old", "crash new", "kill", "edit", "pause", "abort", "slow")


class Story:
    """One release, and what happens to it while it goes on."""

    def __init__(self, platform: ClusterPlatform, folder: Path, happenings: list[tuple[str, float]]) -> None:
        self.platform, self.folder = platform, folder
        self._happenings = happenings
        self._number = 0
        self._running: asyncio.Task[Progress] | None = None
        self.dark: list[str] = []

    async def tell(self) -> Progress:
        """To the end of the release."""
        events = asyncio.create_task(self._events())
        watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(90):
                while True:
                    progress = await self._live()
                    if progress is not None and progress.state in OVER:
                        return progress
        finally:
            for task in (events, watching):
                task.cancel()
            await asyncio.gather(events, watching, return_exceptions=True)

    async def _live(self) -> Progress | None:
        """One process: it begins the release or takes it up, and may be killed."""
        self._running = asyncio.create_task(self._work())
        try:
            return await self._running
        except asyncio.CancelledError:
            return None
        except (UnreachableError, ConflictError):
            await asyncio.sleep(0.1)
            return None

    async def _work(self) -> Progress:
        async with _place(self.platform, self.folder) as place:
            desk = desk_of(place, registry(self.folder, "release"), "release")
            if "r1" not in await place.journals.ids():
                return await desk.start(drafted(plan_of("release")), BY)
            if (progress := await place.journals.progress("r1")).state in OVER:
                return progress
            return await desk.command("r1", self._wish(Wish.RESUME))

    def _wish(self, wish: Wish) -> Request:
        self._number += 1
        time = "2026-01-01T00:00:00.000Z"
        return Request(id=f"{self._number:032x}", wish=wish, actor="bob", origin="", reason="", time=time)

    async def _events(self) -> None:
        for what, after_s in self._happenings:
            await asyncio.sleep(after_s)
            await self._happen(what)

    async def _happen(self, what: str) -> None:
        cluster, work = self.platform.cluster, self.platform.work
        match what:
            case "away":
                await cluster.go_away()
                await asyncio.sleep(0.3)
                cluster.away = False
            case "lose" | "refuse":
                cluster.fault(what, 3)
            case "expire":
                await cluster.expire()
            case "crash old" | "crash new":
                target = OLD if what == "crash old" else NEW
                names = [pod["metadata"]["name"] for pod in self.platform.pods(target)]
                if len(set(names) & set(work.ready)) > 1:  # with one of two, or it would be the crash that left none
                    work.crash(next(name for name in names if name in work.ready))
            case "kill":
                if self._running is not None:
                    self._running.cancel()
            case "edit":
                await self._edit()
            case "pause" | "abort":
                async with _place(self.platform, self.folder) as place:
                    await place.mailbox("r1").post(self._wish(Wish(what)))
            case "slow":
                cluster.slow_s = 0.02

    async def _edit(self) -> None:
        """Somebody labels everything that releases keep."""
        for one in self.platform.cluster.store.all(CONFIG_MAPS, NS):
            change = {"metadata": {"annotations": {"seen": str(self._number)}}}
            self.platform.cluster.store.patch(CONFIG_MAPS, NS, one["metadata"]["name"], change, "somebody")

    async def _watch(self) -> None:
        store = self.platform.cluster.store
        while True:
            weights = read_weights(store.get(CONFIG_MAPS, NS, TRAFFIC), self.platform.model)
            ready = {pod["metadata"]["labels"][REVISION] for pod in store.all(PODS, NS) if _serves(pod)}
            if weights and not any(weight and revision in ready for revision, weight in weights.items()):
                self.dark.append(f"{weights} with {ready}")
            await asyncio.sleep(0.01)


def _place(platform: ClusterPlatform, folder: Path) -> contextlib.AbstractAsyncContextManager[Place]:
    cluster = Cluster(model=platform.model, namespace=NS, context=None, api_url=platform.cluster.url)
    return cluster_place(Settings(state_dir=folder / "state"), {}, cluster, timing=QUICK)


def _serves(pod: dict) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"] and REVISION in pod["metadata"]["labels"]


async def _told(happenings: list[tuple[str, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with cluster_platform(work={"drain_s": 0.1}) as platform:
            await platform.install(OLD)
            await platform.until_ready(OLD, 2)
            story = Story(platform, Path(folder), happenings)
            progress = await story.tell()
            platform.cluster.slow_s, platform.cluster.away = 0.0, False
            platform.cluster.faults.clear()
            seen = await platform.driver().observe()
            home = NEW if progress.state == "completed" else OLD
            assert story.dark == []
            assert seen.weights == {home.revision: 100.0}, progress.outcome
            assert registry(Path(folder), "release").champion_is == home.reference, progress.outcome


@pytest.mark.timeout(600)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(happenings=st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.floats(0.05, 0.6)), max_size=8))
@example(happenings=[("kill", 0.4), ("kill", 1.2), ("away", 0.2), ("kill", 0.5)])
@example(happenings=[("edit", 0.2), ("lose", 0.1), ("expire", 0.2), ("edit", 0.3), ("abort", 0.5)])
def test_over_any_story_something_that_is_ready_has_the_traffic(
    happenings: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def left_behind(self: ClusterLease) -> None:
        if self._renewing is not None:
            self._renewing.cancel()

    monkeypatch.setattr(ClusterLease, "release", left_behind)
    asyncio.run(_told(happenings))
