"""`inferdock release ... --target kubernetes`: whole commands against a fake cluster, with a registry and a gateway."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inferdock.app.models import served
from inferdock.app.registry import open_registry
from inferdock.config.settings import RegistrySettings
from inferdock.registry.names import Reference
from inferdock.release.steps import Target
from inferdock.sim.options import SimOptions
from tests.support.cluster_platform import NAME, NS, cluster_platform
from tests.support.cluster_traffic import body, service
from tests.support.model_folders import write_model
from tests.support.release_load import Streams

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


async def inferdock(config: Path, *words: str, **more: str) -> Said:
    command = [sys.executable, "-m", "inferdock.cli.main", *words, "-f", str(config)]
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"} | more
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    out, err = await process.communicate()
    return Said(process.returncode or 0, out.decode(), err.decode())


async def registry_of(folder: Path, *versions: str) -> tuple[Path, list[Target]]:
    """A configuration, and what its registry holds."""
    config = folder / "here.yaml"
    places = {"url": str(folder / "registry"), "cache_dir": str(folder / "cache")}
    config.write_text(json.dumps({"registry": places, "state_dir": str(folder / "state")}))
    found = []
    for number, version in enumerate(versions):
        model = write_model(folder / f"model-{version}")
        (model / "sim.json").write_text(json.dumps({"weights": number + 1}))
        alias = ("--alias", "champion") if number == 0 else ()
        said = await inferdock(config, "model", "push", str(model), "--name", "demo", "--version", version, *alias)
        assert said.code == 0, said.err
        registry = open_registry(RegistrySettings(**places), {})
        revision = served(registry.version(Reference.parse(f"demo@{version}")), None, NAME).revision
        found.append(Target(reference=f"demo@{version}", revision=revision, replicas=1))
    return config, found


async def test_the_whole_flow_by_commands(tmp_path: Path) -> None:
    config, (old, new) = await registry_of(tmp_path, "1.0.0", "1.1.0")
    engines = {one.revision: SimOptions(model=NAME, itl_s=0.005, ttft_s=0.02) for one in (old, new)}
    async with service(tmp_path, serves=old, engines=engines) as made:
        where = ("--target=kubernetes", "--kube-api", made.platform.cluster.url, "-n", NS, "--model", NAME)

        def say(*words: str) -> Any:
            return inferdock(config, "release", *words, *where)

        none = await say("status")
        assert none.code == 0, none.err
        assert "No release was made here yet" in none.err
        async with Streams(f"{made.url}/v1/chat/completions", rate=6.0, body=body, judge=lambda *_: "right") as sent:
            await sent.reach(5)
            quick = ("--hold", "2", "--bake", "2", "--weights", "50,100", "--min-requests", "5", "--max-errors", "0.6")
            dry = await say("start", "demo@1.1.0", *quick, "--gates", "health", "--dry-run")
            assert dry.code == 0, dry.err
            assert "demo@1.1.0" in dry.out
            words = ("--gates", "health", "--ttft-p95", "0", "--tpot-p50", "0", "--reason", "a try")
            started = await say("start", "demo@1.1.0", *quick, *words)
            assert started.code == 0, started.err
            assert "completed" in started.err
            back = await say("rollback", "--reason", "a habit")
            assert back.code == 0, back.err
            assert "after the decision" in back.err
            print("\n" + started.err + back.err)

            again = asyncio.create_task(say("start", "demo@1.1.0", *quick, *words, "--bake", "600"))
            await _until_it_bakes(say, again)
            warm = await say("rollback", "--reason", "while it is warm")
            assert warm.code == 0, warm.err
            ended = await again
            assert ended.code == 8, ended.err
            assert "is rolled_back" in ended.err
            print(ended.err[-600:])
            await sent.end()
            assert sent.faults == []
        listed = json.loads((await say("history", "-o", "json")).out)
        came = [(one["kind"], one["state"]) for one in listed]
        assert came == [("release", "completed"), ("rollback", "completed"), ("release", "rolled_back")]
        events = json.loads((await say("history", listed[0]["id"], "-o", "json")).out)
        assert events[0]["reason"] == "a try"
        nothing = await say("abort")
        assert nothing.code != 0
        assert "No release is under way" in nothing.err
    champion = await inferdock(config, "model", "show", "demo@champion", "-o", "json")
    assert "1.0.0" in champion.out


async def _until_it_bakes(say: Any, release: asyncio.Task[Said]) -> None:
    for _ in range(120):
        status = json.loads((await say("status", "-o", "json")).out)
        if status["state"] == "baking":
            return
        assert not release.done(), release.result().err
    raise AssertionError("it never bakes")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--target=kubernetes",), "Give --model NAME"),
        (("--target=kubernetes", "--model", "m", "--port", "80"), "this machine's platform"),
        (("--namespace", "x"), "Give --target kubernetes too"),
        (("--take-over",), "Give --target kubernetes too"),
        (("--target=kubernetes", "--model", "m", "--kube-api", "ftp://x"), "no address of a Kubernetes API"),
        (("--target=kubernetes", "--model", "m", "--kube-api", "http://127.0.0.1:1"), "failed"),
        (("--target=kubernetes", "--model", "m", "-n", "../x", "--kube-api", "http://127.0.0.1:1"), "no name of"),
    ],
)
async def test_what_does_not_go_together_is_said(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    config = tmp_path / "here.yaml"
    config.write_text(json.dumps({"state_dir": str(tmp_path / "state")}))
    said = await inferdock(config, "release", "status", *words)
    assert said.code != 0
    assert says in said.err, said.err
    assert "Traceback" not in said.err


async def test_a_model_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    config, _ = await registry_of(tmp_path, "1.0.0")
    async with cluster_platform() as platform:
        where = ("--target=kubernetes", "--kube-api", platform.cluster.url, "-n", NS, "--model", "nobody")
        said = await inferdock(config, "release", "start", "demo@1.0.0", *where, "--gates", "health")
        assert said.code != 0
        assert "no template for nobody" in said.err, said.err


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
async def test_a_context_of_kubectl_is_enough(tmp_path: Path) -> None:
    config, (old, new) = await registry_of(tmp_path, "1.0.0", "1.1.0")
    async with cluster_platform() as platform:
        await platform.install(old)
        await platform.until_ready(old, 1)
        person = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": platform.cluster.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": NS}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(person))
        where = ("--target=kubernetes", "--kube-context", "here", "--model", NAME, "--gates", "health", "--dry-run")
        said = await inferdock(
            config, "release", "start", "demo@1.1.0", *where, KUBECONFIG=str(tmp_path / "kubeconfig")
        )
        assert said.code == 0, said.err
        assert f"{old.reference} x1 -> {new.reference} x1" in said.out
