"""`inferdock install` with Helm's real SDK, into a cluster that lives in this process."""

from __future__ import annotations

import contextlib
import json

import pytest
from click.testing import CliRunner

from inferdock.app.install import Wish, reach, send_chart, wait_until_ready, with_revisions
from inferdock.app.render import merged
from inferdock.cli.main import cli
from inferdock.config.settings import RegistrySettings
from inferdock.domain.errors import CheckFailedError, ConfigError, ConflictError, InconclusiveError, UnreachableError
from inferdock.kube.resources import CONFIG_MAPS, DEPLOYMENTS
from tests.support.chart import CHART, REGISTRY
from tests.support.fake_cluster import running_fake_cluster
from tests.support.fake_cluster_controllers import controllers
from tests.support.fake_cluster_pods import PodPlan
from tests.support.helm_cluster import install_by_command, running_helm_cluster
from tests.support.model_folders import write_model

NAMESPACE = "ns"
DEV = {"models": {"mistral-7b-instruct": None, "m": {"version": "1.0.0", "source": "demo", "gpu": {"count": 0}}}}
ENGINE = "llm-inference-m-1-0-0-"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A test runner that renames its process takes HOME away from Helm, which then keeps its cache where it is."""
    monkeypatch.chdir(tmp_path)


@contextlib.asynccontextmanager
async def cluster(**options):
    async with (
        running_fake_cluster() as behind,
        running_helm_cluster(behind) as front,
        controllers(behind, namespace=NAMESPACE, **options) as at_work,
    ):
        yield front, at_work


def wish(front, values=DEV, **more):
    return Wish(name="llm-inference", namespace=NAMESPACE, chart=CHART, values=values, api_url=front.url, **more)


async def install(front, values=DEV, *, timeout_s=60.0, **more):
    """As the command does it; gives what Helm did and the lines that were told."""
    told: list[str] = []
    asked = wish(front, values, **more)
    done = await send_chart(asked)
    async with reach(asked, {}) as api:
        await wait_until_ready(api, asked, done.deployments, timeout_s=timeout_s, told=told.append, look_s=0.05)
    return done, told


def replicas(front, beginning):
    store = front.behind.store
    (one,) = [d for d in store.all(DEPLOYMENTS, NAMESPACE) if d["metadata"]["name"].startswith(beginning)]
    return one["spec"].get("replicas", 1)


async def test_it_installs_and_waits_until_every_pod_is_ready():
    async with cluster(plan=lambda pod: PodPlan(startup_s=0.3)) as (front, at_work):
        done, told = await install(front)
        assert (done.number, done.upgraded) == (1, False)
        assert len(at_work.ready) == 3
        assert told[-1].endswith(("1 of 1 ready", "2 of 2 ready"))
        assert ("secrets", "sh.helm.release.v1.llm-inference.v1") in front.kept  # `helm list` knows it


async def test_again_is_an_upgrade_that_leaves_what_runs_alone():
    async with cluster() as (front, at_work):
        await install(front)
        before = set(at_work.ready)
        done, _ = await install(front)
        assert (done.number, done.upgraded) == (2, True)
        assert set(at_work.ready) == before


async def test_an_upgrade_brings_the_number_of_replicas_that_is_wanted():
    """The plan's own words: `--set replicaCount=2` scales to 2 pods."""
    async with cluster() as (front, _):
        await install(front)
        await install(front, merged(DEV, {"replicaCount": 2}))
        assert replicas(front, ENGINE) == 2


async def test_an_upgrade_keeps_the_number_that_a_release_has_set():
    async with cluster() as (front, _):
        await install(front)
        asked = wish(front)
        async with reach(asked, {}) as api:
            (name,) = [n for n in (await send_chart(asked)).deployments if n.startswith(ENGINE)]
            await api.patch(DEPLOYMENTS, NAMESPACE, name, {"spec": {"replicas": 0}}, manager="inferdock-release-scale")
        await install(front, merged(DEV, {"gateway": {"workers": 2}}))
        assert replicas(front, ENGINE) == 0


async def test_a_new_version_in_the_values_is_refused_since_helm_would_delete_the_old_one():
    newer = merged(DEV, {"models": {"m": {"version": "2.0.0"}}})
    async with cluster() as (front, at_work):
        await install(front)
        before = set(at_work.ready)
        with pytest.raises(ConflictError, match=r"would delete llm-inference-m-1-0-0-.* at once") as refused:
            await install(front, newer)
        assert "inferdock release start" in refused.value.cure
        assert set(at_work.ready) == before
        await install(front, newer, replace=True)
        assert replicas(front, "llm-inference-m-2-0-0-") == 1


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        (PodPlan(trouble="Unschedulable"), InconclusiveError, "Insufficient nvidia.com/gpu"),
        (PodPlan(trouble="ImagePullBackOff"), InconclusiveError, "image .* cannot be had"),
        (PodPlan(trouble="CrashLoopBackOff", exit_code=11), InconclusiveError, "ended with exit code 11"),
        (PodPlan(trouble="NotReady"), InconclusiveError, "0 of 1 ready"),
    ],
    ids=["no-card", "no-image", "crashes", "never-ready"],
)
async def test_it_says_why_a_pod_is_not_ready(plan, error, words):
    def engines_have_trouble(pod):
        engine = pod["metadata"]["labels"]["app.kubernetes.io/component"] == "engine"
        return plan if engine else PodPlan()

    async with cluster(plan=engines_have_trouble) as (front, _):
        with pytest.raises(error, match=words):
            await install(front, timeout_s=3.0)


