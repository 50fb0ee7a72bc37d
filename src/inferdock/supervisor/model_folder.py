"""Finds the model that is to be served and checks its folder before an engine is started on it.

Nothing is loaded: only names, sizes, small JSON files and the headers of the weights are read, by the same code that
the registry inspects a folder with before it is pushed. Here it is more lenient: other files beside the weights do not
matter. A folder may be hostile; every finding is a :class:`ModelError` with a cure.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.config import read_config
from inferdock.registry.inspect.safetensors import read_header
from inferdock.registry.inspect.tokenizer import require_tokenizer
from inferdock.registry.inspect.weights import NO_WEIGHTS_CURE, pickled_weights, weight_files

DEMO = "demo"
DEMO_NAME = "inferdock-demo"
SAMPLED_ABOVE_BYTES = 256 * 1024 * 1024
_BLOCK = 1024 * 1024
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that an engine may be started on.

    Attributes:
        source: folder, Hugging Face name, or version in the registry.
        name: name that clients ask for.
        folder: the folder, None for a Hugging Face name.
        revision: ``local-<12 hex>`` of a folder, ``hub-<12 hex>`` of a name, ``<version>-<12 hex>`` of a version in the
            registry.
        max_model_len: longest prompt plus answer by the model's own config; None when unknown.
        weight_bytes: size of the weights; 0 when unknown.
        digest: 64 hex digits over the folder's files, or over the name; the registry's revision.
        arguments: for the engine, as the version was pushed with.
        reference: ``name@version`` of a version in the registry, "" of all else.
    """

    source: str
    name: str
    folder: Path | None
    revision: str
    max_model_len: int | None
    weight_bytes: int
    digest: str = ""
    arguments: tuple[str, ...] = ()
    reference: str = ""


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
    if _HUB_NAME.fullmatch(source) and not source.startswith((".", "/")):
        digest = hashlib.sha256(source.encode()).hexdigest()
        return Model(source, name or source, None, f"hub-{digest[:12]}", None, 0, digest)
    raise ModelError(
        f"There is no model folder `{source}`.",
        cure="Give a folder with config.json and *.safetensors, a Hugging Face name (org/model), or `demo`.",
    )


def there_is(source: str) -> bool:
    """Whether ``source`` is the path of something."""
    return _existing(source) is not None


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
    config = read_config(folder / "config.json")
    names = _names_in(folder)
    require_tokenizer(folder, [name for name in names if _is_file(folder / name)])
    weights = [folder / name for name in weight_files(folder, names, lambda name: _is_file(folder / name))]
    if not weights:
        raise _without_weights(folder, names)
    for path in weights:
        read_header(path)
    digest = fingerprint(folder)
    return Model(
        source=str(folder),
        name=name,
        folder=folder,
        revision=f"local-{digest[:12]}",
        max_model_len=config.context_length,
        weight_bytes=sum(path.stat().st_size for path in weights),
        digest=digest,
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as exc:
        raise ModelError(f"{folder} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False


def _without_weights(folder: Path, names: list[str]) -> ModelError:
    pickles = pickled_weights(folder, names, lambda name: _is_file(folder / name))
    if pickles:
        return ModelError(
            f"{folder} has its weights only as pickles ({pickles[0]}), which can run code when loaded.",
            cure="Convert them to safetensors first.",
        )
    return ModelError(f"{folder} has no weights.", cure=NO_WEIGHTS_CURE)


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
