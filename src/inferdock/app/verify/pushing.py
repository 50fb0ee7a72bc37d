"""A registry of its own in a temporary folder, and a small model of some bytes to push into it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inferdock.app.registry import open_registry
from inferdock.config.settings import RegistrySettings
from inferdock.registry.names import Reference
from inferdock.registry.progress import Silent
from inferdock.registry.push import Pushed, Request, push
from inferdock.registry.registry import Registry

NAME: Final = "verify-tiny"
VERSION: Final = "1.0.0"
_SIZE, _VOCABULARY = 8, 16
_CONFIG: Final = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": _VOCABULARY,
    "hidden_size": _SIZE,
    "intermediate_size": _SIZE,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "torch_dtype": "float32",
}
_SQUARE: Final = [_SIZE, _SIZE]
_LAYER: Final = {
    **{f"self_attn.{part}_proj": _SQUARE for part in "qkvo"},
    **{f"mlp.{part}_proj": _SQUARE for part in ("gate", "up", "down")},
    **{f"{part}_layernorm": [_SIZE] for part in ("input", "post_attention")},
}
_SHAPES: Final = {
    "model.embed_tokens.weight": [_VOCABULARY, _SIZE],
    **{f"model.layers.0.{name}.weight": shape for name, shape in _LAYER.items()},
    "model.norm.weight": [_SIZE],
    "lm_head.weight": [_VOCABULARY, _SIZE],
}
WEIGHTS: Final = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A registry that is empty, its folder, and a folder with a model."""

    registry: Registry
    store: Path
    model: Path

    def push(self) -> Pushed:
        """Push the model as it is now."""
        return push(self.registry, Request(folder=self.model, name=NAME, version=VERSION), Silent())

    @property
    def reference(self) -> Reference:
        """What was pushed."""
        return Reference.parse(f"{NAME}@{VERSION}")

    @property
    def stored(self) -> Path:
        """Where the store keeps the version's files."""
        return self.store / "models" / NAME / f"v{VERSION}"


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """A registry and a model, gone after the block."""
    with tempfile.TemporaryDirectory(prefix="verify-") as name:
        folder = Path(name)
        settings = RegistrySettings(url=str(folder / "registry"), actor="verify")
        write_model(folder / "model")
        yield Bench(registry=open_registry(settings, {}), store=folder / "registry", model=folder / "model")


def write_model(folder: Path) -> None:
    """A model of a few kilobytes that passes every rule of the registry."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    words = {f"w{number}": number for number in range(_VOCABULARY)}
    tokenizer: dict[str, Any] = {"version": "1.0", "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / WEIGHTS).write_bytes(_weights())


def _weights() -> bytes:
    header, end = {}, 0
    for name, shape in _SHAPES.items():
        begin, end = end, end + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(number % 251 for number in range(end))


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by Python's own hashlib over the whole of it."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, which the store keeps read-only."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
