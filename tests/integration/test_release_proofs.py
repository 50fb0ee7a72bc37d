"""What must not come into service does not: each kind of bad version is stopped by its gate, with the evidence kept.

Meanwhile streams come in at a steady rate, and what serves is as it was: the same processes, the same champion, all of
the traffic, and no request failed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.test_up_registry import flip
from tests.support.model_folders import write_model
from tests.support.release_load import Streams, Watcher
from tests.support.release_place import Place

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

RATE = 25.0
SETTINGS: dict[str, Any] = {
    "engine": {"kind": "sim", "sim": {"ttft_s": 0.02, "itl_s": 0.005}, "restart_backoff_s": 0.1},
    "gateway": {"replica_drain_timeout_s": 1},
    "drain_timeout_s": 30,
}
WORDS = (
    *("--gates", "health,smoke", "--weights", "50,100", "--hold", "2", "--hold-limit", "90", "--min-requests", "10"),
    *("--max-errors", "0.3", "--ttft-p95", "1.5", "--tpot-p50", "0"),
)
AFTER_THE_PROBE = "status:500@2"
"""The first request is the platform's own, before a replica counts as ready."""
VERSIONS: dict[str, dict[str, Any]] = {
    "1.0.0": {},
    "1.1.0": {"ttft_s": 3.0},
    "1.2.0": {"faults": ["noload"]},
    "1.3.0": {"faults": [AFTER_THE_PROBE]},
    "1.4.0": {"weights": 4},
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a version is stopped.

    Attributes:
        version: that is bad.
        gate: whose verdict it is, "" where it fails at a step before any gate.
        says: part of the reason.
        evidence: whether the evidence of the verdict is what it must be.
        traffic: whether it had some before.
    """

    version: str
    gate: str
    says: str
    evidence: Callable[[dict[str, Any]], bool] = lambda found: True
    traffic: bool = False


def breaks_ttft(found: dict[str, Any]) -> bool:
    """The whole interval lies beyond the limit."""
    of = {limit["limit"]: limit for limit in found["limits"]}
    return any(of[name]["verdict"] == "fail" and of[name]["low"] > of[name]["allowed"] for name in of if "ttft" in name)


REFUSALS = {
    "a slow one by the figures": Refusal("1.1.0", "slo", "ttft", breaks_ttft, traffic=True),
    "one that does not start": Refusal("1.2.0", "", "m@1.2.0 does not start"),
    "one that fails real requests by the health gate": Refusal(
        "1.3.0", "health", "answered a request with 500", lambda found: len(found["replicas"]) == 1
    ),
    "one with a flipped bit before anything starts": Refusal(
        "1.4.0", "digests", "sim.json", lambda found: list(found["faults"]) == ["sim.json"]
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("refusals")
    models = {}
    for version, traits in VERSIONS.items():
        models[version] = write_model(folder / f"model-{version}")
        (models[version] / "sim.json").write_text(json.dumps(traits))
    place = Place(folder, models, SETTINGS)
    try:
        await place.open(within_s=90)
        flip(folder / "registry" / "models" / "m" / "v1.4.0" / "sim.json", 3)
        yield place
    finally:
        await place.close()


def body(number: int) -> dict[str, Any]:
    return {"model": "m", "prompt": f"number {number}", "max_tokens": 8, "temperature": 0, "stream": True}


def judge(number: int, revision: str, text: str) -> str:
    return "right" if text.endswith("data: [DONE]\n\n") and '"error"' not in text else text[-300:]


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_a_bad_version_is_stopped_and_the_champion_untouched(place: Place, refusal: Refusal) -> None:
    before = place.family()
    async with Watcher(Path(place.state["control"])) as watcher:
        async with Streams(f"{place.state['url']}/v1/completions", rate=RATE, body=body, judge=judge) as streams:
            said = await place.run("release", "start", f"m@{refusal.version}", *WORDS)
            status = await place.status()
    assert said.code == 8, said.err
    assert status["state"] == "aborted"
    assert refusal.says in status["outcome"]
    assert refusal.says in said.err
    check_evidence(status, refusal)
    events = json.loads(await place.must("release", "history", status["id"], "-o", "json"))
    assert any(refusal.says in event["reason"] for event in events)
    # The champion: the same processes, name and traffic; nobody noticed.
    assert (place.family(), await place.champion()) == (before, "1.0.0")
    assert streams.faults == []
    served = Counter(stream.revision.partition("-")[0] for stream in streams.all)
    assert set(served) == ({"1.0.0", refusal.version} if refusal.traffic else {"1.0.0"})
    assert all(look.serves for look in watcher.looks)
    assert {name.partition("-")[0] for name, share in watcher.looks[-1].shares.items() if share > 0} == {"1.0.0"}
    if refusal.gate == "digests":
        assert all(len(look.ready) == 1 for look in watcher.looks), "something was started"
    print(f"{refusal.version}: {dict(served)}; {status['outcome']}")


def check_evidence(status: dict[str, Any], refusal: Refusal) -> None:
    """The verdict of the gate and what it rests on, in what a person can ask for."""
    failed = [verdict for verdict in status["verdicts"] if verdict["verdict"] == "fail"]
    assert [verdict["gate"] for verdict in failed] == ([refusal.gate] if refusal.gate else [])
    for verdict in failed:
        assert refusal.says in verdict["reason"]
        assert refusal.evidence(verdict["evidence"]), verdict["evidence"]
