"""The GPU that is measured, and what an hour of it costs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.gpu.shape import Awq, Shape, weight_bytes
from inferdock.cost.prices import Catalogue, Price
from inferdock.domain.errors import ResourceError

UTILISATION: Final = 0.9
"""Share of the GPU's memory that the engine takes (its `--gpu-memory-utilization`)."""
_MIB: Final = 1024**2
_GIB: Final = 1024**3
_WORKING_BYTES: Final = 2 * _GIB
"""For activations, graphs and the CUDA context: a rule of thumb, only to fail before a start that cannot succeed."""
_BFLOAT16_SINCE: Final = 8.0
"""Compute capability from which vLLM computes in bfloat16."""
_FIELDS: Final = ("name", "driver_version", "memory.total", "memory.free", "compute_cap")
_MODEL: Final = re.compile(r"\b[A-Z]+\d+[A-Z]*\b")
_REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as its driver describes it; memory in bytes."""

    index: str
    name: str
    driver: str
    total: int
    free: int
    capability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyPrice:
    """US dollars for an hour of one GPU, and where that comes from in words."""

    dollars: float
    source: str


def first_gpu(environment: Mapping[str, str] = os.environ) -> Gpu:
    """The GPU that the engine will use: the first that CUDA_VISIBLE_DEVICES names, else the first of all.

    Raises:
        ResourceError: there is none.
    """
    index = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    query = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    result = None
    try:
        if index:  # set and empty hides every GPU from CUDA
            result = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        pass
    if result is None or result.returncode != 0:
        raise ResourceError(
            "No CUDA GPU answers here (nvidia-smi lists none, or CUDA_VISIBLE_DEVICES hides it).",
            cure="Run it on a machine with an NVIDIA GPU, or try the procedure with `--form cpu`.",
        )
    return parse_gpu(index, result.stdout)


def parse_gpu(index: str, text: str) -> Gpu:
    """Read nvidia-smi's line.

    Raises:
        ResourceError: it is not of the form that was asked for.
    """
    try:
        name, driver, total, free, capability = (part.strip() for part in text.strip().splitlines()[0].split(","))
        return Gpu(
            index=index,
            name=name,
            driver=driver,
            total=int(total) * _MIB,
            free=int(free) * _MIB,
            capability=float(capability),
        )
    except (ValueError, IndexError) as exc:
        raise ResourceError(
            f"nvidia-smi describes GPU {index} as {text.strip()[:200]!r}, which cannot be read.",
            cure="Update the NVIDIA driver.",
        ) from exc


def check_fits(gpu: Gpu, shape: Shape, weights: Mapping[str, Awq | None], context: int) -> None:
    """Refuse what cannot start, before anything does.

    Args:
        weights: that will be measured, by name.
        context: tokens of the longest request.

    Raises:
        ResourceError: memory or bfloat16 is missing; says what to leave out.
    """
    for name, awq in weights.items():
        needed = weight_bytes(shape, awq) + context * shape.kv_bytes_per_token + _WORKING_BYTES
        offered = int(gpu.total * UTILISATION)
        cure = "Use a larger GPU" + (
            ", or measure only the quantised weights with `--weights awq`." if not awq else "."
        )
        if awq is None and gpu.capability < _BFLOAT16_SINCE:
            raise ResourceError(f"{gpu.name} does not compute in bfloat16.", cure=cure)
        if needed > offered:
            raise ResourceError(
                f"{shape.name} in {name} needs {needed / _GIB:.1f} GiB of GPU memory, and {UTILISATION:.0%} of "
                f"{gpu.name} are {offered / _GIB:.1f} GiB.",
                cure=cure,
            )
        if gpu.free < offered:
            raise ResourceError(
                f"{gpu.name} has {gpu.free / _GIB:.1f} GiB free, and the engine takes {offered / _GIB:.1f} GiB.",
                cure="Stop what else uses it (`nvidia-smi` lists it).",
            )


def price_of(name: str, total_bytes: int, catalogue: Catalogue) -> HourlyPrice | None:
    """The lowest on-demand price of such a GPU in one region: a machine's, divided by its GPUs. None if not known.

    Args:
        name: as the driver spells it, for instance "NVIDIA A100-SXM4-40GB".
        total_bytes: memory, which tells kinds of one name apart.
    """
    rows = [row for row in catalogue.prices.values() if row.region == _REGION and _same(row.gpu, name, total_bytes)]
    row = min((row for row in rows if row.on_demand), key=_per_gpu, default=None)
    if row is None:
        return None
    source = catalogue.source(row.on_demand_source)
    origin = f"; {source.text}; {source.date}" if source else ""
    share = f"1/{row.gpus} of {row.instance_type}" if row.gpus > 1 else row.instance_type
    return HourlyPrice(dollars=_per_gpu(row), source=f"{share} on demand in {_REGION}{origin}")


def _per_gpu(row: Price) -> float:
    return (row.on_demand or 0.0) / row.gpus


def _same(listed: str, name: str, total_bytes: int) -> bool:
    if _models(listed) != _models(name):
        return False
    stated = re.search(r"(\d+) GB", listed)
    return stated is None or abs(total_bytes / 1e9 - float(stated[1])) < 0.15 * float(stated[1])


def _models(name: str) -> Sequence[str]:
    return _MODEL.findall(name.upper())[:1]
