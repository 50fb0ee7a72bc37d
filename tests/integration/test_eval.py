"""``inferdock eval`` as a command: against simulated replicas, and with the demo model on real vLLM."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inferdock.cli.main import cli
from inferdock.domain.errors import ConfigError, InconclusiveError, UnreachableError
from inferdock.evaluation.tasks import DEMO
from inferdock.sim.testing import sim_process
from tests.support.evaluation_values import task_file
from tests.support.platform import Platform

DEMO_MODEL = Path(__file__).parents[2] / "models" / "demo"
FAST = ("--ttft", "0.001", "--itl", "0.0005")


def run(champion: str, candidate: str, tasks: Path | str, *arguments: str) -> Result:
    return CliRunner().invoke(
        cli,
        ["eval", "--champion", champion, "--candidate", candidate, "--tasks", str(tasks), *arguments],
        standalone_mode=False,
    )


def document(result: Result) -> dict[str, Any]:
    assert result.exception is None, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def measured(found: dict[str, Any], metric: str, group: str | None = None) -> dict[str, Any]:
    return next(m for m in found["measures"] if m["metric"] == metric and m["group"] == group)


@pytest.fixture(scope="module")
def champion():
    with sim_process("--port", "0", *FAST) as running:
        yield f"{running.url}/v1"


@pytest.fixture(scope="module")
def same():
    with sim_process("--port", "0", *FAST) as running:
        yield f"{running.url}/v1"


@pytest.fixture
def tasks(tmp_path):
    lines = [
        {
            "id": f"t{i}",
            "messages": [{"role": "user", "content": f"Where does ship {i} sail?"}],
            "reference": "the house to the north",
            "checks": [{"kind": "regex", "pattern": "[a-z]"}],
            "group": "even" if i % 2 == 0 else "odd",
            "max_tokens": 24,
        }
        for i in range(60)
    ]
    return task_file(tmp_path, *lines)


def test_two_equal_replicas_pass_with_equal_answers(champion, same, tasks):
    result = run(champion, same, tasks, "-o", "json")
    found = document(result)
    assert (result.return_value, found["verdict"], found["compared"], found["changed"]) == (0, "pass", 60, 0)
    assert measured(found, "agreement")["candidate"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert measured(found, "bleu", "odd")["difference"]["value"] == 0.0
    assert measured(found, "prefix")["candidate"]["value"] > 10


def test_a_candidate_that_cuts_its_answers_short_fails_with_evidence(champion, tasks, tmp_path):
    files = ("--json", str(tmp_path / "out" / "r.json"), "--html", str(tmp_path / "out" / "r.html"))
    with sim_process("--port", "0", *FAST, "--max-model-len", "36") as worse:
        result = run(champion, f"{worse.url}/v1", tasks, *files)
    assert result.return_value == 8
    assert "fail: length >= -20%" in result.stdout
    found = json.loads((tmp_path / "out" / "r.json").read_text())
    assert found["verdict"] == "fail"
    assert found["examples"]
    assert "<mark>" in (tmp_path / "out" / "r.html").read_text()


def test_a_candidate_that_fails_every_request_fails(champion, tasks):
    with sim_process("--port", "0", "--fault", "status:500") as broken:
        result = run(champion, f"{broken.url}/v1", tasks, "-o", "json")
    found = document(result)
    assert (result.return_value, found["compared"]) == (8, 0)
    assert "HTTP 500: injected fault" in found["candidate"]["failures"]
    assert "The candidate failed 60 tasks that the champion answered." in found["notes"]


def test_a_candidate_that_is_busy_now_and_then_is_asked_again(champion, tasks):
    with sim_process("--port", "0", *FAST, "--fault", "status:503x5") as busy:
        found = document(run(champion, f"{busy.url}/v1", tasks, "-o", "json"))
    assert (found["verdict"], found["compared"]) == ("pass", 60)


def test_too_few_tasks_are_exit_12(champion, same, tasks):
    result = run(champion, same, tasks, "--min-samples", "1000")
    assert isinstance(result.exception, InconclusiveError)
    assert result.exception.exit_code == 12
    assert "verdict: inconclusive" in result.stdout


def test_a_limit_on_what_an_engine_does_not_give_is_inconclusive(champion, same, tasks):
    result = run(champion, same, tasks, "--limit", "kl <= 0.1", "--limit", "agreement >= 90%")
    assert isinstance(result.exception, InconclusiveError)
    assert "nothing measures kl here" in result.stdout
    assert "pass: agreement >= 90%" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--limit", "blue >= -2%"), ConfigError),
        (("--limit", "third:exact >= -2%"), ConfigError),
    ],
    ids=["a metric", "a group"],
)
def test_what_is_not_there_is_said_before_anything_is_asked(tasks, arguments, error):
    result = run("http://127.0.0.1:1", "http://127.0.0.1:1", tasks, *arguments)
    assert isinstance(result.exception, error)


def test_nobody_at_an_address_is_exit_7(champion, tasks):
    result = run(champion, "http://127.0.0.1:1/v1", tasks)
    assert isinstance(result.exception, UnreachableError)
    assert "127.0.0.1:1" in result.exception.message


def test_the_key_is_nowhere_in_the_evidence(champion, same, tasks, tmp_path):
    result = run(champion, same, tasks, "--api-key", "very-secret", "--json", str(tmp_path / "r.json"))
    assert result.return_value == 0
    assert "very-secret" not in (tmp_path / "r.json").read_text() + result.output


def exchange_layers(folder: Path, first: int, second: int) -> None:
    """Give each of two layers the other's weights: a model that loads well, and is worse."""
    file = folder / "model.safetensors"
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for name in [name for name in header if name.startswith(f"model.layers.{first}.")]:
        other = name.replace(f"layers.{first}.", f"layers.{second}.")
        mine, theirs = header[name], header[other]
        mine["data_offsets"], theirs["data_offsets"] = theirs["data_offsets"], mine["data_offsets"]
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    file.write_bytes(len(written).to_bytes(8, "little") + written + data[end:])


