"""The triggers' queries, by Prometheus' own promtool: they parse, and give the expected number on synthetic series."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from inferdock.telemetry import names
from tests.support.chart import chart_objects
from tests.support.kubernetes_checks import labels, of_kind
from tests.support.kubernetes_scaling_checks import triggers

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")

NAMESPACE = "models"
MODEL = {"models": {"mistral-7b-instruct": None, "m": {"version": "1.0.0", "source": "org/m"}}}


def scaled(**autoscaling):
    engine = {"autoscaling": {"enabled": True, "targetLoadPerReplica": 32, **autoscaling}}
    return {**MODEL, "engine": engine}


AWAKE = scaled(minReplicas=1)
SLEEPS = scaled(minReplicas=0)
FLOOR = scaled(minReplicas=2)
FLOOR["engine"]["spot"] = {"enabled": True, "onDemandFloor": 1}


def series(metric, value, **more):
    """One series of the revision that the chart installs."""
    given = {"namespace": NAMESPACE, "inferdock_io_model": "m", "inferdock_io_revision": "@", **more}
    inside = ",".join(f'{key}="{text}"' for key, text in given.items() if text is not None)
    return {"series": f"{metric}{{{inside}}}", "values": f"{value}+0x10"}


def engines(running, waiting, *, count=1, **more):
    pairs = ((names.ENGINE_RUNNING, running), (names.ENGINE_WAITING, waiting))
    return [series(metric, value, pod=f"p{n}", **more) for n in range(count) for metric, value in pairs]


def gateway(metric, value, **more):
    return series(metric, value, inferdock_io_model=None, inferdock_io_revision=None, pod="g", **more)


WORKERS = gateway(names.WORKERS, 2)
CASES = {
    # The plan's query would say 11 here, and ask for 2 replicas while 5 are busy; 161 / 32 asks for 6.
    "load-counts-what-runs": (
        AWAKE,
        "load",
        [*engines(30, 2, count=5), series(names.ENGINE_WAITING, 1, pod="p9")],
        161,
    ),
    "load-of-this-revision-only": (
        AWAKE,
        "load",
        [*engines(10, 0), *engines(99, 9, inferdock_io_revision="other"), *engines(99, 9, namespace="elsewhere")],
        10,
    ),
    "nothing-known-is-an-error-not-0": (AWAKE, "load", [], None),
    "engines-lost-is-an-error-not-0": (AWAKE, "load", [WORKERS], None),
    "asleep-is-0": (SLEEPS, "load", [WORKERS], 0),
    "asleep-and-prometheus-lost-everything": (SLEEPS, "load", [], None),
    "awake-again": (SLEEPS, "load", [WORKERS, *engines(7, 3)], 10),
    "a-request-waits-for-a-sleeper": (SLEEPS, "held", [WORKERS, gateway(names.WAITING, 3, model="m")], 3),
    "a-request-for-another-model": (SLEEPS, "held", [WORKERS, gateway(names.WAITING, 3, model="n")], 0),
    "kv-cache-is-a-mean": (
        AWAKE,
        "kv-cache",
        [series(names.ENGINE_KV_USAGE, 0.9, pod="a"), series(names.ENGINE_KV_USAGE, 0.7, pod="b")],
        0.8,
    ),
    "kv-cache-of-a-sleeper": (SLEEPS, "kv-cache", [WORKERS], 0),
    "the-floor-carries-its-part": (FLOOR, "load", engines(50, 50), 68),
    "the-floor-carries-everything": (FLOOR, "load", engines(20, 0), 0),
}


def query_of(values, name):
    everything = chart_objects(values, namespace=NAMESPACE)
    (scaler,) = of_kind(everything, "ScaledObject")
    (trigger,) = [one for _, one in triggers(everything) if one["name"] == name]
    return trigger["metadata"]["query"], labels(scaler)["inferdock.io/revision"]


def test_every_query_gives_the_expected_number(tmp_path):
    """All in one run of promtool, which takes longer to start than to calculate."""
    tests = []
    for name, (values, trigger, given, wanted) in CASES.items():
        query, revision = query_of(values, trigger)
        samples = [] if wanted is None else [{"labels": "{}", "value": wanted}]
        inputs = [{**one, "series": one["series"].replace('"@"', f'"{revision}"')} for one in given]
        asked = {"expr": query, "eval_time": "5m", "exp_samples": samples}
        tests.append({"name": name, "interval": "1m", "input_series": inputs, "promql_expr_test": [asked]})
    (tmp_path / "rules.yaml").write_text("groups: []\n")
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
