"""Finds the model that is to be served and checks its folder before an engine is started on it.

Nothing is loaded: only names, sizes, small JSON files and safetensors headers are read
(https://huggingface.co/docs/safetensors/index#format). A folder may be hostile; every finding is a
:class:`ModelError` with a cure.
"""

from __future__ import annotations

import hashlib
import json
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
    """

    source: str
    name: str
    folder: Path | None
    revision: str
    max_model_len: int | None
    weight_bytes: int


def resolve(source: str, name: str | None) -> Model:
    """Find and check a model.

    Args:
        source: folder, ``demo``, or ``org/name`` on the Hugging Face hub.
        name: name to serve it under; None takes the folder's.

    Raises:
        ModelError: it is not there, or cannot be served.
    """
    folder = Path(source).expanduser()
    if source == DEMO and not folder.exists():
        return check_folder(_demo_folder(), name or DEMO_NAME)
    if folder.exists():
        return check_folder(folder.resolve(), name or folder.resolve().name)
    if "@" in source:
        raise ModelError(
            f"`{source}` names a version, and there is no registry here yet.",
            cure="Give the folder of the model with --model PATH.",
        )
    if _HUB_NAME.fullmatch(source) and not source.startswith((".", "/")):
        digest = hashlib.sha256(source.encode()).hexdigest()[:12]
        return Model(source, name or source, None, f"hub-{digest}", None, 0)
    raise ModelError(
        f"There is no model folder `{source}`.",
        cure="Give a folder with config.json and *.safetensors, a Hugging Face name (org/model), or `demo`.",
    )


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
    if not config.get("architectures"):
        raise ModelError(
            f"{folder / 'config.json'} names no `architectures`.", cure="vLLM needs them to choose its implementation."
        )
    if not any((folder / f).is_file() for f in ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")):
        raise ModelError(
            f"{folder} has no tokenizer.", cure="Copy tokenizer.json (or tokenizer.model) beside the config."
        )
    weights = _weight_files(folder)
    for path in weights:
        check_safetensors(path)
    longest = config.get("max_position_embeddings")
    return Model(
        source=str(folder),
        name=name,
        folder=folder,
        revision=f"local-{fingerprint(folder)}",
        max_model_len=longest if isinstance(longest, int) and longest > 0 else None,
        weight_bytes=sum(path.stat().st_size for path in weights),
    )


def _read_json(path: Path, why: str) -> dict[str, Any]:
    try:
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
            raise ModelError(f"{index} points outside its folder ({outside[0]}).", cure="Do not use this model.")
        missing = [n for n in names if not (folder / n).is_file()]
        if missing:
            raise ModelError(
                f"{len(missing)} of {len(names)} weight files are missing, the first is {missing[0]}.",
                cure="Finish the download.",
            )
        return [folder / n for n in names]
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if pickles:
        raise ModelError(
            f"{folder} has its weights only as pickles ({pickles[0].name}), which can run code when loaded.",
            cure="Convert them to safetensors first.",
        )
    raise ModelError(f"{folder} has no weights.", cure="It needs model.safetensors, or its shards with their index.")


def check_safetensors(path: Path) -> None:
    """Check a safetensors file's header against its size.

    Raises:
        ModelError: not a safetensors file, or cut; says how many bytes are missing.
    """
    size = path.stat().st_size
    try:
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
        if not all(isinstance(end, int) and end >= 0 for end in ends):
            raise TypeError
    except (AttributeError, KeyError, IndexError, TypeError) as exc:
        raise ModelError(f"{path} has a damaged header.", cure="Download it again.") from exc
    return max(ends, default=0)


def fingerprint(folder: Path) -> str:
    """Twelve hex digits of SHA-256 over names, sizes and contents of the folder's files.

    Of files above 256 MiB only the size and the first and last MiB are hashed, so that start-up stays quick: this
    tells revisions apart and does not prove that a file is whole (the registry's digests do).
    """
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        size = path.stat().st_size
        total.update(f"{path.relative_to(folder)}\0{size}\0".encode())
        with path.open("rb") as file:
            if size > SAMPLED_ABOVE_BYTES:
                total.update(file.read(_BLOCK))
                file.seek(size - _BLOCK)
                total.update(file.read(_BLOCK))
            else:
                while block := file.read(_BLOCK):
                    total.update(block)
    return total.hexdigest()[:12]
