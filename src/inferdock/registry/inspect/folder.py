"""Reads a folder that is to be pushed, and refuses what may not be: the one door of this package.

Only names, sizes, JSON, the first bytes of each file and the headers of the weights are read. Nothing is loaded,
unpickled or run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.config import CONFIG_CURE, ModelConfig, read_config
from inferdock.registry.inspect.contents import Danger, Finding, look
from inferdock.registry.inspect.facts import Facts
from inferdock.registry.inspect.json_files import check_json, is_object, open_regular, pick, read_object, values
from inferdock.registry.inspect.quantization import count_parameters, is_packed, read_quantization
from inferdock.registry.inspect.safetensors import DTYPES, read_header
from inferdock.registry.inspect.shapes import check_agreement, embedding_of
from inferdock.registry.inspect.tokenizer import ids_needed, require_tokenizer
from inferdock.registry.inspect.walk import LocalFile, find_files
from inferdock.registry.inspect.weights import (
    INDEX,
    NO_WEIGHTS_CURE,
    Weights,
    check_index,
    pickled_weights,
    read_weights,
    weight_files,
)

__all__ = ["Inspection", "LocalFile", "Permissions", "inspect_folder"]

_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES: Final = 1024
_CONFIG: Final = "config.json"
_TOKENIZER: Final = "tokenizer.json"
_REMOTE_CODE_CURE: Final = "Say --trust-remote-code if you have read that code."


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What a person allows in a model, or what a model needs.

    Attributes:
        pickle: files that can run code when they are loaded.
        remote_code: programs, scripts, and configs that name Python classes to import.
    """

    pickle: bool = False
    remote_code: bool = False


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a folder that may be pushed.

    Attributes:
        files: sorted by path.
        facts: what the model is.
        needed: those of the allowed permissions that it really uses.
    """

    files: tuple[LocalFile, ...]
    facts: Facts
    needed: Permissions


def inspect_folder(folder: Path, *, allowed: Permissions, exclude: Sequence[str] = ()) -> Inspection:
    """Check a model folder and read its facts.

    Args:
        folder: Hugging Face files.
        allowed: dangers that a person takes.
        exclude: globs of files to leave out.

    Raises:
        ModelError: it may not be pushed; names the file and the cure.
    """
    files = find_files(folder, exclude)
    by_path = {file.path: file for file in files}
    top = [path for path in by_path if "/" not in path]
    if _CONFIG not in by_path:
        raise ModelError(f"{folder / _CONFIG} is missing.", cure=CONFIG_CURE)
    config = read_config(folder / _CONFIG)
    require_tokenizer(folder, top)
    names = weight_files(folder, top, by_path.__contains__)
    pickles = [] if names else _pickles(folder, top, by_path, allowed)
    needed = _check_each(folder, files, frozenset(names), allowed)
    if names:
        return Inspection(files, _with_weights(folder, config, top, by_path, names), needed)
    quantization = read_quantization(folder, config.quantization, top)
    size = sum(by_path[name].size for name in pickles)
    facts = _facts(config, quantization=quantization, tied=bool(config.tied), weight_bytes=size)
    return Inspection(files, facts, needed)


def _check_each(folder: Path, files: Sequence[LocalFile], weights: frozenset[str], allowed: Permissions) -> Permissions:
    """Look at every file by itself. The weights' headers are read later, all together."""
    pickle = remote_code = False
    for file in files:
        path = folder / file.path
        _refuse_pointer(path, file.size)
        finding = None
        if file.path.endswith(".safetensors"):
            if file.path not in weights:
                read_header(path)
        elif file.path.endswith(".json"):
            check_json(path)
            finding = _classes_named(path, file.path)
        else:
            finding = look(path)
        if finding is not None:
            _require(folder, file.path, finding, allowed)
            pickle |= finding.danger is Danger.PICKLE
            remote_code |= finding.danger is Danger.CODE
    return Permissions(pickle=pickle, remote_code=remote_code)


def _refuse_pointer(path: Path, size: int) -> None:
    """Git leaves a small text in the place of each large file that was not fetched."""
    if size <= _POINTER_BYTES:
        with open_regular(path) as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise ModelError(
                    f"{path} is a Git LFS pointer instead of the file.", cure="Fetch it with `git lfs pull`."
                )


