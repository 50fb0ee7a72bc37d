"""``inferdock plan``: what it takes, refuses and prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inferdock.cli.main import cli

PROFILE = {"steps": [{"running": 1, "seconds": 0.01}, {"running": 64, "seconds": 0.04}], "startup_s": 30}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a profile, and no configuration of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INFERDOCK_CONFIG", raising=False)
    (tmp_path / "p.json").write_text(json.dumps(PROFILE))
    (tmp_path / "bad.json").write_text("[]")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plan", "--region", "us-east-1", *arguments])


def test_the_cheapest_comes_first() -> None:
    result = run("--rate", "50", "--profile", "g5.xlarge=p.json", "--profile", "g6e.xlarge=p.json", "-o", "json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    costs = [row["cost_per_hour"] for row in rows]
    assert costs == sorted(costs)
    assert {row["instance_type"] for row in rows} == {"g5.xlarge", "g6e.xlarge"}


def test_a_table_is_printed_up_to_the_size_of_the_internet() -> None:
    result = run("--rate", "100000", "--profile", "g5.xlarge=p.json")
    assert "For 100,000 requests/s" in result.stdout
    assert "$/1M tokens" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "p.json"), "is not TYPE=FILE"),
        (("--profile", "g5.xlarge=no.json"), "Cannot read no.json"),
        (("--profile", "g5.xlarge=bad.json"), "is no profile"),
        (("--profile", "z9.huge=p.json"), "price of 'z9.huge' is not known"),
        (("--profile", "g5.xlarge=p.json", "--gpus-per-replica", "4"), "has 1 GPUs"),
        (("--profile", "g5.xlarge=p.json", "--tpot-slo", "0.001"), "No fleet"),
    ],
    ids=["no type", "no file", "no profile", "no price", "too few GPUs", "too slow"],
)
def test_what_cannot_be_planned_is_refused_with_a_sentence(arguments: tuple, said: str) -> None:
    assert said in str(run("--rate", "5", *arguments).exception)