@pytest.fixture
def some(tmp_path: Path) -> str:
    """A third of the demo model's tasks: enough for these verdicts, and a third of the time."""
    file = tmp_path / "some.jsonl"
    file.write_text("".join(DEMO.read_text(encoding="utf-8").splitlines(keepends=True)[::3]), encoding="utf-8")
    return str(file)


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_the_demo_model_is_as_good_as_itself(base_url, engine_url, some):
    found = document(run(base_url, f"{engine_url}/v1", some, "-o", "json"))
    assert (found["verdict"], found["compared"]) == ("pass", 80), found["limits"]
    assert len(found["champion"]["revisions"]) == 1, "the gateway's revision header is in the evidence"
    assert measured(found, "agreement")["candidate"]["value"] > 0.98
    assert measured(found, "exact", "held-out")["candidate"]["value"] > 0.9
    assert measured(found, "kl")["samples"] == 80
    assert measured(found, "kl")["candidate"]["value"] < 0.01


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_the_demo_model_with_two_layers_exchanged_fails_with_evidence(base_url, some, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(DEMO_MODEL, broken)
    exchange_layers(broken, 0, 1)  # 1 and 2 can be exchanged, and hardly a word changes
    worse = Platform(tmp_path / "worse", "--replicas", "1", "--model", str(broken))
    try:
        worse.wait_until_ready(1, within_s=400)
        page = tmp_path / "report.html"
        result = run(base_url, f"{worse.url}/v1", some, "-o", "json", "--html", str(page))
    finally:
        if worse.process.poll() is None:
            worse.stop()
    found = document(result)
    assert (result.return_value, found["verdict"]) == (8, "fail")
    assert {limit["metric"] for limit in found["limits"] if limit["verdict"] == "fail"} >= {"exact", "bleu", "chrf"}
    assert measured(found, "kl")["candidate"]["low"] > 1
    assert found["examples"][0]["lost"] == ["exact"]
    assert "<mark>" in page.read_text()
