"""The errata of the plan that touch no Kubernetes object: a check that fails on the plan's fault and passes on ours.

`plan_samples/` holds the faults, shortened. The errata of chart, images and nodes are in ``tests/deploy`` and
``tests/terraform``; ``test_errata_covered`` has the list of all.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import yaml

from inferdock.bench.arrivals import poisson
from inferdock.cache.flat_index import FlatIndex
from inferdock.cache.packing import to_row
from inferdock.domain.errors import ConflictError, InferdockError
from inferdock.evaluation.metrics import passes
from inferdock.evaluation.tasks import Regex, Task
from inferdock.evaluation.texts import Texts
from inferdock.registry.filesystem import FilesystemStore
from inferdock.registry.manifest import decode, encode
from inferdock.registry.names import Version
from inferdock.release.steps import Shift, Start
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.deploy.test_prometheus_rules import cost, gives, grows, promtool, stays
from tests.docs.pages import ROOT
from tests.docs.test_workflows import RELEASE, read
from tests.load.test_autoscaling import Answer, Record
from tests.support.gateway import running_gateway
from tests.support.registry_values import manifest_of, push, write
from tests.support.registry_values import read as read_file
from tests.support.releases import OLD, rollback

SAMPLES = Path(__file__).with_name("plan_samples")
SAMPLE: dict[str, Any] = yaml.safe_load((SAMPLES / "load.yaml").read_text())
METRICS = json.loads((ROOT / "tests/contract/engine/recordings/vllm-0.32.0.json").read_text())["metrics"]
"""What a real vLLM 0.32 shows under /metrics."""
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")


def sent_in(seconds: float, arrivals: Iterator[float]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda at: at < seconds, arrivals))


def test_30_a_slow_server_gets_less_of_the_plans_load_and_all_of_ours():
    """Users who wait for their answer send the less the slower it comes, so an overload does not show."""
    plan = [50 / (latency_s + SAMPLE["think_s"]) for latency_s in (0.5, 10.0)]
    assert plan[1] < plan[0] / 10
    ours = [sent_in(60, poisson(60, random.Random(1))) for _ in (0.5, 10.0)]
    assert ours[0] == ours[1] > 60 * 50


def test_30_the_plans_request_shows_no_time_to_the_first_token_and_ours_does():
    assert "stream" not in SAMPLE["request"]
    record = Record([], [Answer(0.0, 0.2, ""), Answer(1.0, None, "broken stream: end")])
    assert (record.summary()["ttft_p95_s"], record.summary()["dropped"]) == (0.2, 1)
    assert '"stream": True' in (ROOT / "tests/load/test_autoscaling.py").read_text()


def gone_metrics(expression: str) -> list[str]:
    """Names in a query that the engine does not have, unless one that it has stands beside them for it."""
    names = re.findall(r"vllm:[a-z_]+", expression)
    there = [name for name in names if name in METRICS or re.sub(r"_(bucket|count|sum)$", "", name) in METRICS]
    return sorted(set(names) - set(there)) if not there or " or " not in expression else []


def our_expressions() -> Iterator[str]:
    for path in (ROOT / "prometheus/rules").glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from (rule["expr"] for rule in group["rules"])
    for path in (ROOT / "grafana/dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            yield from (target["expr"] for target in panel.get("targets", ()))


def test_31_the_plan_names_a_metric_that_is_gone_and_we_none():
    assert gone_metrics(" + ".join(SAMPLE["metrics"])) == ["vllm:avg_generation_throughput_toks_per_s"]
    ours = list(our_expressions())
    assert any("vllm:inter_token_latency_seconds" in expression for expression in ours)
    assert [gone for expression in ours for gone in gone_metrics(expression)] == []


def conditions_left_out(result: dict[str, Any]) -> set[str]:
    """What a figure for throughput says nothing without."""
    said = {**result.get("configuration", {}), **result.get("machine", {})}
    return {"model", "prompt_tokens", "output_tokens", "loads", "cpus"} - said.keys()


def test_32_the_plans_targets_disagree_and_name_no_conditions_ours_name_all():
    assert len(set(SAMPLE["targets"].values())) == 2
    assert conditions_left_out(SAMPLE["targets"]) == {"model", "prompt_tokens", "output_tokens", "loads", "cpus"}
    assert conditions_left_out(json.loads((ROOT / "bench/results/migration.json").read_text())) == set()


def module() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "terraform/model-registry").glob("*.tf"))


def old_blocks(text: str) -> list[str]:
    """What AWS provider 4 took out of `aws_s3_bucket`."""
    bucket = re.search(r'^resource "aws_s3_bucket" .*?^}', text, re.MULTILINE | re.DOTALL)
    assert bucket
    blocks: list[str] = re.findall(r"^  (versioning|server_side_encryption_configuration) \{", bucket[0], re.MULTILINE)
    return blocks


def test_33_the_plans_bucket_has_blocks_that_are_gone_and_ours_has_their_successors():
    sample = (SAMPLES / "registry.tf").read_text()
    parts = ("versioning", "server_side_encryption_configuration", "public_access_block", "lifecycle_configuration")
    assert old_blocks(sample) == ["versioning", "server_side_encryption_configuration"]
    assert not any(f'"aws_s3_bucket_{part}"' in sample for part in parts)
    assert old_blocks(module()) == []
    assert all(f'"aws_s3_bucket_{part}"' in module() for part in parts)
    assert "aws:SecureTransport" in module()


def faults_of_table(text: str) -> list[str]:
    found = []
    declared = set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))
    if set(re.findall(r"var\.(\w+)", text)) - declared:
        found.append("undeclared variable")
    if re.search(r'resource "aws_dynamodb_table".*?\n  name +=\s+"', text, re.DOTALL):
        found.append("one name for all environments")
    if "point_in_time_recovery" not in text:
        found.append("nothing to set back")
    if "version_order" not in text:
        found.append("1.10.0 before 1.9.0")
    return found


def test_34_the_plans_table_is_wrong_in_four_ways_and_ours_in_none():
    assert len(faults_of_table((SAMPLES / "registry.tf").read_text())) == 4
    assert faults_of_table(module()) == []
    versions = ["1.10.0", "1.9.0", "2.0.0-rc.1", "2.0.0"]
    assert sorted(versions)[0] == "1.10.0", "as the plan's range key has them"
    ordered = sorted(versions, key=lambda text: Version.parse(text).order)
    assert ordered == ["1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0"]


SHARDS = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"a" * 100,
    "model-00002-of-00002.safetensors": b"b" * 100,
    "tokenizer/tokenizer.json": b"{}",
}


def upload_as_the_plan(folder: Path, table: dict[str, str], version: str) -> None:
    """Its steps: one file of weights, every entry read as a file, twelve digits, the item put whatever is there."""
    weights = (folder / "model.safetensors").read_bytes()
    for entry in folder.iterdir():
        entry.read_bytes()
    table[version] = f"{hash(weights):x}"[:12]


def test_35_the_plans_upload_knows_one_file_and_overwrites_ours_keeps_every_file_for_good(tmp_path):
    sharded, flat = write(tmp_path / "sharded", SHARDS), write(tmp_path / "flat", {"model.safetensors": b"x"})
    table = {"1.0.0": "released"}
    with pytest.raises(FileNotFoundError):
        upload_as_the_plan(sharded, table, "1.0.0")
    upload_as_the_plan(flat, table, "1.0.0")
    assert table["1.0.0"] != "released"

    store = FilesystemStore(tmp_path / "store")
    push(store, manifest_of(SHARDS), sharded)
    assert read_file(store, "tokenizer/tokenizer.json") == b"{}"
    assert all(len(entry.sha256) == 64 for entry in manifest_of(SHARDS).content.files)
    other = {**SHARDS, "config.json": b'{"other": 1}'}
    with pytest.raises(ConflictError):
        push(store, manifest_of(other), write(tmp_path / "other", other))
    assert read_file(store, "config.json") == b"{}"


def test_36_the_plan_keeps_a_tag_that_was_never_pushed_we_keep_digests_only():
    assert SAMPLE["image"] != SAMPLE["pushed"]
    document = json.loads(encode(manifest_of(SHARDS)))
    for image in (SAMPLE["image"], SAMPLE["pushed"]):
        document["content"]["engine"] = {"arguments": [], "image": image}
        with pytest.raises(InferdockError, match="image"):
            decode(json.dumps(document, sort_keys=True, separators=(",", ":")).encode(), what="the manifest")


def status_by_jq(body: bytes) -> bytes:
    """What the plan's pipe makes of an answer to /health."""
    line = next(line for line in (SAMPLES / "rollback.sh").read_text().splitlines() if "jq" in line)
    pipe = line.rpartition("| ")[2].removesuffix(")")
    return subprocess.run(["sh", "-c", pipe], input=body, capture_output=True, timeout=20, check=True).stdout


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
async def test_37_the_plan_takes_a_healthy_engine_for_sick_and_we_do_not():
    """The body is empty in vLLM too: ``tests/contract/engine`` compares both."""
    async with running_sim(SimOptions()) as engine, running_gateway([engine.url]) as gateway:
        async with aiohttp.ClientSession() as http, http.get(f"{engine.url}/health") as response:
            status, body = response.status, await response.read()
        assert (status, status_by_jq(body)) == (200, b"")
        await gateway.until_ready(1)


