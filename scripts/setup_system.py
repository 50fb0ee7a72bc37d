"""What set-up needs from the machine: an environment for Python, and libraries of the distribution.

Called by `setup_steps`. Installs with apt where it may (root, or sudo without a password), else says the command.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.setup_shell import Runner, SetupError

PACKAGE_OF_LIBRARY = {
    "libnuma.so.1": "libnuma1",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
}
"""Shared libraries that the engine's modules load, and Debian's packages of them."""


@dataclass(frozen=True, slots=True)
class SystemPackages:
    """The distribution's package manager, as far as we may use it."""

    runner: Runner
    is_root: bool
    which: Callable[[str], str | None] = shutil.which

    def install(self, names: Sequence[str], *, why: str) -> None:
        """Install packages.

        Raises:
            SetupError: not allowed to, or apt failed; the cure is the command to run.
        """
        prefix = self._prefix()
        cure = f"Run: sudo apt-get install -y {' '.join(names)} (or your distribution's packages), then make setup."
        if prefix is None:
            raise SetupError(f"{why}, and set-up may not install packages here.", cure=cure)
        install = [*prefix, "apt-get", "install", "-y", "--no-install-recommends", *names]
        result = self.runner.run(install)
        if not result.ok:  # a new machine has no package lists yet, or old ones
            self.runner.run([*prefix, "apt-get", "update"])
            result = self.runner.run(install)
        if not result.ok:
            raise SetupError(f"{why}, and apt-get could not install it.", cure=cure, detail=result.tail())

    def _prefix(self) -> list[str] | None:
        """What stands before apt-get; None where it cannot be used."""
        quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
        if self.which("apt-get") is None:
            return None
        if self.is_root:
            return quiet
        if self.which("sudo") is not None and self.runner.run(["sudo", "-n", "true"]).ok:
            return ["sudo", "-n", *quiet]
        return None


def environment_works(venv: Path, runner: Runner) -> bool:
    """Whether the environment is there and has a Python >= 3.11 with pip (an interrupted one may not)."""
    ask = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return runner.run([str(venv / "bin" / "python"), "-c", ask]).ok


def make_environment(venv: Path, *, python: str, runner: Runner, system: SystemPackages) -> str:
    """Create the environment, from scratch.

    Returns:
        what was needed for it, for the report.

    Raises:
        SetupError: no way of making one works here.
    """
    make = [python, "-m", "venv", "--clear", str(venv)]
    result = runner.run(make)
    if result.ok:
        return ""
    if "ensurepip" not in result.output and "No module named venv" not in result.output:
        raise SetupError(
            f"Python could not make an environment at {venv}.",
            cure="Mend what it says above (disk full, no permission to write here?) and run make setup again.",
            detail=result.tail(),
        )
    refused = _add_venv_package(python, runner, system)
    if refused is None and runner.run(make).ok:
        return " (installed the package that Debian keeps venv in)"
    for name, other in _other_makers(venv, python, system.which):
        if runner.run(other).ok and environment_works(venv, runner):
            return f" with {name}"
    raise refused or SetupError(
        "Python's venv does not work here.", cure="Install virtualenv or uv, then make setup.", detail=result.tail()
    )


def _add_venv_package(python: str, runner: Runner, system: SystemPackages) -> SetupError | None:
    ask = "import sys; print('python%d.%d-venv' % sys.version_info[:2])"
    package = runner.run([python, "-c", ask]).output.strip() or "python3-venv"
    try:
        system.install([package], why="This Python lacks venv (Debian keeps it in a package of its own)")
    except SetupError as refused:
        return refused
    return None


def _other_makers(venv: Path, python: str, which: Callable[[str], str | None]) -> list[tuple[str, list[str]]]:
    uv = which("uv")
    makers = [("virtualenv", [python, "-m", "virtualenv", "--clear", str(venv)])]
    return makers + ([("uv", [uv, "venv", "--clear", "--seed", "--python", python, str(venv)])] if uv else [])


def missing_libraries(modules: Sequence[Path], shipped: Sequence[Path], runner: Runner) -> list[str]:
    """Names of shared libraries that the modules load and the machine does not have.

    Args:
        modules: the engine's compiled modules.
        shipped: folders with libraries that the packages themselves bring and load first.
        runner: how to run `ldd`.
    """
    if not modules:
        return []
    listed = runner.run(["ldd", *map(str, modules)]).output
    absent = set(re.findall(r"^\s*(\S+) => not found", listed, flags=re.MULTILINE))
    brought = {path.name for folder in shipped for path in folder.glob("*.so*")}
    return sorted((absent - brought) & set(PACKAGE_OF_LIBRARY))


def running_as_root() -> bool:
    """Whether apt-get can be called as it is."""
    return os.geteuid() == 0
