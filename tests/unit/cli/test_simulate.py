"""``inferdock simulate``: what it takes, refuses, prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inferdock.cli.main import cli

PROFILE = {
    "steps": [{"running": 1, "seconds": 0.01}, {"running": 64, "seconds": 0.04}],
    "startup_s": 30,
    "source": "made up",
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a profile, and no configuration of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INFERDOCK_CONFIG", raising=False)
    (tmp_path / "p.json").write_text(json.dumps(PROFILE))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", "--profile", "p.json", *arguments])


def test_a_burst_is_played_through_and_said() -> None:
    result = run("--burst", "2", "30", "300", "300", "--duration", "900", "--price", "1.5")
    assert result.exit_code == 0, result.output
    assert "requests answered" in result.stdout
    assert "per million tokens" in result.stdout


def test_the_document_holds_history_and_actions(place: Path) -> None:
    wanted = ("--burst", "2", "60", "100", "600", "--duration", "900", "--json", "r.json", "-o", "json")
    result = run(*wanted)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((place / "r.json").read_text())
    assert document["requests"]["asked"] == document["requests"]["answered"] > 0
    assert document["replicas"]["most"] > 1
    assert document["actions"][0]["reason"]
    assert len(document["history"][0]) == len(document["history_columns"])
    assert document["cost"]["total"] is None


def test_a_trace_from_a_file(place: Path) -> None:
    (place / "t.csv").write_text("seconds,prompt_tokens,output_tokens\n5,10,10\n6,10,10\n")
    document = json.loads(run("--trace", "t.csv", "--fixed", "-o", "json").stdout)
    assert document["requests"]["answered"] == 2
    assert document["actions"] == []


def test_machines_go_when_the_command_says_so() -> None:
    wanted = ("--burst", "20", "20", "0", "300", "--duration", "300", "--replicas", "3", "--fixed", "-o", "json")
    kills = ("--spot-at", "60,61.5", "--spot-notice", "0")
    plain, less = (json.loads(run(*wanted, *more).stdout) for more in ((), kills))
    assert [action["at"] for action in less["actions"]] == [60.0, 61.5]
    assert plain["actions"] == []
    assert less["requests"]["answered"] == plain["requests"]["answered"] > 5000


def test_a_picture_is_written(place: Path) -> None:
    assert run("--diurnal", "5", "1", "--duration", "600", "--plot", "p.png").exit_code == 0
    assert (place / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Say what is asked"),
        (("--users", "--diurnal", "2", "1"), "Say what is asked"),
        (("--trace", "no.csv"), "Cannot read no.csv"),
        (("--users", "--profile", "no.json"), "Cannot read no.json"),
        (("--users", "--profile", "bad.json"), "is no profile"),
        (("--users", "--fixed", "--replicas", "0"), "cannot be simulated"),
        (("--users", "--min-replicas", "9", "--max-replicas", "2"), "cannot work"),
        (("--users", "--json", "no/folder/r.json"), "Cannot write"),
        (("--users", "--spot-at", "soon"), "`soon` is no list of seconds"),
    ],
    ids=["nothing", "two", "no trace", "no profile", "bad profile", "nobody", "bounds", "nowhere", "soon"],
)
def test_what_cannot_be_simulated_is_refused_with_a_sentence(place: Path, arguments: tuple, said: str) -> None:
    (place / "bad.json").write_text("{}")
    result = run(*arguments)
    assert said in str(result.exception)
