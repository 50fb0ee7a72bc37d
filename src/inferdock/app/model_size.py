"""What a version in the registry takes on a GPU, from its manifest and its ``config.json``; no weights are read."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferdock.app.registry import open_registry
from inferdock.config.settings import RegistrySettings
from inferdock.domain.errors import IntegrityError, ResourceError
from inferdock.registry.inspect.kv_cache import kv_values_per_token
from inferdock.registry.manifest import FileEntry, Manifest
from inferdock.registry.names import Reference
from inferdock.registry.store import Place, Store

CONFIG: Final = "config.json"
KV_BYTES: Final[Mapping[str, int]] = {
    "auto": 2,
    "bfloat16": 2,
    "float16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
}
"""Bytes of one number by ``--kv-cache-dtype``. ``auto`` is the model's type, which on GPUs has 16 bits: vLLM halves
float32 by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """A version's size.

    Attributes:
        reference: NAME@VERSION.
        weight_bytes: of its weight files.
        kv_bytes_per_token: None where neither config nor arguments say it plainly.
        max_model_len: longest prompt plus answer in tokens, by its arguments, else its config; None where unknown.
    """

    reference: str
    weight_bytes: int
    kv_bytes_per_token: int | None
    max_model_len: int | None


def model_size(settings: RegistrySettings, environment: Mapping[str, str], text: str) -> ModelSize:
    """The size of a version.

    Args:
        settings: which registry.
        environment: of the process.
        text: ``name``, ``name@1.2.0`` or ``name@alias``.

    Raises:
        ConfigError: ``text`` is no reference, or the registry's address is wrong.
        RegistryError: there is no such version.
        IntegrityError: its manifest or its config is not the one that was pushed.
        UnreachableError: the registry cannot be reached.
        ResourceError: no temporary file can be written.
    """
    registry = open_registry(settings, environment)
    manifest = registry.version(Reference.parse(text)).manifest
    facts, arguments = manifest.content.facts, manifest.content.engine.arguments
    values = _values(registry.store, manifest)
    each = KV_BYTES.get(_argument(arguments, "--kv-cache-dtype") or "auto")
    length = _argument(arguments, "--max-model-len") or ""
    return ModelSize(
        reference=f"{manifest.name}@{manifest.version}",
        weight_bytes=facts.weight_bytes,
        kv_bytes_per_token=None if values is None or each is None else values * each,
        max_model_len=int(length) if length.isdecimal() else facts.context_length,
    )


def _values(store: Store, manifest: Manifest) -> int | None:
    entry = next((entry for entry in manifest.content.files if entry.path == CONFIG), None)
    if entry is None:
        return None
    data = _read(store, manifest, entry)
    try:
        with tempfile.TemporaryDirectory(prefix="inferdock-") as folder:
            file = Path(folder) / CONFIG
            file.write_bytes(data)
            return kv_values_per_token(file)
    except OSError as exc:
        raise ResourceError(f"No temporary file can be written: {exc.strerror}.", cure="Set TMPDIR.") from exc


def _read(store: Store, manifest: Manifest, entry: FileEntry) -> bytes:
    place = Place(manifest.name, manifest.version, entry.path)
    parts, left = [], entry.size
    with store.open(place, length=entry.size) as reader:
        while left > 0 and (part := reader.read(left)):
            parts.append(part)
            left -= len(part)
    data = b"".join(parts)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise IntegrityError(
            f"{place} in {store.location} is not the file that was pushed.",
            cure="Restore it from a backup of the store, or push the model again under a new version.",
        )
    return data


def _argument(arguments: Sequence[str], flag: str) -> str | None:
    """The last value of an option in a command line, as ``--flag value`` or ``--flag=value``."""
    found = None
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == flag:
            found = value if equals else next(iter(arguments[index + 1 : index + 2]), None)
    return found
