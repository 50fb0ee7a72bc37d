"""``inferdock keys``: the text is shown once and alone, lists hold no secret, files are found where settings say."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inferdock.cli.keys import parse_expiry
from inferdock.cli.main import cli
from inferdock.domain.errors import ConfigError
from inferdock.keys.key import KEY_TEXT, digest_of
from inferdock.keys.store import KeyFile

NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default file, in a state folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("INFERDOCK_CONFIG", "INFERDOCK_STATE_DIR", "INFERDOCK_KEYS__FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "inferdock" / "keys.jsonl"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments], standalone_mode=True, env={"COLUMNS": "200"})


def created(*arguments: str) -> dict[str, object]:
    result = run("create", "--name", "n", "-o", "json", *arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def test_the_text_stands_alone_on_standard_output(place):
    result = run("create", "--name", "alice")
    text = result.stdout.removesuffix("\n").encode()
    assert KEY_TEXT.fullmatch(text)
    assert KeyFile(place).read()[0].digest == digest_of(text)
    assert text.decode() not in result.stderr
    assert "shown this once" in result.stderr


def test_every_wish_reaches_the_file(place):
    created(
        *("--model", "a", "--model", "b", "--rpm", "1", "--tpm", "2", "--streams", "3"),
        *("--tenant", "team", "--priority", "4", "--expires", "30d"),
    )
    key = KeyFile(place).read()[0]
    assert (key.requests_per_minute, key.tokens_per_minute, key.concurrent_streams) == (1, 2, 3)
    assert (key.models, key.tenant, key.priority) == ({"a", "b"}, "team", 4)
    assert key.expires_at - key.created_at == pytest.approx(30 * 86_400, abs=2)


def test_a_list_shows_every_key_and_no_secret(place):
    document = created("--rpm", "60")
    secret = str(document["key"]).rpartition("_")[2]
    for form in ("table", "json"):
        output = run("list", "-o", form).output
        assert str(document["id"]) in output
        assert secret not in output
        assert digest_of(str(document["key"]).encode()).hex() not in output


def test_a_list_as_json_says_state_limits_and_times():
    document = created("--rpm", "60", "--expires", "2999-01-31")
    (row,) = json.loads(run("list", "-o", "json").stdout)
    assert row == {name: value for name, value in document.items() if name != "key"}
    assert (row["state"], row["requests_per_minute"], row["expires"]) == ("live", 60, "2999-01-31T00:00:00Z")


def test_no_keys_are_an_empty_list():
    assert json.loads(run("list", "-o", "json").stdout) == []
    assert run("list").exit_code == 0


def test_a_name_cannot_steer_the_terminal_or_the_table():
    created("--tenant", "[red]\x1b[2Jteam")
    output = run("list").output
    assert "\x1b[2J" not in output
    assert "[red]" in output


def test_a_narrow_terminal_cuts_no_id():
    document = created("--model", "a-model-with-a-long-name", "--tenant", "t" * 60)
    result = CliRunner().invoke(cli, ["keys", "list"], env={"COLUMNS": "60"})
    assert str(document["id"]) in result.output


def test_revoking_is_seen_in_the_list_and_may_be_repeated():
    key_id = str(created()["id"])
    assert "is revoked" in run("revoke", key_id).stderr
    assert run("revoke", key_id).exit_code == 0
    assert json.loads(run("revoke", key_id, "-o", "json").stdout)["state"] == "revoked"
    assert [row["state"] for row in json.loads(run("list", "-o", "json").stdout)] == ["revoked"]


def test_revoking_what_is_not_there_is_an_error():
    assert isinstance(run("revoke", "nothing").exception, ConfigError)


@pytest.mark.parametrize("option", ["--rpm", "--tpm", "--streams"])
@pytest.mark.parametrize("value", ["0", "-1", "1000000001", "x"])
def test_a_limit_out_of_range_is_wrong_usage(place, option, value):
    assert run("create", "--name", "n", option, value).exit_code == 2
    assert not place.exists()


def test_a_key_needs_a_name():
    assert run("create").exit_code == 2


def test_the_file_may_be_named_by_flag_folder_or_setting(tmp_path, monkeypatch):
    created("--file", str(tmp_path / "one"))
    created("--state-dir", str(tmp_path / "two"))
    monkeypatch.setenv("INFERDOCK_KEYS__FILE", str(tmp_path / "three"))
    created()
    assert all((tmp_path / name).is_file() for name in ("one", "two/keys.jsonl", "three"))


def test_an_open_file_is_warned_of_on_standard_error(place):
    created()
    place.chmod(0o644)
    result = run("list", "-o", "json")
    assert "chmod 600" in result.stderr
    json.loads(result.stdout)


def test_it_is_said_when_nobody_checks_keys(monkeypatch):
    monkeypatch.setenv("INFERDOCK_KEYS__CHECK", "never")
    assert "no gateway of this configuration checks keys" in run("list").stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("8w", 4_838_400), ("2026-01-02", 86_400)],
)
def test_an_expiry_is_read(text, seconds):
    assert parse_expiry(text, NOW) == NOW + seconds


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1.5h", "0d", "30y", "2026-01-01", "2026-13-01", "٣d", "9" * 9 + "d"]
)
def test_an_expiry_that_is_no_future_time_is_refused(text):
    with pytest.raises(ConfigError, match="--expires"):
        parse_expiry(text, NOW)


def test_the_longest_span_still_makes_a_key_that_can_be_read(place):
    created("--expires", "999999w")
    assert KeyFile(place).read()[0].state(NOW) == "live"
