"""Checks of phase 4 but for the response cache: they pass on what is right, and fail on each thing that is not."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inferdock.app.verify import chart, phase4, quantised, releases, spending
from inferdock.app.verify.cluster import name_of
from inferdock.app.verify.phase4 import CHECKS
from inferdock.app.verify.target import Target
from inferdock.domain.verdict import Verdict
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.chart import CHART, ROOT
from tests.support.gateway import running_gateway
from tests.support.verify_scripts import (
    REVISION,
    ScriptedCluster,
    ScriptedPlatform,
    evidence,
    lone_target,
    outcome,
    served,
    thing,
)

# -- 4.1 -------------------------------------------------------------------------------------------------------------


def _version(version: str, revision: str, weights: int, parent: str | None = None) -> dict[str, Any]:
    facts = {"weight_bytes": weights, "quantization": {"method": "awq"} if parent else None}
    made = {"made_from": {"revision": parent}} if parent else {}
    return {
        "name": "m",
        "version": version,
        "revision": revision,
        "content": {"facts": facts},
        "provenance": {"pushed_by": "me", **made},
    }


PARENT = _version("0.9.0", "f" * 64, 1000)
SERVED = REVISION.rpartition("-")[2] + "0" * 52
"""Of the revision that the scripted platform serves."""


def _registry(monkeypatch: pytest.MonkeyPatch, *versions: dict[str, Any]) -> None:
    async def say(*words: Any) -> Any:
        if words[:2] == ("model", "list"):
            return list(versions) if len(words) > 2 else [{"name": "m"}] if versions else []
        return next(one for one in versions if words[2] == f"m@{one['version']}")

    monkeypatch.setattr(quantised, "inferdock_json", say)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([PARENT, _version("1.0.0", SERVED, 550, parent="f" * 64)], "pass"),
        ([PARENT, _version("1.0.0", SERVED, 700, parent="f" * 64)], "fail"),
        ([PARENT], "needs"),
        ([_version("1.0.0", SERVED, 550, parent="f" * 64)], "needs"),
        ([], "needs"),
    ],
)
async def test_quantised_weights_are_compared_with_their_parents(monkeypatch, versions, expected: str):
    _registry(monkeypatch, *versions)
    async with lone_target() as target:
        assert await outcome(CHECKS, "4.1.weights", target) == expected


@pytest.mark.parametrize(("log", "expected"), [("3.88 GiB", "pass"), ("14.2 GiB", "fail"), ("", "fail")])
async def test_a_quantised_version_answers_and_is_small(monkeypatch, tmp_path, log: str, expected: str):
    _registry(monkeypatch, PARENT, _version("1.0.0", SERVED, 550, parent="f" * 64))
    (tmp_path / "log").write_text(f"INFO Model loading took {log} memory and 3 seconds\n")
    (tmp_path / "state.json").write_text(json.dumps({"model": "m", "replicas": [{"log": str(tmp_path / "log")}]}))
    async with served(ScriptedPlatform(), state=tmp_path / "state.json") as target:
        assert await outcome(CHECKS, "4.1.loads", target) == "pass"
        assert await outcome(CHECKS, "4.1.memory", target) == expected
    async with served(ScriptedPlatform(refuses=500), state=tmp_path / "state.json") as target:
        assert await outcome(CHECKS, "4.1.loads", target) == "fail"
    _registry(monkeypatch, PARENT)
    async with served(ScriptedPlatform(), state=tmp_path / "state.json") as target:
        assert await outcome(CHECKS, "4.1.loads", target) == "needs"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [([Verdict.PASS], "pass"), ([Verdict.PASS, Verdict.FAIL], "fail"), ([Verdict.INCONCLUSIVE], "fail"), ([], "needs")],
)
async def test_the_quality_gate_has_the_word(monkeypatch, verdicts: list[Verdict], expected: str):
    _registry(monkeypatch, PARENT, _version("1.0.0", SERVED, 550, parent="f" * 64))
    plan = SimpleNamespace(id="1", to=SimpleNamespace(revision=REVISION, reference="m@1.0.0"))

    async def kept(_: Target) -> list[Any]:
        return [SimpleNamespace(plan=plan)]

    monkeypatch.setattr(releases, "kept", kept)
    monkeypatch.setattr(releases, "verdicts", lambda *_: [SimpleNamespace(verdict=one) for one in verdicts])
    async with lone_target() as target:
        assert await outcome(CHECKS, "4.1.quality", target) == expected


# -- 4.1 and 4.2 in the checkout -------------------------------------------------------------------------------------


async def test_what_looks_into_a_checkout_passes_here():
    pytest.importorskip("helm_python")
    async with lone_target(checkout=ROOT) as target:
        for name in ("4.1.values", "4.2.agreed", "4.2.notice", "4.2.price", "4.4.panels"):
            assert await outcome(CHECKS, name, target) == "pass", name


@pytest.fixture
def other_chart(tmp_path) -> Callable[[str, str], Path]:
    """A checkout whose production values have one text in another's place."""

    def make(old: str, new: str) -> Path:
        shutil.copytree(CHART, tmp_path / "helm" / CHART.name)
        path = tmp_path / "helm" / CHART.name / chart.PRODUCTION
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        (tmp_path / "terraform").symlink_to(ROOT / "terraform")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("quantization: awq_marlin", "quantization: null", "4.1.values"),
        ("instanceTypes: [g5.xlarge, g6.xlarge]", "instanceTypes: [g5.xlarge, g4dn.xlarge]", "4.2.agreed"),
        ("enabled: true\n    onDemandFloor: 1", "enabled: false", "4.2.agreed"),
    ],
)
async def test_other_production_values_are_found_out(other_chart, old: str, new: str, name: str):
    pytest.importorskip("helm_python")
    async with lone_target(checkout=other_chart(old, new)) as target:
        found = await evidence(CHECKS, name, target)
    assert found.outcome.value == "fail", found


