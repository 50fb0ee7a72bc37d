"""Finds the model that is to be served and checks its folder before an engine is started on it.

Nothing is loaded: only names, sizes, small JSON files and safetensors headers are read
(https://huggingface.co/docs/safetensors/index#format). A folder may be hostile; every finding is a
:class:`ModelError` with a cure.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferdock.domain.errors import ModelError

DEMO = "demo"
DEMO_NAME = "inferdock-demo"
MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_SAFETENSORS_HEADER = 100_000_000
"""The format's own limit."""
SAMPLED_ABOVE_BYTES = 256 * 1024 * 1024
_BLOCK = 1024 * 1024
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_SHARD = re.compile(r"(.*)-(\d{1,9})-of-(\d{1,9})\.safetensors")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that an engine may be started on.

    Attributes:
        source: folder, or Hugging Face name.
        name: name that clients ask for.
        folder: the folder, None for a Hugging Face name.
        revision: ``local-<12 hex>`` of a folder, ``hub-<12 hex>`` of a name.
        max_model_len: longest prompt plus answer by the model's own config; None when unknown.
        weight_bytes: size of the weights; 0 when unknown.
        digest: 64 hex digits over the folder's files, or over the name.
    """

    source: str
    name: str
    folder: Path | None
    revision: str
    max_model_len: int | None
    weight_bytes: int
    digest: str = ""


def resolve(source: str, name: str | None) -> Model:
    """Find and check a model.

    Args:
        source: folder, ``demo``, or ``org/name`` on the Hugging Face hub.
        name: name to serve it under; None takes the folder's.

    Raises:
        ModelError: it is not there, or cannot be served.
    """
    folder = _existing(source)
    if source == DEMO and folder is None:
        return check_folder(_demo_folder(), name or DEMO_NAME)
    if folder is not None:
        return check_folder(folder, name or folder.name)
    if "@" in source:
        raise ModelError(
            f"`{source}` names a version, and there is no registry here yet.",
            cure="Give the folder of the model with --model PATH.",
        )
    if _HUB_NAME.fullmatch(source) and not source.startswith((".", "/")):
        digest = hashlib.sha256(source.encode()).hexdigest()
        return Model(source, name or source, None, f"hub-{digest[:12]}", None, 0, digest)
    raise ModelError(
        f"There is no model folder `{source}`.",
        cure="Give a folder with config.json and *.safetensors, a Hugging Face name (org/model), or `demo`.",
    )


def _existing(source: str) -> Path | None:
    """The path that ``source`` spells, if there is something."""
    try:
        return Path(source).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # not there, too long, no such home, a loop of links, a NUL
        return None


def _demo_folder() -> Path:
    checkout = Path(__file__).resolve().parents[3] / "models" / "demo"
    installed = Path(sys.prefix) / "share" / "inferdock" / "models" / "demo"
    for folder in (checkout, installed):
        if (folder / "config.json").is_file():
            return folder
    raise ModelError("The demo model is not installed.", cure="Run from a checkout, or install the package with pip.")


def check_folder(folder: Path, name: str) -> Model:
    """Check a folder of Hugging Face files.

    Raises:
        ModelError: a file is missing, cut or malformed, or the weights are pickles.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder.", cure="Give the folder that holds config.json.")
    config = _read_json(folder / "config.json", "It is part of every Hugging Face model folder.")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise ModelError(
            f"{folder / 'config.json'} names no `architectures`.", cure="vLLM needs them to choose its implementation."
        )
    if not any((folder / f).is_file() for f in TOKENIZERS) and not any(folder.glob("*.tiktoken")):
        raise ModelError(
            f"{folder} has no tokenizer.", cure="Copy tokenizer.json (or tokenizer.model) beside the config."
        )
    weights = _weight_files(folder)
    for path in weights:
        check_safetensors(path)
    digest = fingerprint(folder)
    return Model(
        source=str(folder),
        name=name,
        folder=folder,
        revision=f"local-{digest[:12]}",
        max_model_len=_longest(config),
        weight_bytes=sum(path.stat().st_size for path in weights),
        digest=digest,
    )