async def test_it_gives_up_when_kubernetes_does():
    def engines_have_trouble(pod):
        engine = pod["metadata"]["labels"]["app.kubernetes.io/component"] == "engine"
        return PodPlan(trouble="Unschedulable") if engine else PodPlan()

    async with cluster(plan=engines_have_trouble, deadline_s=0.5) as (front, _):
        with pytest.raises(CheckFailedError, match=r"Insufficient nvidia\.com/gpu"):
            await install(front)


async def test_the_command_says_what_it_does_and_ends_with_the_charts_notes(tmp_path):
    async with cluster() as (front, _):
        status, out, said = await install_by_command(front, DEV, tmp_path, "--timeout", "60")
        assert status == 0, said
        assert "Installed llm-inference in ns (revision 1)." in said
        assert "llm-inference-gateway: 2 of 2 ready" in said
        assert "port-forward svc/llm-inference" in out
        status, out, said = await install_by_command(front, DEV, tmp_path, "--no-wait", "-o", "json")
        assert (status, json.loads(out)["helm_revision"]) == (0, 2)


async def test_the_commands_exit_status_says_what_happened(tmp_path):
    async with cluster(plan=lambda pod: PodPlan(trouble="ImagePullBackOff")) as (front, _):
        status, _, said = await install_by_command(front, DEV, tmp_path, "--timeout", "1")
        assert status == 12
        assert "cannot be had (ImagePullBackOff)" in said
        status, _, said = await install_by_command(front, {"engine": {"quantization": "awq"}}, tmp_path)
        assert status == 3
        status, _, said = await install_by_command(
            front, merged(DEV, {"models": {"m": {"version": "2.0.0"}}}), tmp_path
        )
        assert status == 10


async def test_a_moment_without_the_api_is_waited_for():
    async with cluster(plan=lambda pod: PodPlan(startup_s=1.0)) as (front, _):
        asked = wish(front)
        done = await send_chart(asked)
        front.behind.fault("drop", times=4, path="/pods")
        told: list[str] = []
        async with reach(asked, {}) as api:
            await wait_until_ready(api, asked, done.deployments, timeout_s=60, told=told.append, look_s=0.05)
        assert any("does not answer" in line for line in told)


async def test_an_operator_that_is_missing_is_named():
    async with cluster() as (front, _):
        front.lacks.add("keda.sh")
        with pytest.raises(ConfigError, match=r"lacks a kind of object.*ScaledObject \(keda\.sh\)") as refused:
            await install(front, merged(DEV, {"engine": {"autoscaling": {"enabled": True}}}))
        assert "KEDA" in refused.value.cure


async def test_values_that_cannot_work_change_nothing():
    async with cluster() as (front, _):
        with pytest.raises(ConfigError, match="exclude each other"):
            await install(front, merged(DEV, {"models": {"m": {"replicas": 2, "autoscaling": {"enabled": True}}}}))
        assert front.written == []


async def test_no_cluster_is_a_sentence():
    async with cluster() as (front, _):
        asked = wish(front)
    with pytest.raises(UnreachableError, match="Helm says"):
        await send_chart(asked)


async def test_the_traffic_of_releases_is_not_the_charts():
    """The ConfigMap of weights is no object of the chart: an upgrade must not set traffic."""
    async with cluster() as (front, _):
        body = {"metadata": {"name": "inferdock-traffic"}, "data": {"a": "b"}}
        front.behind.store.create(CONFIG_MAPS, NAMESPACE, body)
        await install(front)
        await install(front)
        assert front.behind.store.get(CONFIG_MAPS, NAMESPACE, "inferdock-traffic")["data"] == {"a": "b"}


def test_versions_and_revisions_come_from_the_registry(tmp_path):
    url, environment = str(tmp_path / "registry"), {"HOME": str(tmp_path)}
    words = [
        "model",
        "push",
        str(write_model(tmp_path / "model")),
        "--name",
        "m",
        "--version",
        "1.0.0",
        "--alias",
        "champion",
    ]
    pushed = CliRunner().invoke(cli, [*words, "-o", "json"], env={"INFERDOCK_REGISTRY__URL": url})
    assert pushed.exit_code == 0, pushed.output
    registry, revision = RegistrySettings(url=url), json.loads(pushed.stdout)["revision"]
    told: list[str] = []
    values = with_revisions({"models": {"m": {}}}, registry, environment, told.append)
    assert values["models"]["m"] == {"version": "1.0.0", "revision": revision}
    assert "1.0.0" in told[0]
    for given in (REGISTRY, {"models": {"x": {"source": "o/m"}, "y": None}}, {}):
        assert with_revisions(given, registry, environment, told.append) == given