POD = {
    "tolerations": [{"key": "spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"preference": {"matchExpressions": [{"key": "here", "operator": "In", "values": ["SPOT"]}]}}
            ]
        }
    },
}
NODES = 'spot_taint = { key = "spot", value = "true", effect = "NO_SCHEDULE" }\n  "here" = "x"\n'


@pytest.mark.parametrize(
    ("tolerations", "terraform", "said"),
    [
        (POD["tolerations"], NODES, ""),
        ([], NODES, "do not bear the taint spot"),
        ([{"key": "spot", "value": "false"}], NODES, "do not bear the taint spot"),
        ([{"operator": "Exists"}], NODES, ""),
        (POD["tolerations"], NODES.replace('"here" =', '"there" ='), "No node has the label here"),
        (POD["tolerations"], "", "no taints"),
    ],
)
def test_pods_and_nodes_must_fit(tolerations: Any, terraform: str, said: str):
    faults = phase4.node_faults({**POD, "tolerations": tolerations}, terraform)
    assert (said in " ".join(faults)) if said else faults == []


async def test_prices_that_save_too_little_are_told(monkeypatch):
    pytest.importorskip("helm_python")
    rows = {"a": SimpleNamespace(instance_type="g5.xlarge", spot=0.9, on_demand=1.0)}
    monkeypatch.setattr(phase4, "shipped", lambda: SimpleNamespace(prices=rows))
    async with lone_target(checkout=ROOT) as target:
        assert await outcome(CHECKS, "4.2.price", target) == "fail"
        rows.clear()
        assert await outcome(CHECKS, "4.2.price", target) == "fail"


def _node(name: str, capacity: str) -> dict[str, Any]:
    made = thing(name)
    made["metadata"]["labels"] = {"eks.amazonaws.com/capacityType": capacity}
    return made


def _board(label: str = "grafana_dashboard") -> dict[str, Any]:
    made = thing("boards", "monitoring")
    made["metadata"]["labels"][label] = "1"
    return {**made, "data": {"cost.json": "{}"}}


ON_A_CLUSTER = ("4.2.there", "4.2.scheduled", "4.3.redis-there", "4.4.grafana")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        ({"nodes": [_node("n", "ON_DEMAND")]}, {"4.2.there": "fail", "4.2.scheduled": "fail"}),
        ({"pods": [thing("p", "engine", spec={"nodeName": "other"})]}, {"4.2.scheduled": "fail"}),
        ({"deployments": [thing("d", "redis")]}, {"4.3.redis-there": "fail"}),
        ({"deployments": []}, {"4.3.redis-there": "needs"}),
        ({"configmaps": [_board("other")]}, {"4.4.grafana": "fail"}),
        ({"configmaps": []}, {"4.4.grafana": "needs"}),
    ],
)
async def test_a_cluster_is_asked(changed: dict[str, Any], expected: dict[str, str]):
    objects = {
        "nodes": [_node("n", "SPOT")],
        "pods": [thing("p", "engine", spec={"nodeName": "n"})],
        "deployments": [thing("d", "redis", conditions=["Available"])],
        "configmaps": [_board()],
    }
    cluster = ScriptedCluster(objects=objects | changed)
    async with lone_target(cluster=cluster, release="r") as target:
        found = {name: await outcome(CHECKS, name, target) for name in ON_A_CLUSTER}
    assert found == dict.fromkeys(ON_A_CLUSTER, "pass") | expected
    assert name_of(objects["nodes"][0]) == "n"


# -- 4.4 -------------------------------------------------------------------------------------------------------------

BOARD = json.loads((ROOT / spending.BOARD).read_text())
RULES = spending.recorded(ROOT)


def _with_query(query: str) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(BOARD)
    made["panels"][0]["targets"][0]["expr"] = query
    return made


def test_the_dashboard_is_without_fault():
    assert spending.board_faults(BOARD, RULES) == []