def _longest(config: dict[str, Any]) -> int | None:
    """Longest context by the config; None where vLLM derives it in another way and must be the judge."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if isinstance(scaling, dict) and "factor" in scaling:
        return None
    longest = config.get("max_position_embeddings")
    return longest if type(longest) is int and longest > 0 else None


def _read_json(path: Path, why: str) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is not a file.", cure="Download it again.")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(f"{path} is larger than 64 MiB.", cure="Download it again.")
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path} is missing.", cure=why) from None
    except OSError as exc:
        raise ModelError(f"{path} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{path} is not valid JSON.", cure="Download it again.") from exc
    if not isinstance(data, dict):
        raise ModelError(f"{path} does not hold a JSON object.", cure="Download it again.")
    return data


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _read_json(index, "").get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(s, str) for s in shards.values()):
            raise ModelError(f"{index} has no usable `weight_map`.", cure="Download it again.")
        names = sorted(set(shards.values()))
        outside = [n for n in names if Path(n).is_absolute() or ".." in Path(n).parts]
        if outside:
            raise ModelError(
                f"{index} points outside its folder ({outside[0][:200]!r}).", cure="Do not use this model."
            )
        missing = [n for n in names if not _is_file(folder / n)]
        if missing:
            raise ModelError(
                f"{len(missing)} of {len(names)} weight files are missing, the first is {missing[0][:200]!r}.",
                cure="Finish the download.",
            )
        return [folder / n for n in names]
    found = sorted(folder.glob("*.safetensors"))
    if found:
        _require_all_shards(found)
        return found
    pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if pickles:
        raise ModelError(
            f"{folder} has its weights only as pickles ({pickles[0].name}), which can run code when loaded.",
            cure="Convert them to safetensors first.",
        )
    raise ModelError(f"{folder} has no weights.", cure="It needs model.safetensors, or its shards with their index.")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, for instance
        return False


def _require_all_shards(found: list[Path]) -> None:
    """Names such as ``model-00001-of-00003.safetensors`` say how many there must be, even without an index."""
    shards = [match for path in found if (match := _SHARD.fullmatch(path.name))]
    for match in shards:
        there = sum(other[1] == match[1] and other[3] == match[3] for other in shards)
        if there < int(match[3]):
            raise ModelError(
                f"{int(match[3]) - there} of {int(match[3])} weight files are missing beside {match[0]!r}.",
                cure="Finish the download.",
            )


def check_safetensors(path: Path) -> None:
    """Check a safetensors file's header against its size.

    Raises:
        ModelError: not a safetensors file, or cut; says how many bytes are missing.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise ModelError(f"{path} is not a file.", cure="Download it again.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > MAX_SAFETENSORS_HEADER or length > size - 8:
                raise ModelError(f"{path} is cut or not a safetensors file.", cure="Download it again.")
            header = json.loads(file.read(length))
    except OSError as exc:
        raise ModelError(f"{path} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{path} has a damaged header.", cure="Download it again.") from exc
    needed = 8 + length + _data_end(path, header)
    if needed > size:
        raise ModelError(f"{path} is cut: {needed - size} bytes are missing.", cure="Finish the download.")


def _data_end(path: Path, header: Any) -> int:
    try:
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        if not all(type(end) is int and end >= 0 for end in ends):
            raise TypeError
    except (AttributeError, KeyError, IndexError, TypeError) as exc:
        raise ModelError(f"{path} has a damaged header.", cure="Download it again.") from exc
    return max(ends, default=0)


def fingerprint(folder: Path) -> str:
    """64 hex digits of SHA-256 over names, sizes and contents of the folder's files.

    Of files above 256 MiB only the size and the first and last MiB are hashed, so that start-up stays quick: this
    tells revisions apart and does not prove that a file is whole (the registry's digests do). Hidden files and
    folders do not count: download tools keep their notes there.

    Raises:
        ModelError: a file cannot be read.
    """
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if not _hidden(p.relative_to(folder)) and p.is_file()):
        try:
            _hash_file(total, path, os.fsencode(path.relative_to(folder)))
        except OSError as exc:
            raise ModelError(f"{path} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc
    return total.hexdigest()


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _hash_file(total: hashlib._Hash, path: Path, name: bytes) -> None:
    size = path.stat().st_size
    total.update(b"%b\0%d\0" % (name, size))
    with path.open("rb") as file:
        if size > SAMPLED_ABOVE_BYTES:
            total.update(file.read(_BLOCK))
            file.seek(size - _BLOCK)
            total.update(file.read(_BLOCK))
        else:
            while block := file.read(_BLOCK):
                total.update(block)
