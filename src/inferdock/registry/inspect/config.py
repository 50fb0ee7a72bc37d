"""What ``config.json`` says of a model, read leniently: what has the wrong type counts as not said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.json_files import (
    Members,
    flag,
    integer,
    integers,
    is_null,
    is_object,
    pick,
    read_object,
    text,
    texts,
    word,
)

_NUMBERS: Final = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_hidden_layers",
    "vocab_size",
    "max_position_embeddings",
    "num_local_experts",
    "num_experts",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "decoder_sparse_step",
)
_OTHER_NAMES: Final = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "max_position_embeddings": ("n_positions", "max_seq_len"),
}
"""Older families (GPT-2, MPT) spell these in their own way."""
_NESTS: Final = ("text_config", "llm_config", "language_config")
"""Where models of several modalities keep the config of their language model."""
_QUANTIZATIONS: Final = ("quantization_config", "compression_config", "quantization")
_SCALINGS: Final = ("rope_scaling", "rope_parameters")
_KEYS: Final = (
    *_NUMBERS,
    *(name for names in _OTHER_NAMES.values() for name in names),
    *_QUANTIZATIONS,
    *_SCALINGS,
    "tie_word_embeddings",
    "mlp_only_layers",
)
_TOO_LARGE: Final = 2**40
_CLASS_NAME: Final = re.compile(r"\w{1,200}")
CONFIG_CURE: Final = "It is part of every Hugging Face model folder."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A config.

    Attributes:
        architectures: names of the classes that implement it, never empty.
        model_type: "" where it names none.
        context_length: longest prompt plus answer in tokens; None where engines derive it in another way.
        numbers: sizes by the common name of their key; only what is a positive integer.
        odd: keys of sizes that hold something else, such as a list with one entry for each layer.
        dense_layers: layers without experts in a model that has some.
        tied: the output layer uses the embedding's weights; None where it does not say.
        nested: the sizes are those of the language model in a model of several modalities.
        quantization: the object that says how the weights are packed; None when there is none.
    """

    architectures: tuple[str, ...]
    model_type: str
    context_length: int | None
    numbers: Mapping[str, int]
    odd: frozenset[str]
    dense_layers: frozenset[int]
    tied: bool | None
    nested: bool
    quantization: msgspec.Raw | None


def read_config(path: Path) -> ModelConfig:
    """Read ``config.json``.

    Raises:
        ModelError: it is missing or malformed, or names no architecture.
    """
    data = read_object(path, CONFIG_CURE)
    names = pick(data, "architectures", "model_type", *_NESTS)
    architectures = [name for name in texts(names["architectures"]) if _CLASS_NAME.fullmatch(name)]
    if not architectures:
        raise ModelError(f"{path} names no `architectures`.", cure="vLLM needs them to choose its implementation.")
    outer = pick(data, *_KEYS)
    inner = next((names[nest] for nest in _NESTS if is_object(names[nest])), None)
    members = outer if inner is None else _over(pick(inner, *_KEYS), outer)
    numbers, odd = _numbers(members)
    return ModelConfig(
        architectures=tuple(architectures),
        model_type=word(names["model_type"]) or "",
        context_length=_context_length(members, numbers),
        numbers=numbers,
        odd=odd,
        dense_layers=frozenset(integers(members["mlp_only_layers"])),
        tied=flag(members["tie_word_embeddings"]),
        nested=inner is not None,
        quantization=next((members[key] for key in _QUANTIZATIONS if is_object(members[key])), None),
    )


def _over(inner: Members, outer: Members) -> Members:
    return {key: outer[key] if is_null(value) else value for key, value in inner.items()}


def _numbers(members: Members) -> tuple[dict[str, int], frozenset[str]]:
    numbers: dict[str, int] = {}
    odd = set()
    for key in _NUMBERS:
        said = [members[name] for name in (key, *_OTHER_NAMES.get(key, ())) if not is_null(members[name])]
        if not said:
            continue
        number = integer(said[0])
        if number is None or not 0 < number < _TOO_LARGE:
            odd.add(key)
        else:
            numbers[key] = number
    return numbers, frozenset(odd)


def _context_length(members: Members, numbers: Mapping[str, int]) -> int | None:
    """None where vLLM multiplies it by a factor and must be the judge; of `llama3` the length already is the longer."""
    for key in _SCALINGS:
        scaling = pick(members[key], "factor", "rope_type", "type")
        kind = text(scaling["rope_type"]) or text(scaling["type"])
        if not is_null(scaling["factor"]) and kind != "llama3":
            return None
    return numbers.get("max_position_embeddings")
