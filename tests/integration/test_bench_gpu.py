"""``python -m bench.gpu`` as a command: the whole of it against simulated engines, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench.servers import answers, free_port

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "bench" / "results" / "gpu-cpu-form.json"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


@pytest.mark.alone
def test_the_whole_benchmark_runs_on_simulated_engines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before <!-- gpu figures -->old<!-- end of gpu figures --> after")
    cheap = ("--minutes", "0.05", "--pairs", "2", "--dollars-per-hour", "3.6")
    result = run("--form", "sim", *cheap, "--out", str(tmp_path), "--page", str(page))
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "gpu-sim-form.json").read_text())
    assert set(document["weights"]) == {"bf16", "awq"}
    for part in document["weights"].values():
        for side in part["sides"].values():
            assert side["knee_rate"]
            assert [one["verdict"] for one in side["criteria"]][2:] == ["pass", "pass"]  # speed is the machine's
            for step in side["steps"]:
                summary = step["summary"]
                assert (summary["errors"], summary["output_tokens"]) == ({}, 8 * summary["requests"])
        assert part["gateway_share"]["ttft_p50_s"]["pairs"] == 2
    assert "not evidence" in result.stdout
    assert page.read_text() == f"before <!-- gpu figures -->\n{result.stdout[:-1]}<!-- end of gpu figures --> after"
    assert str(ROOT) not in json.dumps(document)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 5, "--form cpu"),
        (("--form", "sim", "--weights", "int3"), 3, "bf16 or awq"),
        (("--form", "sim", "--output-tokens", "5000"), 3, "--output-tokens"),
        (("--form", "sim", "--minutes", "0"), 3, "above 0"),
        (("--table", "README.md"), 3, "not a result"),
    ],
    ids=["no GPU", "weights", "too long", "no time", "no result"],
)
def test_what_cannot_run_is_refused_in_a_sentence(arguments, status, said):
    result = run(*arguments, CUDA_VISIBLE_DEVICES="")
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


def test_a_benchmark_that_is_ended_ends_its_engine(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "bench.gpu", "--form", "sim", "--port", str(port), "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.terminate()
        assert running.wait(60) == 143
    assert not answers(f"http://127.0.0.1:{port}/health")


def test_the_page_shows_the_committed_result():
    result = run("--table", str(RESULT))
    assert result.returncode == 0, result.stderr
    assert result.stdout[:-1] in (ROOT / "docs" / "performance.md").read_text()
