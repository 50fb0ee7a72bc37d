"""Writes a quantised model as a Hugging Face folder that vLLM loads: compressed-tensors, ``pack-quantized``.

Eight values of 4 bits share an int32, the first in the lowest bits. The library's own packing would do the same, but
importing it loads torch's compiler; a test holds the two together. The same inputs give the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from inferdock.domain.errors import ModelError
from inferdock.quantize.awq import Quantised, Tensor
from inferdock.quantize.blocks import Result
from inferdock.quantize.recipe import Recipe
from inferdock.quantize.source import Source

SHARD_BYTES: Final = 4 << 30
_INDEX: Final = "model.safetensors.index.json"


def library() -> str:
    """What did it, for the manifest."""
    return ", ".join(f"{name} {version(name)}" for name in ("inferdock", "torch", "transformers"))


def write(source: Source, result: Result, recipe: Recipe, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the folder, which must be there and empty.

    Raises:
        ModelError: a scale is not a positive number.
        OSError: the disk is full.
    """
    tensors = dict(result.tensors)
    for name, made in result.packed.items():
        tensors.update({f"{name}.{part}": tensor for part, tensor in _packed(name, made, recipe.bits)})
    _save(tensors, folder, shard_bytes)
    for path in source.kept:
        shutil.copyfile(source.folder / path, folder / path)
    config = json.loads((source.folder / "config.json").read_bytes())
    config["quantization_config"] = _config(recipe)
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _packed(name: str, made: Quantised, bits: int) -> Iterator[tuple[str, Tensor]]:
    if not bool(torch.isfinite(made.scales.float()).all() and (made.scales > 0).all()):
        raise ModelError(f"Scales of {name} are not positive numbers.", cure="Check the weights and the calibration.")
    yield "weight_packed", pack(made.values, bits)
    yield "weight_scale", made.scales
    yield "weight_zero_point", pack(made.zeros.t(), bits).t()
    yield "weight_shape", torch.tensor(made.values.shape, dtype=torch.int64)


def pack(values: Tensor, bits: int) -> Tensor:
    """Whole numbers from 0 to ``2**bits - 1``, rows by columns, as int32 with ``32 / bits`` columns in each.

    The columns must be a multiple of that.
    """
    lanes = 32 // bits
    parts = values.to(torch.int64).reshape(values.shape[0], -1, lanes)
    words = (parts << (bits * torch.arange(lanes))).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def _save(tensors: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        if size and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _config(recipe: Recipe) -> dict[str, Any]:
    """As compressed-tensors reads it, and vLLM after it."""
    weights = {
        "num_bits": recipe.bits,
        "type": "int",
        "symmetric": False,
        "strategy": "group",
        "group_size": recipe.group_size,
        "dynamic": False,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
