"""Where a running platform leaves its logs and says what it is: ``state.json``, for ``inferdock status``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from inferdock.domain.errors import ResourceError, UnreachableError

LOCK = "lock"
SHOWN = {"pid", "model", "revision", "engine", "url", "replicas"}
"""What every ``state.json`` holds at least."""


class StateDir:
    """The folder of one running platform, named after its gateway port.

    It belongs to one platform at a time: :meth:`prepare` takes a lock, which the kernel lets go however the holder
    ends.
    """

    def __init__(self, root: Path, port: int) -> None:
        self.folder = root / f"up-{port}"
        self._lock: IO[str] | None = None

    def prepare(self) -> None:
        """Make the folders and take them for this process; may be called again.

        Raises:
            ResourceError: it cannot be written, or another platform uses it.
        """
        try:
            (self.folder / "logs").mkdir(parents=True, exist_ok=True)
            if self._lock is None:
                self._lock = _locked(self.folder / LOCK)
            self.announce.unlink(missing_ok=True)
        except BlockingIOError as exc:
            raise ResourceError(
                f"Another platform uses the state folder {self.folder}.",
                cure="Choose another with --state-dir, or give it a --port of its own.",
            ) from exc
        except OSError as exc:
            raise ResourceError(
                f"Cannot write to the state folder {self.folder}: {exc.strerror}.",
                cure="Choose another with --state-dir.",
            ) from exc

    @property
    def announce(self) -> Path:
        """File in which the gateway says its ports."""
        return self.folder / "gateway.json"

    @property
    def gateway_config(self) -> Path:
        """The merged configuration that the gateway reads."""
        return self.folder / "gateway.yaml"

    @property
    def control(self) -> Path:
        """Socket for those who drive a release (``supervisor.control``)."""
        return self.folder / "control.sock"

    def log(self, name: str) -> Path:
        """Log file of a child."""
        return self.folder / "logs" / f"{name}.log"

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace ``state.json`` atomically."""
        write_atomically(self.folder / "state.json", json.dumps(state, indent=1))

    def clear(self) -> None:
        """Nothing runs any more: let the folder go; the logs stay."""
        with contextlib.suppress(OSError):
            (self.folder / "state.json").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked(path: Path) -> IO[str]:
    """Open and lock a file; BlockingIOError where somebody else has it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the new one, never half of it; only its owner may read it.

    Settings may hold a password in a URL.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def read_state(root: Path, port: int | None) -> dict[str, Any]:
    """State of the platform that runs on ``port``, or of the only one that runs.

    Raises:
        UnreachableError: none runs, or several do and no port was given.
    """
    pattern = f"up-{port}" if port is not None else "up-*"
    running = [state for path in sorted(root.glob(f"{pattern}/state.json")) if (state := _read(path)) is not None]
    if not running:
        where = f" on port {port}" if port is not None else ""
        raise UnreachableError(f"No platform is running here{where}.", cure="Start one with `inferdock up`.")
    if len(running) > 1:
        ports = ", ".join(str(state.get("port")) for state in running)
        raise UnreachableError(f"Several platforms are running (ports {ports}).", cure="Choose one with --port.")
    return running[0]


def _read(path: Path) -> dict[str, Any] | None:
    """The state, unless it is damaged or its supervisor is gone."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        with (path.parent / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # somebody holds the lock, so it runs
        return state if isinstance(state, dict) and state.keys() >= SHOWN else None
    except (OSError, ValueError, RecursionError):
        return None
    return None