def _classes_named(path: Path, name: str) -> Finding | None:
    """``auto_map`` tells Transformers which Python classes to import, from the folder or from elsewhere on the hub."""
    if "/" in name or not name.endswith("config.json"):
        return None
    auto_map = pick(read_object(path), "auto_map")["auto_map"]
    if is_object(auto_map) and values(auto_map):
        return Finding(Danger.CODE, "names Python classes to import (`auto_map`)")
    return None


def _require(folder: Path, name: str, finding: Finding, allowed: Permissions) -> None:
    if finding.danger is Danger.PICKLE and not allowed.pickle:
        cure = f"Leave it out with --exclude '{name}', or say --allow-pickle if you trust whoever made it."
    elif finding.danger is Danger.CODE and not allowed.remote_code:
        named = name.endswith(".json")
        cure = _REMOTE_CODE_CURE if named else f"Leave it out with --exclude '{name}'. {_REMOTE_CODE_CURE}"
    else:
        return
    raise ModelError(f"{folder / name} {finding.why}.", cure=cure)


def _with_weights(
    folder: Path, config: ModelConfig, top: Sequence[str], files: Mapping[str, LocalFile], names: Sequence[str]
) -> Facts:
    weights = read_weights(folder, names)
    if INDEX in top:
        check_index(folder / INDEX, weights)
    quantization = read_quantization(folder, config.quantization, top)
    packed = quantization is not None or is_packed(weights.tensors)
    check_agreement(folder, config, weights, packed=packed)
    _check_tokenizer(folder, config, top, weights)
    dtypes = _dtypes(weights)
    tied = "lm_head.weight" not in weights.tensors if config.tied is None else config.tied
    return _facts(
        config,
        parameters=count_parameters(weights.tensors, quantization, tied and embedding_of(config, weights) is not None),
        dtype=max(dtypes, key=lambda name: (dtypes[name], name)),
        dtypes=dtypes,
        quantization=quantization,
        tied=tied,
        weight_bytes=sum(files[name].size for name in names),
    )


def _pickles(folder: Path, top: Sequence[str], files: Mapping[str, LocalFile], allowed: Permissions) -> list[str]:
    """Names of the weights where they are pickles. Those are never opened, so only their size will be known."""
    names = pickled_weights(folder, top, files.__contains__)
    if not names:
        raise ModelError(f"{folder} has no weights.", cure=NO_WEIGHTS_CURE)
    if not allowed.pickle:
        raise ModelError(
            f"{folder} has its weights only as pickles ({names[0]}), which can run code when loaded.",
            cure="Convert them to safetensors first, or say --allow-pickle if you trust whoever made them.",
        )
    return names


def _facts(
    config: ModelConfig,
    *,
    quantization: dict[str, str | int] | None,
    tied: bool,
    weight_bytes: int,
    parameters: int = 0,
    dtype: str = "",
    dtypes: Mapping[str, int] | None = None,
) -> Facts:
    return Facts(
        architecture=config.architectures[0],
        model_type=config.model_type,
        parameters=parameters,
        dtype=dtype,
        dtypes=dtypes or {},
        quantization=quantization,
        context_length=config.context_length,
        vocabulary_size=config.numbers.get("vocab_size"),
        layers=config.numbers.get("num_hidden_layers"),
        hidden_size=config.numbers.get("hidden_size"),
        tied_embeddings=tied,
        weight_bytes=weight_bytes,
    )


def _dtypes(weights: Weights) -> dict[str, int]:
    """Bytes of the tensors by the common name of their type."""
    found: dict[str, int] = {}
    for tensor in weights.tensors.values():
        name = DTYPES[tensor.dtype][1]
        found[name] = found.get(name, 0) + tensor.end - tensor.begin
    return dict(sorted(found.items()))


def _check_tokenizer(folder: Path, config: ModelConfig, top: Sequence[str], weights: Weights) -> None:
    embedding = embedding_of(config, weights)
    if embedding is None or _TOKENIZER not in top:
        return
    rows, needed = weights.tensors[embedding].shape[0], ids_needed(folder / _TOKENIZER)
    if needed > rows:
        raise ModelError(
            f"{folder / _TOKENIZER} has the id {needed - 1}, and `{embedding}` has {rows} rows.",
            cure="Use the tokenizer that was made with these weights.",
        )