def slow_parts(script: str) -> list[str]:
    """What cannot go back within a minute, or asks the wrong pod."""
    patience = [int(seconds) for seconds in re.findall(r"--timeout=(\d+)s", script)]
    found = ["another image has to be pulled and loaded"] if "set image" in script else []
    found += ["waits longer than it promises"] if any(seconds > 60 for seconds in patience) else []
    return found + (["asks the pod that may be leaving"] if "items[0]" in script else [])


def test_38_the_plans_rollback_loads_first_and_ours_moves_the_traffic_first():
    assert len(slow_parts((SAMPLES / "rollback.sh").read_text())) == 3
    assert slow_parts((ROOT / "scripts/rollback.sh").read_text()) == []
    steps = rollback().steps
    first = next(n for n, step in enumerate(steps) if isinstance(step, Shift))
    assert steps[first].weights == {OLD.revision: 1.0}
    assert {type(step) for step in steps[:first]} <= {Start}, "which finds it ready where it is still warm"


def faults_of_workflow(path: Path) -> list[str]:
    workflow = read(path)
    jobs = workflow["jobs"].values()
    text = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
    built, pushed = re.findall(r"build -t (\S+)", text), re.findall(r"docker push (\S+)", text)
    environment = {name for job in jobs for name in {**workflow.get("env", {}), **job.get("env", {})}}
    return [
        fault
        for fault, there in {
            "pushes a name that was never tagged": bool(set(pushed) - set(built)),
            "a registry that nobody defines": "$ECR_REGISTRY" in text and "ECR_REGISTRY" not in environment,
            "waits a guessed time": "sleep " in text,
            "no approval": not any("environment" in job for job in jobs),
            "two at once": "concurrency" not in workflow,
            "no login": not any("id-token" in job.get("permissions", {}) for job in jobs),
            "by tag": "digest" not in text,
        }.items()
        if there
    ]


