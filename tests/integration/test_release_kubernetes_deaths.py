"""Runners in a cluster that are killed by SIGKILL at each line of the journal; the next one brings it to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import pytest

from inferdock.kube.resources import CONFIG_MAPS, PODS
from inferdock.release.drivers.kubernetes.seen import read_weights
from inferdock.release.records.cluster_names import REVISION
from tests.support.cluster_platform import NEW, NS, OLD, TRAFFIC, ClusterPlatform, cluster_platform

CASES = {"release": ("completed", NEW), "abort": ("aborted", OLD), "rollback": ("completed", OLD)}


async def _watched(platform: ClusterPlatform, dark: list[str]) -> None:
    """Note when no revision that gets requests has a ready pod."""
    store = platform.cluster.store
    while True:
        weights = read_weights(store.get(CONFIG_MAPS, NS, TRAFFIC), platform.model)
        ready = {store_pod["metadata"]["labels"][REVISION] for store_pod in store.all(PODS, NS) if _serves(store_pod)}
        if weights and not any(weight and revision in ready for revision, weight in weights.items()):
            dark.append(f"{weights} with {ready}")
        await asyncio.sleep(0.01)


def _serves(pod: dict) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"] and REVISION in pod["metadata"]["labels"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
async def test_whoever_takes_over_brings_the_release_to_its_end(tmp_path: Path, case: str) -> None:
    state, home = CASES[case]
    async with cluster_platform(work={"drain_s": 0.1}) as platform:
        serves = NEW if case == "rollback" else OLD
        await platform.install(serves)
        await platform.until_ready(serves, 2)
        dark: list[str] = []
        watching = asyncio.create_task(_watched(platform, dark))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.cluster_mortal", platform.cluster.url, str(tmp_path), case,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, _ = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 0
        ended = json.loads(out)
        print(f"\n{case}: {len(ended['deaths'])} deaths, {ended['state']}: {ended['outcome']}")
        assert ended["state"] == state, ended["outcome"]
        assert len(ended["deaths"]) >= 12
        seen = await platform.driver().observe()
        assert seen.weights == {home.revision: 100.0}
        assert seen.ready(home.revision) == 2
        champion = json.loads((tmp_path / "champion.json").read_text())["champion_is"]
        assert champion == home.reference
        watching.cancel()
        assert dark == []
