"""What the gateway of ``inferdock up`` says of the platform in a real ``/metrics``, under load and with a release."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferdock.telemetry import names as n
from inferdock.telemetry.table import PLATFORM
from tests.integration.test_release import UNTIMED, Load, Place

SETTINGS = {
    "autoscaling": {"enabled": True, "max_replicas": 1, "requests_per_replica": 1, "sync_s": 0.5},
    "cost": {"cost_per_hour": 3.6},
    "gateway": {"workers": 2},
}
pytestmark = pytest.mark.timeout(600)
QUICK = ("--gates", "health", "--weights", "20,100", "--hold", "1", "--bake", "1", "--min-requests", "1")
SOON_S = 120.0
"""Of a busy machine nothing is asked but that it comes."""
Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, **SETTINGS)
    try:
        yield made
        assert made.platform.stop() == 0
    finally:
        made.platform.kill()


def samples(place: Place) -> Samples:
    """Name and label values in the table's order, to the value."""
    order = {row.name: row.labels for row in PLATFORM}
    with urllib.request.urlopen(f"{place.platform.url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    kept = [((one.name, tuple(one.labels[key] for key in order[one.name])), one) for one in found if one.name in order]
    assert len({key for key, _ in kept}) == len(kept)
    return {key: one.value for key, one in kept}


def until(place: Place, holds: Callable[[Samples], bool]) -> Samples:
    deadline = time.monotonic() + SOON_S
    while not holds(seen := samples(place)):
        assert time.monotonic() < deadline, seen
        time.sleep(0.5)
    return seen


def total(seen: Samples, name: str) -> float:
    return sum(value for (one, _), value in seen.items() if one == name)


def state(seen: Samples) -> list[str]:
    return [labels[1] for (name, labels), value in seen.items() if name == n.RELEASE_STATE and value == 1]


def test_every_metric_of_the_platform_is_there_and_true(place: Place) -> None:
    load = Load(place.platform.url)
    load.start()
    try:
        before = until(
            place, lambda seen: total(seen, n.COST_DOLLARS) > 0 and (n.AUTOSCALE_SIGNAL, ("m", "requests")) in seen
        )
        assert not any(name.startswith("llm_release_info") for name, _ in before)
        (weight,) = (value for (name, _), value in before.items() if name == n.RELEASE_WEIGHT)
        assert weight == 1
        assert total(before, n.COST_PER_HOUR) == pytest.approx(3.6, rel=0.02)  # the price that was given
        assert before[n.AUTOSCALE_BOUND, ("m", "max")] == 1
        done = place.run("release", "start", "m@1.1.0", *QUICK, *UNTIMED)
        assert done.returncode == 0, done.stderr
        after = until(place, lambda seen: state(seen) == ["completed"])
        verdicts = {labels[1:]: v for (name, labels), v in after.items() if name == n.RELEASE_VERDICTS}
        judged = [one["entry"] for one in place.history() if one["entry"]["what"] == "judged"]
        assert verdicts == Counter((one["gate"], one["verdict"]) for one in judged)
        assert after[n.RELEASE_STEPS, ("m",)] == after[n.RELEASE_STEPS_DONE, ("m",)]
        back = place.run("release", "rollback", "--reason", "worse")
        assert back.returncode == 0, back.stderr
        # The autoscaler's signal comes back when the release has let the replicas of the other revision go.
        all_of_it = {row.name for row in PLATFORM}
        last = until(place, lambda seen: state(seen) == ["completed"] and all_of_it == {name for name, _ in seen})
        assert last[n.RELEASE_ROLLBACKS, ("m", "rollback")] == 1
        assert last[n.RELEASE_FLIP, ("m",)] == pytest.approx(place.status()["flip_seconds"])
        (info,) = (labels for name, labels in last if name == n.RELEASE_INFO)
        assert info[2:5] == ("rollback", "m@1.1.0", "m@1.0.0")
    finally:
        load.end()