def test_39_the_plans_pipeline_is_wrong_in_seven_ways_and_ours_in_none():
    assert len(faults_of_workflow(SAMPLES / "model-release.yaml")) == 7
    assert faults_of_workflow(RELEASE) == []


def test_42_the_plans_bleu_passes_wrong_answers_and_a_check_of_the_task_does_not():
    """One digit of a long answer: BLEU is within two per cent, and the answer is wrong."""
    texts = Texts()
    steps = " ".join(f"step {number} adds {number} to the sum," for number in range(40))
    right, wrong = f"{steps} so the sum is 42", f"{steps} so the sum is 41"
    assert texts.bleu(texts.bleu_counts(wrong, right)) > 98
    check = Regex(pattern=r"sum is 42$")
    task = Task(id="sum", prompt="What is the sum?", checks=(check,))
    assert passes(check, task, right, texts)
    assert not passes(check, task, wrong, texts)


def key_as_the_plan(vector: np.ndarray[Any, Any]) -> bytes:
    return (vector * 100).astype(int).tobytes()


def near(vector: np.ndarray[Any, Any], cosine: float, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """A unit vector at this cosine."""
    other = rng.standard_normal(len(vector))
    other -= other @ vector * vector
    return cosine * vector + float(np.sqrt(1 - cosine**2)) * other / np.linalg.norm(other)


def test_47_the_plans_key_never_finds_a_similar_prompt_and_our_index_always_does():
    rng = np.random.default_rng(7)
    index, plan, found = FlatIndex(), 0, 0
    for number in range(200):
        vector = rng.standard_normal(384)
        vector /= np.linalg.norm(vector)
        index.add(str(number).encode(), to_row(vector.astype(np.float32)))
        again = near(vector, 0.97, rng).astype(np.float32)
        plan += key_as_the_plan(again) == key_as_the_plan(vector)
        ((key, cosine), *_) = sorted(index.search(again, to_row(again), 1), key=lambda one: -one[1])
        found += key == str(number).encode() and cosine > 0.95
    assert (plan, found) == (0, 200)


@needs_promtool
def test_48_the_plans_cost_is_3600_times_too_high_and_ours_is_right(tmp_path):
    """One replica at $1 an hour, 600,000 prompt and 600,000 output tokens a minute: 72 million an hour, $0.013889."""
    right = 1e6 / 72e6
    engine = [
        grows(name, {"model_name": "m"}, 600_000)
        for name in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    ]
    price = stays("inferdock:replica_price:dollars_per_hour", {"source": "ours"}, 1.0)
    asked = [
        gives(f"round({SAMPLE['cost_per_million']}, 1e-3)", "{}", round(3600 * right, 3)),
        gives("round(inferdock:cost_blended:dollars_per_million_tokens, 1e-6)", '{model="m"}', round(right, 6)),
    ]
    given = [price, *engine, *cost(replicas=1, prompt=600_000, output=600_000)]
    assert promtool(tmp_path, [{"interval": "1m", "input_series": given, "promql_expr_test": asked}]) == ""