@pytest.mark.parametrize(
    ("board", "rules", "said"),
    [
        ({"panels": BOARD["panels"][1:]}, RULES, "no panel 'Cost per 1M tokens'"),
        (
            _with_query("sum(vllm:avg_generation_throughput_toks_per_s)"),
            RULES,
            "vllm:avg_generation_throughput_toks_per_s",
        ),
        (_with_query("llm_made_up_total"), RULES, "llm_made_up_total"),
        (BOARD, {}, "Nobody exports inferdock:cost_blended"),
    ],
)
def test_a_broken_dashboard_is_told(board: dict[str, Any], rules: dict[str, str], said: str):
    assert any(said in fault for fault in spending.board_faults(board, rules))


FED = "llm_gateway_tenant_tokens_total 1\nllm_gateway_replica_seconds_total 1\n"
CACHED = "llm_cache_requests_total 1\nllm_cache_hits_total 1\n"


@pytest.mark.parametrize(
    ("cache", "text", "expected"),
    [
        (["miss", "hit exact"], FED + CACHED, "pass"),
        (["miss", "hit exact"], FED, "fail"),
        (None, FED, "pass"),
        (None, CACHED, "fail"),
    ],
)
async def test_the_panels_are_fed(cache: list[str] | None, text: str, expected: str):
    async with served(ScriptedPlatform(cache=cache, metrics=[text]), checkout=ROOT) as target:
        assert await outcome(CHECKS, "4.4.data", target) == expected


ENGINE = "vllm:num_requests_running 0\nvllm:gpu_prefix_cache_queries_total 1\nvllm:prefix_cache_hits_total 1\n"


@pytest.mark.parametrize(
    ("text", "replicas", "expected"),
    [
        (ENGINE, ["a"], "pass"),
        (ENGINE.replace("vllm:prefix_cache_hits_total", "vllm:hits"), ["a"], "fail"),
        (ENGINE, [], "fail"),
    ],
)
async def test_engines_feed_the_panels(monkeypatch, text: str, replicas: list[str], expected: str):
    async def said(*_: Any) -> str:
        return text

    monkeypatch.setattr(spending, "metrics_text", said)
    async with served(ScriptedPlatform(replicas=replicas), checkout=ROOT) as target:
        assert await outcome(CHECKS, "4.4.engine-data", target) == expected


def _bill(**changed: Any) -> dict[str, Any]:
    """A second at $3,600 an hour, and 1,000 tokens of which 400 come from the prefix cache."""
    tokens = {"prompt": 500, "cached": 400, "output": 100}
    return {"tokens": tokens, "dollars": 1.0, "dollars_per_million": {"blended": 1000.0}} | changed


@pytest.mark.parametrize(
    ("changed", "ours", "expected"),
    [
        ({}, 1000, "pass"),
        ({}, 900, "pass"),
        ({"dollars": 1.01, "dollars_per_million": {"blended": 1010.0}}, 1000, "pass"),
        ({}, 1100, "fail"),
        ({"dollars": 1.05}, 1000, "fail"),
        ({"dollars_per_million": {"blended": 1000.0 * 3600}}, 1000, "fail"),
        ({"dollars_per_million": {"blended": None}}, 1000, "fail"),
        ({"tokens": {"prompt": 0, "cached": 0, "output": 0}}, 1000, "fail"),
    ],
)
def test_the_bill_is_held_against_a_calculation_by_hand(changed: dict[str, Any], ours: int, expected: str):
    assert spending.judged_bill(_bill(**changed), Fraction(1), 3600.0, ours).outcome.value == expected


async def test_the_bill_of_a_real_gateway_is_right(monkeypatch):
    monkeypatch.setattr(spending, "WINDOW_S", 0.5)
    async with running_sim(SimOptions(model="sim", itl_s=0.001)) as sim, lone_target() as lone:
        async with running_gateway([sim.url]) as gateway:
            target = Target(
                url=gateway.url, admin_url=gateway.admin_url, model="sim", http=lone.http, cost_per_hour=1.0
            )
            found = await evidence(CHECKS, "4.4.cost", target)
            assert found.outcome.value == "pass", found
        assert await outcome(CHECKS, "4.4.cost", lone) == "needs"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: apt-get install prometheus)")
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", ("pass", "pass")),
        ("tokens > 1\n", "tokens > 3600\n", ("pass", "fail")),
        ("tokens > 1\n", "tokens > 0.1\n", ("pass", "fail")),
        ("tokens > 1\n", "tokens > (\n", ("fail", "fail")),
    ],
)
async def test_rules_and_alert(tmp_path, old: str, new: str, expected: tuple[str, str]):
    shutil.copytree(ROOT / spending.RULES, tmp_path / spending.RULES)
    path = tmp_path / spending.RULES / "alerts.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    async with lone_target(checkout=tmp_path) as target:
        assert tuple([await outcome(CHECKS, name, target) for name in ("4.4.rules", "4.4.alert")]) == expected


async def test_what_only_the_bill_knows_says_so():
    async with lone_target() as target:
        found = await evidence(CHECKS, "4.2.billed", target)
    assert found.outcome.value == "needs"
    assert "Cost Explorer" in found.sentence
