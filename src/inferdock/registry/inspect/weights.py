"""Which files are a model's weights, what tensors they hold, and whether the index says the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.json_files import AGAIN, is_object, pick, printable, read_object
from inferdock.registry.inspect.safetensors import MAX_TENSORS, Tensor, read_header

INDEX: Final = "model.safetensors.index.json"
PICKLE_INDEX: Final = "pytorch_model.bin.index.json"
NO_WEIGHTS_CURE: Final = "It needs model.safetensors, or its shards with their index."
PICKLED_WEIGHTS: Final = (".bin", ".pt", ".pth", ".ckpt")
_WHOLE: Final = "model.safetensors"
_SHARD: Final = re.compile(r"(.*)-(\d{1,9})-of-(\d{1,9})\.safetensors")


@dataclass(frozen=True, slots=True)
class Weights:
    """All tensors of a model.

    Attributes:
        tensors: by name.
        files: file of each tensor, by the tensor's name.
    """

    tensors: Mapping[str, Tensor]
    files: Mapping[str, str]


def weight_files(folder: Path, top: Iterable[str], is_there: Callable[[str], bool]) -> list[str]:
    """Names of the safetensors files that engines load, relative to the folder; empty when there are none.

    With an index it decides. Without one, ``model.safetensors`` or its shards win over other files, since some models
    come twice: `consolidated.safetensors` holds the same weights under other names.

    Args:
        folder: the model.
        top: names of the files directly in it.
        is_there: whether a file, relative to the folder, may be used.

    Raises:
        ModelError: the index is malformed, or a shard is missing.
    """
    names = sorted(top)
    if INDEX in names:
        return _shards_of(folder / INDEX, is_there)
    found = [name for name in names if name.endswith(".safetensors")]
    _require_all_shards(found)
    if _WHOLE in found:
        return [_WHOLE]
    return [name for name in found if _is_shard_of_model(name)] or found


def _is_shard_of_model(name: str) -> bool:
    match = _SHARD.fullmatch(name)
    return match is not None and match[1] == "model"


def _shards_of(index: Path, is_there: Callable[[str], bool]) -> list[str]:
    names = sorted(set(read_weight_map(index).values()))
    outside = [name for name in names if name.startswith("/") or ".." in name.split("/")]
    if outside:
        raise ModelError(f"{index} points outside its folder ({outside[0][:200]!r}).", cure="Do not use this model.")
    missing = [name for name in names if not is_there(name)]
    if missing:
        raise ModelError(
            f"{index}: {len(missing)} of {len(names)} weight files are missing, the first is {missing[0][:200]!r}.",
            cure="Finish the download.",
        )
    return names


def read_weight_map(index: Path) -> dict[str, str]:
    """File of each tensor by an index. Its ``total_size`` is not read: writers disagree on what it counts.

    Raises:
        ModelError: it is missing, malformed, or names too many tensors.
    """
    raw = pick(read_object(index), "weight_map")["weight_map"]
    if bytes(raw).count(b'"') > 4 * MAX_TENSORS + 4 * 1000:  # each entry has four; asked before anything is built
        raise ModelError(f"{index} names more than {MAX_TENSORS:,} tensors.", cure="Do not use this model.")
    try:
        weight_map = msgspec.json.decode(raw, type=dict[str, str]) if is_object(raw) else {}
    except ValueError:
        weight_map = {}
    if not weight_map:
        raise ModelError(f"{index} has no usable `weight_map`.", cure=AGAIN)
    return weight_map


def _require_all_shards(found: Sequence[str]) -> None:
    """Names such as ``model-00001-of-00003.safetensors`` say how many there must be, even without an index."""
    shards = [match for name in found if (match := _SHARD.fullmatch(name))]
    there: dict[tuple[str, str], int] = {}
    for match in shards:
        there[match[1], match[3]] = there.get((match[1], match[3]), 0) + 1
    for match in shards:
        missing = int(match[3]) - there[match[1], match[3]]
        if missing > 0:
            raise ModelError(
                f"{missing} of {int(match[3])} weight files are missing beside {match[0]!r}.",
                cure="Finish the download.",
            )


def read_weights(folder: Path, names: Sequence[str]) -> Weights:
    """Read the headers of all weight files, and compare them with the index where there is one.

    Raises:
        ModelError: a file is malformed, a tensor is there twice, or index and files differ.
    """
    tensors: dict[str, Tensor] = {}
    files: dict[str, str] = {}
    for name in names:
        for tensor in read_header(folder / name):
            if tensor.name in tensors:
                raise ModelError(
                    f"{folder / name} holds `{printable(tensor.name)}`, which {files[tensor.name]} holds too.",
                    cure=AGAIN,
                )
            tensors[tensor.name] = tensor
            files[tensor.name] = name
        if len(tensors) > MAX_TENSORS:
            raise ModelError(
                f"{folder / name}: the model has more than {MAX_TENSORS:,} tensors.", cure="Do not use this model."
            )
    if not tensors:
        raise ModelError(f"{folder / names[0]} holds no tensor.", cure=AGAIN)
    return Weights(tensors, files)


def check_index(index: Path, weights: Weights) -> None:
    """Check that an index names every tensor of its shards, in the shard where it is.

    Raises:
        ModelError: it does not.
    """
    named = read_weight_map(index)
    for name, file in named.items():
        if weights.files.get(name) != file:
            raise ModelError(
                f"{index} places `{printable(name)}` in {file}, which does not hold it.",
                cure="Download the index and its shards again, from one revision.",
            )
    unnamed = next((name for name in weights.files if name not in named), None)
    if unnamed is not None:
        raise ModelError(
            f"{weights.files[unnamed]} holds `{printable(unnamed)}`, which {index} does not name.",
            cure="Download the index and its shards again, from one revision.",
        )


def pickled_weights(folder: Path, top: Iterable[str], is_there: Callable[[str], bool]) -> list[str]:
    """Names of the pickles that an engine would load where there is no safetensors file.

    Raises:
        ModelError: their index is malformed, or a shard is missing.
    """
    names = sorted(top)
    if PICKLE_INDEX in names:
        return _shards_of(folder / PICKLE_INDEX, is_there)
    found = [name for name in names if name.endswith(PICKLED_WEIGHTS)]
    return [name for name in found if name.startswith("pytorch_model")] or found
