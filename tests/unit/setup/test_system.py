"""Environments where Python lacks venv, and libraries that the distribution has to bring."""

import sys
from pathlib import Path

import pytest
from scripts.setup_shell import LocalRunner, SetupError
from scripts.setup_system import SystemPackages, environment_works, make_environment, missing_libraries

from tests.unit.setup.machine import FakeRunner

NO_ENSUREPIP = (1, "The virtual environment was not created successfully because ensurepip is not available.")
DEBIAN = {"-m venv": NO_ENSUREPIP, "print('python": (0, "python3.11-venv\n")}
VENV = Path("/x/.venv")


def system(runner: FakeRunner, *, is_root: bool = True, programs: tuple[str, ...] = ("apt-get",)) -> SystemPackages:
    return SystemPackages(runner, is_root, which=lambda name: f"/usr/bin/{name}" if name in programs else None)


def make(runner: FakeRunner, **kwargs: object) -> str:
    return make_environment(VENV, python="python3", runner=runner, system=system(runner, **kwargs))  # type: ignore[arg-type]


def test_an_environment_cut_short_is_made_anew(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/missing/python")
    runner = LocalRunner()
    assert not environment_works(tmp_path / ".venv", runner)
    make_environment(tmp_path / ".venv", python=sys.executable, runner=runner, system=SystemPackages(runner, False))
    assert environment_works(tmp_path / ".venv", runner)


def test_where_debian_keeps_venv_apart_it_is_installed():
    runner = FakeRunner(DEBIAN)

    def installed(line: str) -> None:
        runner.rules["-m venv"] = (0, "")

    runner.rules["apt-get install"] = (0, "")
    runner.run = _after(runner, "apt-get install", installed)  # type: ignore[method-assign]
    assert "installed the package" in make(runner)
    assert runner.ran("apt-get install -y --no-install-recommends python3.11-venv")


def _after(runner: FakeRunner, part: str, then):  # type: ignore[no-untyped-def]
    """The runner's `run`, which calls `then` after a command that holds `part`."""
    original = runner.run

    def run(args, **kwargs):  # type: ignore[no-untyped-def]
        result = original(args, **kwargs)
        if part in " ".join(args):
            then(" ".join(args))
        return result

    return run


def test_without_the_right_to_install_the_command_is_said():
    with pytest.raises(SetupError) as error:
        make(FakeRunner(DEBIAN), is_root=False)
    assert "sudo apt-get install -y python3.11-venv" in error.value.cure


def test_sudo_without_a_password_will_do():
    runner = FakeRunner({"sudo -n": (0, "")})
    system(runner, is_root=False, programs=("apt-get", "sudo")).install(["libnuma1"], why="x")
    assert runner.commands[-1].startswith("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install")


def test_sudo_that_asks_for_a_password_is_not_used():
    runner = FakeRunner({"sudo -n true": (1, "a password is required")})
    with pytest.raises(SetupError, match="may not install"):
        system(runner, is_root=False, programs=("apt-get", "sudo")).install(["libnuma1"], why="It lacks libnuma")
    assert not runner.ran("install")


def test_virtualenv_stands_in_for_venv():
    runner = FakeRunner({**DEBIAN, "-m virtualenv": (0, ""), "import sys, pip": (0, "")})
    assert make(runner, is_root=False) == " with virtualenv"


def test_uv_stands_in_for_venv():
    runner = FakeRunner({**DEBIAN, "/usr/bin/uv venv": (0, ""), "import sys, pip": (0, "")})
    assert make(runner, is_root=False, programs=("uv",)) == " with uv"


def test_another_failure_of_venv_is_shown_as_it_is():
    with pytest.raises(SetupError, match="could not make an environment") as error:
        make(FakeRunner({"-m venv": (1, "No space left on device")}))
    assert "No space left" in error.value.detail


def test_package_lists_are_fetched_when_the_first_try_fails():
    runner = FakeRunner({"apt-get install": (100, "Unable to locate package"), "apt-get update": (0, "")})
    with pytest.raises(SetupError, match="could not install") as error:
        system(runner).install(["libnuma1"], why="It lacks libnuma")
    assert [line.split("apt-get ")[1].split()[0] for line in runner.commands] == ["install", "update", "install"]
    assert "Unable to locate" in error.value.detail


LDD = """\
vllm/_C.so:
\tlibnuma.so.1 => not found
\tlibgomp.so.1 => not found
\tlibtorch.so => not found
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)
"""


def test_only_libraries_that_nobody_brings_are_missing(tmp_path):
    (tmp_path / "libgomp.so.1").touch()
    runner = FakeRunner({"ldd": (0, LDD)})
    assert missing_libraries([Path("vllm/_C.so")], [tmp_path], runner) == ["libnuma.so.1"]


def test_without_compiled_modules_nothing_is_missing():
    assert missing_libraries([], [], FakeRunner()) == []
