"""Puts packages into the environment, with uv where it can be had and with pip where not. Called by `setup_steps`.

Only exact pins are installed, without their dependencies: the locks are complete, and leave out on purpose what
would break the engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.setup_locks import normal_name
from scripts.setup_shell import Result, Runner, SetupError
from scripts.setup_sources import TORCH_CPU_INDEX, Sources

LIST_PACKAGES = (
    "import json; from importlib.metadata import distributions;"
    "print(json.dumps({d.metadata['Name']: d.version for d in distributions()}))"
)


@dataclass(frozen=True, slots=True)
class Installer:
    """uv or pip, for one environment.

    Attributes:
        python: interpreter of the environment.
        runner: how to run programs.
        sources: where packages come from.
        uv: path of uv; None installs with pip.
        offline: use only what is on this machine.
    """

    python: Path
    runner: Runner
    sources: Sources
    uv: Path | None
    offline: bool = False

    def install(self, *what: str, busy: Callable[[str], None], places: Sequence[str] = ()) -> Result:
        """Install requirements (`-r FILE`, `-e FOLDER`, pins) without their dependencies.

        Args:
            what: requirements as the command line spells them.
            busy: called while it takes its time.
            places: arguments that replace the configured places.
        """
        if self.uv is None:
            quick = ["--no-input", "--no-compile", "--progress-bar", "off"]
            command = [str(self.python), "-m", "pip", "install", *quick, "--no-deps", *places]
            return self.runner.run([*command, *(["--no-index"] if self.offline else []), *what], busy=busy)
        command = [str(self.uv), "pip", "install", "--python", str(self.python), "--no-deps"]
        where = [*(places or self.sources.uv_arguments()), *(["--offline"] if self.offline else [])]
        return self.runner.run([*command, *where, *what], env=self.sources.uv_environment(), busy=busy)

    def uninstall(self, *names: str) -> None:
        """Remove distributions."""
        if self.uv is None:
            self.runner.run([str(self.python), "-m", "pip", "uninstall", "--yes", *names])
        else:
            self.runner.run([str(self.uv), "pip", "uninstall", "--python", str(self.python), *names])

    def installed(self) -> dict[str, str]:
        """Distribution (normal name) to version; empty where the environment does not answer."""
        return installed_packages(self.python, self.runner)


def installed_packages(python: Path, runner: Runner) -> dict[str, str]:
    """See :meth:`Installer.installed`."""
    result = runner.run([str(python), "-I", "-c", LIST_PACKAGES])
    if not result.ok:
        return {}
    found: Mapping[str, str] = json.loads(result.output.strip().splitlines()[-1])
    return {normal_name(name): version for name, version in found.items()}


def add_uv(python: Path, lock: Path, runner: Runner, *, offline: bool) -> tuple[Path | None, str]:
    """Install uv into the environment.

    Returns:
        its path, or None where it cannot be had; and a sentence for the report.
    """
    uv = python.parent / "uv"
    if runner.run([str(uv), "--version"]).ok:
        return uv, "uv is there"
    where = ["--no-index"] if offline else []
    result = runner.run([str(python), "-m", "pip", "install", "--no-input", "--no-deps", *where, "-r", str(lock)])
    if result.ok and uv.exists():
        return uv, "uv installed"
    return None, f"uv cannot be had ({result.tail(1)}); pip does its work, more slowly"


def install_torch_cpu(installer: Installer, lock: Path, busy: Callable[[str], None]) -> str:
    """Install the CPU build of torch from wherever pip is configured, else from PyTorch's own index.

    Returns:
        where it came from.

    Raises:
        SetupError: neither place has one for this Python.
    """
    first = installer.install("-r", str(lock), busy=busy)
    if first.ok:
        return "from the places that pip is configured with"
    places = ["--index-url" if installer.uv is None else "--default-index", TORCH_CPU_INDEX]
    second = installer.install("-r", str(lock), busy=busy, places=places)
    if second.ok:
        return f"from {TORCH_CPU_INDEX}"
    wheels = ", ".join(wheel.name for wheel in installer.sources.local_wheels("torch"))
    other = " (or make setup PYTHON=... with the Python that one of these is for: " + wheels + ")" if wheels else ""
    raise SetupError(
        "No CPU build of torch for this Python and machine could be had.",
        cure=(
            f"Make {TORCH_CPU_INDEX} reachable, or set PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL to a place that has it"
            f"{other}; then make setup."
        ),
        detail=f"{first.tail(4)}\n{second.tail(4)}",
    )
