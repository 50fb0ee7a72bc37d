"""The command line as a whole: help, exit codes, and sentences in place of tracebacks."""

import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from inferdock import __version__
from inferdock.cli.main import COMMANDS, LazyGroup, cli, main
from inferdock.domain.errors import (
    EXIT_CODES,
    CheckFailedError,
    ConfigError,
    EngineError,
    InferdockError,
    ModelError,
    ResourceError,
    UnreachableError,
)


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, in a process of its own."""
    code = "from inferdock.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, env=env, check=False
    )


def test_help_lists_every_command():
    output = CliRunner().invoke(cli, ["--help"]).output
    assert all(f"\n  {name} " in output for name in COMMANDS)


def test_help_lists_every_exit_code():
    output = CliRunner().invoke(cli, ["-h"]).output
    assert all(f"{code:>3}  {text}" in output for code, text in EXIT_CODES.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_gives_an_example(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    command = cli.get_command(click.Context(cli), name)
    if not isinstance(command, click.Group):
        assert "Example:" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_list_is_a_sentence(name):
    line = COMMANDS[name][1]
    assert line[0].isupper()
    assert line.endswith(".")


def test_an_unknown_command_is_wrong_usage():
    result = run("serve")
    assert result.returncode == 2
    assert "No such command 'serve'" in result.stderr


def test_an_unknown_option_is_wrong_usage():
    assert run("config", "show", "--wrong").returncode == 2


def test_the_version_is_printed():
    assert CliRunner().invoke(cli, ["--version"]).output == f"inferdock, version {__version__}\n"


def test_help_and_light_commands_load_no_heavy_module():
    code = (
        "import sys; from inferdock.cli.main import cli;"
        "cli.main(['config', 'show', '-o', 'json'], standalone_mode=False);"
        "sys.exit(str(sorted({'torch', 'transformers', 'aiohttp', 'matplotlib', 'openai'} & set(sys.modules))) != '[]')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_a_wrong_configuration_is_a_sentence_with_its_cure_and_its_exit_code(tmp_path):
    file = tmp_path / "inferdock.yaml"
    file.write_text("gateway: {prot: 1}")
    result = run("config", "show", "-f", str(file))
    assert result.returncode == ConfigError.exit_code
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[0].startswith("error: Unknown key `gateway.prot`")
    assert "gateway.port" in result.stderr.splitlines()[1]
    assert result.stdout == ""


def exit_code_of(monkeypatch: pytest.MonkeyPatch, body: Callable[[], object]) -> object:
    """Exit code of `main` when the command that it finds does `body`."""
    command = click.Command("config", callback=body)
    monkeypatch.setattr(LazyGroup, "get_command", lambda self, ctx, name: command)
    monkeypatch.setattr(sys, "argv", ["inferdock", "config"])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def raising(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body


@pytest.mark.parametrize(
    "kind", [ConfigError, ModelError, ResourceError, EngineError, UnreachableError, CheckFailedError]
)
def test_each_error_has_its_exit_code(monkeypatch, capsys, kind: type[InferdockError]):
    assert exit_code_of(monkeypatch, raising(kind("It broke.", cure="Mend it."))) == kind.exit_code
    assert capsys.readouterr().err == "error: It broke.\n       Mend it.\n"


def test_no_two_kinds_of_error_share_an_exit_code():
    kinds = [ConfigError, ModelError, ResourceError, EngineError, UnreachableError, CheckFailedError]
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    assert all(kind.exit_code in EXIT_CODES for kind in kinds)


def test_ctrl_c_is_130(monkeypatch):
    assert exit_code_of(monkeypatch, raising(KeyboardInterrupt())) == 130


def test_a_command_may_choose_its_exit_code(monkeypatch):
    assert exit_code_of(monkeypatch, lambda: 8) == 8


def test_a_command_that_returns_nothing_is_done(monkeypatch):
    assert exit_code_of(monkeypatch, lambda: None) == 0


def test_a_reader_that_goes_away_is_no_failure():
    process = f"{sys.executable} -c 'from inferdock.cli.main import main; main()' config show --origin | head -n 1"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {process}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode in (0, 141)
    assert "Traceback" not in result.stderr
