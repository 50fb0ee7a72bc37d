"""What a process can have of one GPU's memory, by the names that price lists use.

The chart has the same table (``files/gpus.yaml``), which an installed package may not read; a test compares them.
Called by ``inferdock plan``; reads one file that ships with Inferdock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

SHIPPED: Final = Path(__file__).with_name("gpus.json")


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    memory_gib: dict[str, float]


def product(gpu: str) -> str:
    """The chart's name of a GPU: ``A100-40GB`` for ``NVIDIA A100 40 GB``."""
    return gpu.removeprefix("NVIDIA ").replace(" GB", "GB").replace(" ", "-")


def memory_gib() -> dict[str, float]:
    """GiB that a process can have at most of one GPU, by :func:`product`; less than the GPU's name says."""
    return msgspec.json.decode(SHIPPED.read_bytes(), type=_Document).memory_gib
