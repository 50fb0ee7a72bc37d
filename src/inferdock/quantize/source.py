"""Whether a folder can be quantised as asked, and what it will take. Reads headers only: seconds, not an hour."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from inferdock.domain.errors import ModelError, ResourceError
from inferdock.quantize.recipe import GROUP_SIZES, Recipe
from inferdock.registry.inspect.facts import Facts
from inferdock.registry.inspect.folder import Permissions, inspect_folder
from inferdock.registry.inspect.quantization import is_packed
from inferdock.registry.inspect.safetensors import DTYPES, Tensor, read_header
from inferdock.registry.manifest import Content

ARCHITECTURES: Final = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Decoders of the same blocks under the same names, each norm feeding what :data:`LINEAR` names."""
LINEAR: Final = re.compile(r"model\.layers\.([0-9]+)\.(self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.weight")
_MULTIPLE: Final = 32
"""Sides of a layer must be multiples of it for vLLM's CPU kernel."""
_FLOAT: Final = 4
"""Bytes of the numbers that are calculated with."""
_KEPT: Final = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_LEFT_OUT: Final = ("model.safetensors.index.json", "pytorch_model.bin.index.json", "config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A linear layer that will be quantised.

    Attributes:
        name: without ``.weight``.
        outputs, inputs: its sides.
        size_bytes: of its weights as they are.
    """

    name: str
    outputs: int
    inputs: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A folder that can be quantised.

    Attributes:
        folder: where it is.
        facts: what it is.
        layers: what will be quantised, in the order of their names' numbers.
        kept: files that are copied as they are (tokenizer, templates, generation settings).
        folder_bytes: size of all its files.
    """

    folder: Path
    facts: Facts
    layers: tuple[Layer, ...]
    kept: tuple[str, ...]
    folder_bytes: int

    @property
    def linear_bytes(self) -> int:
        """Bytes of the weights that will be quantised."""
        return sum(layer.size_bytes for layer in self.layers)


class _Config(msgspec.Struct):
    layer_types: list[str] | None = None


def read_source(folder: Path, recipe: Recipe, known: Content | None = None) -> Source:
    """Look at a folder.

    Args:
        folder: the model.
        recipe: what is wanted of it.
        known: what its manifest says, where it is a verified folder of the cache: its files are links.

    Raises:
        ModelError: it is no model, is quantised already, has another architecture, or the group size does not divide
            the inputs of a layer; names what does.
    """
    found = known or inspect_folder(folder, allowed=Permissions())
    facts = found.facts
    paths = [file.path for file in found.files]
    weights = [(folder / path).resolve() for path in paths if path.endswith(".safetensors")]
    tensors = {tensor.name: tensor for path in weights for tensor in read_header(path)}
    _refuse_quantised(folder, facts, tensors)
    _refuse_other_kinds(folder, facts)
    layers = tuple(_layers(tensors.values()))
    if not layers:
        raise ModelError(
            f"{folder} has no linear layers under the names of {facts.architecture}.",
            cure="Give a folder as Hugging Face writes it, with safetensors.",
        )
    check_sizes(layers, recipe.group_size)
    return Source(
        folder=folder,
        facts=facts,
        layers=layers,
        kept=tuple(p for p in paths if "/" not in p and p.endswith(_KEPT) and p not in _LEFT_OUT),
        folder_bytes=sum(file.size for file in found.files),
    )


def _refuse_quantised(folder: Path, facts: Facts, tensors: Mapping[str, Tensor]) -> None:
    if facts.quantization is None and not is_packed(tensors):
        return
    said = facts.quantization or {}
    words = [str(said.get("method", "packed weights")), *([f"{said['bits']} bits"] if "bits" in said else [])]
    raise ModelError(
        f"{folder} is quantised already ({', '.join(words)}).",
        cure="Push it as it is with `inferdock model push`, or quantise the model that it was made from.",
    )


def _refuse_other_kinds(folder: Path, facts: Facts) -> None:
    if facts.architecture not in ARCHITECTURES:
        raise ModelError(
            f"{facts.architecture} cannot be quantised here; {', '.join(ARCHITECTURES)} can.",
            cure="Quantise it with the tool of its makers, and push the result with `inferdock model push`.",
        )
    kinds = set(msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config).layer_types or ())
    if len(kinds) > 1:
        raise ModelError(
            f"The layers of {folder} attend in different ways ({', '.join(sorted(kinds))}), which is not supported.",
            cure="Quantise it with the tool of its makers, and push the result with `inferdock model push`.",
        )


def _layers(tensors: Iterable[Tensor]) -> Iterable[Layer]:
    found = [(int(match[1]), tensor) for tensor in tensors if (match := LINEAR.fullmatch(tensor.name))]
    for _, tensor in sorted(found, key=lambda pair: (pair[0], pair[1].name)):
        if len(tensor.shape) != 2:
            raise ModelError(f"{tensor.name} has {len(tensor.shape)} sides, not two.", cure="Check the folder.")
        yield Layer(
            name=tensor.name.removesuffix(".weight"),
            outputs=tensor.shape[0],
            inputs=tensor.shape[1],
            size_bytes=tensor.elements * DTYPES[tensor.dtype][0] // 8,
        )


def check_sizes(layers: Iterable[Layer], group_size: int) -> None:
    """Whether groups and kernels fit the layers.

    Raises:
        ModelError: they do not; names the first layer, and the group sizes that would do.
    """
    layers = tuple(layers)
    for layer in layers:
        if layer.inputs % group_size:
            good = [str(size) for size in GROUP_SIZES if not any(other.inputs % size for other in layers)]
            raise ModelError(
                f"A group size of {group_size} does not divide the {layer.inputs} inputs of {layer.name}.",
                cure=f"Give --group-size {' or '.join(good)}." if good else "No group size fits this model.",
            )
        if layer.inputs % _MULTIPLE or layer.outputs % _MULTIPLE:
            raise ModelError(
                f"{layer.name} is {layer.outputs} by {layer.inputs}: the engine's kernel for packed weights takes "
                f"multiples of {_MULTIPLE}.",
                cure="Serve this model as it is.",
            )


def memory_needed(source: Source, recipe: Recipe) -> int:
    """Bytes of memory that the work takes at its peak, counted up.

    The whole model and the result; of one block its weights in single precision three times over (as they are, scaled,
    quantised); for each distinct input of the block a square of it, twice; the calibration's hidden states, twice.
    """
    blocks: dict[str, list[Layer]] = defaultdict(list)
    for layer in source.layers:
        blocks[layer.name.split(".")[2]].append(layer)
    one = max(sum(_FLOAT * layer.outputs * layer.inputs for layer in layers) for layers in blocks.values())
    square = max(sum(_FLOAT * layer.inputs**2 for layer in layers) for layers in blocks.values())
    states = _FLOAT * (source.facts.hidden_size or 0) * recipe.samples * recipe.sequence_length
    return 2 * source.facts.weight_bytes + 3 * one + 2 * square + 2 * states


def check_memory(needed: int, available: int | None) -> None:
    """Whether the memory is there; nothing where nobody knows.

    Raises:
        ResourceError: it is not.
    """
    if available is not None and needed > available:
        raise ResourceError(
            f"Quantising this model takes {needed / 2**30:.1f} GiB of memory, and {available / 2**30:.1f} are free.",
            cure="Free some, use a larger machine, or give fewer --samples or a shorter --sequence-length.",
        )
