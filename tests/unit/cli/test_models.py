"""``inferdock model``: what a person types, what is printed where, and with which exit code it ends."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inferdock.cli.main import cli
from inferdock.cli.models.bars import Lines
from inferdock.cli.models.options import moment, number, size
from inferdock.domain.errors import (
    ConfigError,
    ConflictError,
    InferdockError,
    IntegrityError,
    ModelError,
    RegistryError,
)
from tests.support.model_folders import write_model

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry and a cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INFERDOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("INFERDOCK_REGISTRY__ACTOR", "ada")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["model", *arguments], standalone_mode=False, env={"COLUMNS": "200"})


def ok(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exception is None, result.output
    return result.stdout


def answer(*arguments: str) -> object:
    return json.loads(ok(*arguments, "-o", "json"))


def failure(*arguments: str) -> InferdockError:
    error = run(*arguments).exception
    assert isinstance(error, InferdockError), error
    return error


def push(folder: Path, version: str = "1.0.0", *arguments: str) -> str:
    return ok("push", str(folder), "--name", "m", "--version", version, *arguments).strip()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_a_push_prints_the_revision_alone(model):
    result = run("push", str(model), "--name", "m", "--version", "1.0")
    assert len(result.stdout.strip()) == 64
    assert "m@1.0.0 is pushed" in result.stderr


def test_a_second_push_does_nothing_and_other_files_are_refused(model):
    revision = push(model)
    again = answer("push", str(model), "--name", "m", "--version", "1.0.0")
    assert (again["created"], again["revision"]) == (False, revision)
    (model / "README.md").write_text("other")
    error = failure("push", str(model), "--name", "m", "--version", "1.0.0")
    assert isinstance(error, ConflictError)
    assert error.exit_code == 10


def test_what_another_version_has_is_not_sent_again(model):
    push(model)
    (model / "README.md").write_text("other")
    pushed = answer("push", str(model), "--name", "m", "--version", "1.1.0", "--alias", "candidate")
    assert pushed["sent"] == {"files": 1, "bytes": 5}
    assert ok("alias", "m", "candidate").strip() == "1.1.0"


def test_a_pull_prints_the_folder_alone(model):
    push(model)
    folder = Path(ok("pull", "m@1.0.0").strip())
    for file in (path for path in model.rglob("*") if path.is_file()):
        assert (folder / file.relative_to(model)).read_bytes() == file.read_bytes()
    assert answer("pull", "m@1.0.0")["fetched"] == {"files": 0, "bytes": 0}


def test_a_pull_says_what_was_damaged_here_and_replaces_it(model):
    push(model)
    file = (Path(ok("pull", "m@1.0.0").strip()) / "config.json").resolve()
    file.chmod(0o644)
    file.write_bytes(b"{}")
    result = run("pull", "m@1.0.0")
    assert "1 files here had other bytes and were replaced: config.json" in result.stderr
    assert answer("pull", "m@1.0.0")["damaged"] == []


def test_a_pull_to_a_folder_writes_plain_files(model, tmp_path):
    push(model)
    ok("pull", "m@1.0.0", "--to", str(tmp_path / "here"))
    assert not any(path.is_symlink() for path in (tmp_path / "here").rglob("*"))
    assert (tmp_path / "here" / "MANIFEST.json").is_file()


def test_a_name_alone_is_the_champion(model):
    push(model)
    assert isinstance(failure("show", "m"), RegistryError)
    ok("alias", "m", "champion", "1.0.0")
    assert answer("show", "m")["version"] == "1.0.0"


def test_show_gives_the_manifest_byte_for_byte(model, home):
    push(model)
    stored = home / "data" / "inferdock" / "registry" / "models" / "m" / "v1.0.0" / "MANIFEST.json"
    assert ok("show", "m@1.0.0", "--manifest").encode() == stored.read_bytes()


def test_lists_are_in_semantic_order(model):
    for version in ("1.10.0", "1.9.0"):
        push(model, version)
    assert [row["version"] for row in answer("list", "m")] == ["1.9.0", "1.10.0"]
    assert answer("list")[0]["versions"] == ["1.9.0", "1.10.0"]
    assert "1.10.0" in ok("list")


def test_an_empty_registry_says_how_to_fill_it():
    result = run("list")
    assert result.stdout == ""
    assert "inferdock model push" in result.stderr
    assert answer("list") == []


def test_an_alias_moves_only_from_where_it_is_expected(model):
    push(model)
    push(model, "1.1.0", "--engine-arg=--seed=1")
    ok("alias", "m", "champion", "1.0.0", "--expect", "none")
    error = failure("alias", "m", "champion", "1.1.0", "--expect", "1.1")
    assert isinstance(error, ConflictError)
    ok("alias", "m", "champion", "1.1.0", "--expect", "1.0.0", "--reason", "better")
    ok("alias", "m", "champion", "previous")
    assert ok("alias", "m", "champion").strip() == "1.0.0"


def test_a_history_says_who_what_when_and_why(model):
    push(model, "1.0.0", "--reason", "first", "--alias", "champion")
    events = answer("history", "m")
    assert [(e["seq"], e["action"], e["actor"], e["reason"]) for e in events] == [
        (1, "push", "ada", "first"),
        (2, "alias", "ada", "first"),
    ]
    assert "champion: none → 1.0.0" in ok("history", "m")
    assert len(answer("history", "m", "--limit", "1")) == 1


def test_a_history_says_what_was_live_at_a_time(model):
    push(model, "1.0.0", "--alias", "champion")
    now = answer("history", "m", "--at", "2999-01-01T12:00")
    before = answer("history", "m", "--at", "2000-01-01")
    assert (now["aliases"], before["aliases"]) == ({"champion": "1.0.0"}, {})
    assert "live (champion): 1.0.0" in ok("history", "m", "--at", "2999-01-01T12:00+02:00")


def test_a_difference_shows_files_facts_and_arguments(model):
    push(model)
    (model / "README.md").write_text("x")
    push(model, "1.1.0", "--engine-arg=--max-model-len=8", "--label", "run=7")
    found = answer("diff", "m@1.0.0", "m@1.1.0")
    assert [change["path"] for change in found["files"]] == ["README.md"]
    assert [change["name"] for change in found["values"]] == ["engine.arguments"]
    assert "labels.run" in [change["name"] for change in found["provenance"]]
    shown = ok("diff", "m@1.0.0", "m@1.1.0")
    assert "README.md" in shown
    assert "--max-model-len=8" in shown


def test_one_flipped_byte_is_found_and_named(model, home):
    push(model)
    ok("verify", "m@1.0.0")
    for file in ("config.json", "MANIFEST.json"):
        path = home / "data" / "inferdock" / "registry" / "models" / "m" / "v1.0.0" / file
        whole = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        result = run("verify", "--all")
        assert isinstance(result.exception, IntegrityError)
        assert file in result.output
        error = failure("pull", "m@1.0.0")
        assert isinstance(error, IntegrityError)
        assert file in error.message
        path.write_bytes(whole)
    ok("verify", "--all")


def test_a_deletion_asks_first_and_leaves_what_an_alias_means(model):
    push(model, "1.0.0", "--alias", "candidate")
    assert isinstance(failure("delete", "m@1.0.0"), ConfigError)
    assert isinstance(failure("delete", "m@1.0.0", "--yes"), RegistryError)
    assert isinstance(failure("delete", "m@candidate", "--yes"), ConfigError)
    ok("alias", "m", "candidate", "--remove")
    ok("delete", "m@1.0.0", "--yes", "--reason", "licence")
    assert "It was deleted" in failure("show", "m@1.0.0").message
    assert answer("history", "m")[-1]["action"] == "delete"


def test_signatures_are_enforced_where_keys_are_trusted(model, tmp_path, monkeypatch):
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    push(model)
    monkeypatch.setenv("INFERDOCK_REGISTRY__TRUSTED_KEY_FILES", f"[{public}]")
    for command in ("pull", "show"):
        assert isinstance(failure(command, "m@1.0.0"), IntegrityError)
    assert isinstance(failure("verify", "m@1.0.0"), IntegrityError)
    monkeypatch.setenv("INFERDOCK_REGISTRY__SIGNING_KEY_FILE", str(private))
    push(model, "1.1.0")
    assert len(answer("pull", "m@1.1.0")["signed_by"]) == 1
    assert "signed by" in ok("verify", "m@1.1.0")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("push", "nowhere", "--version", "1"), ModelError),
        (("push", "model", "--name", "a/b", "--version", "1"), ConfigError),
        (("push", "model", "--version", "latest"), ConfigError),
        (("push", "model", "--version", "1", "--image", "x:latest"), ConfigError),
        (("push", "model", "--version", "1", "--label", "x"), ConfigError),
        (("show", "absent@1.0.0"), RegistryError),
        (("pull", "a@b@c"), ConfigError),
        (("history", "absent"), RegistryError),
        (("history", "m", "--at", "yesterday"), ConfigError),
        (("list", "--registry", "ftp://x"), ConfigError),
        (("alias", "m", "1.0", "1.0"), ConfigError),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else value.__name__,
)
def test_mistakes_end_in_a_sentence(model, arguments, error):
    assert isinstance(failure(*arguments), error)


def test_the_command_ends_with_the_exit_code_of_the_failure(home):
    command = [sys.executable, "-m", "inferdock.cli.main", "model", "show", "absent@1.0.0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 9
    assert result.stderr.startswith("error: The registry")


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T12:00+01:00", "2026-01-31T11:00:00.000Z"),
        ("2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.500Z"),
        ("90m", "2026-01-31T10:30:00.000Z"),
        ("1d", "2026-01-30T12:00:00.000Z"),
    ],
)
def test_times_are_read_as_utc(text, spelt):
    assert moment(text, NOW) == spelt


@pytest.mark.parametrize("text", ["", "noon", "999999d", "2026-13-01", "-1h"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match="is no time"):
        moment(text, NOW)


def test_figures_are_spelt_for_people():
    assert [size(n) for n in (0, 999, 1000, 999_999, 8_100_000, 5 * 10**13)] == [
        *("0 B", "999 B", "1.0 kB", "1.0 MB", "8.1 MB", "50.0 TB")
    ]
    assert [number(n) for n in (7, 4_000_000, 7_241_732_096)] == ["7", "4.0M", "7.2B"]


def test_plain_progress_speaks_now_and_then():
    said: list[str] = []
    now = [0.0]
    lines = Lines(said.append, lambda: now[0])
    with lines:
        lines.begin("Hashing", 4000, 2)
        for _ in range(4):
            now[0] += 3
            lines.moved("a", 1000)
        lines.done("a")
        lines.done("b")
    assert said[0] == "Hashing: 4.0 kB in 2 files"
    assert said[1] == "Hashing: 2.0 kB of 4.0 kB, 0 of 2 files, 333 B/s, 6 s left"
    assert said[-1] == "Hashing: done, 4.0 kB in 12.0 s, 333 B/s"
