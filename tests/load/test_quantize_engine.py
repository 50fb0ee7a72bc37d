"""A quantised demo model on real vLLM under streams: it goes through gates and canary, a broken one is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from safetensors.torch import load_file, save_file

from tests.docs.pages import ROOT
from tests.support.release_load import UNTIMED, Streams, asked, whole
from tests.support.release_place import Place

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
]

TOKENS = 16
SETTINGS: dict[str, Any] = {
    "engine": {"env": {"OMP_WAIT_POLICY": "PASSIVE"}},
    "gateway": {"replica_drain_timeout_s": 1},
    "drain_timeout_s": 60,
}


def body(number: int) -> dict[str, Any]:
    return asked(f"How do I roll back? ({number})", TOKENS)


def judge(number: int, revision: str, text: str) -> str:
    """Whether a stream is whole."""
    return whole(text, TOKENS)[1] or "right"


def break_scales(folder: Path) -> None:
    """Double every scale: what a loader that takes the wrong range of integers would serve."""
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith(".weight_scale")]:
        weights[name] = weights[name] * 2
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """1.0.0 serves; 1.1.0 is quantised from the same folder, before engines want the processors."""
    place = Place(tmp_path_factory.mktemp("engine"), {"1.0.0": ROOT / "models" / "demo"}, SETTINGS)
    words = ("model", "quantize", "demo", "--group-size", "64", "--name", "m", "--version", "1.1.0", "-o", "json")
    said = await place.run(*words, within_s=300)
    assert said.code == 0, said.err
    linear = json.loads(said.out)["bytes"]["linear"]
    assert linear["after"] <= 0.4 * linear["before"]
    try:
        await place.open(within_s=400)
        yield place
    finally:
        await place.close()


def report(status: dict[str, Any]) -> dict[str, Any]:
    """What the quality gate wrote."""
    verdict = next(one for one in status["verdicts"] if one["gate"] == "quality")
    found: dict[str, Any] = json.loads(Path(verdict["evidence"]["report"]).with_suffix(".json").read_text())
    return found


async def test_the_quantised_model_is_promoted_by_its_gates_and_a_broken_one_refused(place: Place) -> None:
    async with Streams(f"{place.state['url']}/v1/chat/completions", rate=4.0, body=body, judge=judge) as streams:
        await refused(place)
        gates = ("--tasks", "demo", "--weights", "20,100", "--hold", "6", "--bake", "0")
        said = await place.run("release", "start", "m@1.1.0", *UNTIMED, *gates, within_s=700)
        status = await place.status()
    print(json.dumps(report(status)["limits"], indent=1))
    print(f"{len(streams.all)} streams, {len(streams.faults)} failed or cut; {status['outcome']}")
    assert (said.code, await place.champion()) == (0, "1.1.0"), said.err
    assert streams.faults == []
    assert {"1.0.0", "1.1.0"} <= set(Counter(stream.revision.partition("-")[0] for stream in streams.all))
    measured = {row["metric"]: row for row in report(status)["measures"] if not row["group"]}
    assert {"exact", "bleu", "chrf", "kl", "pace"} <= set(measured)
    champion, candidate = (report(status)[side] for side in ("champion", "candidate"))
    assert candidate["weight_bytes"] < 0.5 * champion["weight_bytes"]
    assert candidate["kv_cache_tokens"] == champion["kv_cache_tokens"] > 0  # both have the same setting of its size
    print(json.dumps([measured["pace"], champion, candidate], indent=1))


async def refused(place: Place) -> None:
    """Break the scales of the quantised version, push, release: the quality gate says no, and nothing else changes."""
    broken = place.folder / "broken"
    await place.must("model", "pull", "m@1.1.0", "--to", str(broken))
    break_scales(broken)
    await place.must("model", "push", str(broken), "--name", "m", "--version", "2.0.0")
    before = place.family()
    said = await place.run("release", "start", "m@2.0.0", *UNTIMED, "--tasks", "demo", within_s=700)
    status = await place.status()
    assert said.code == 8, said.err
    assert (place.family(), await place.champion(), status["state"]) == (before, "1.0.0", "aborted")
    assert "exact" in {limit["metric"] for limit in report(status)["limits"] if limit["verdict"] == "fail"}
    print(json.dumps(report(status)["limits"], indent=1))
    shutil.rmtree(broken)
