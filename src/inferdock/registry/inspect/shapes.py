"""Whether the weights are those that ``config.json`` describes: names, shapes, vocabulary.

Of a few well-known families each tensor's shape follows from the config, and all are compared. Of other architectures
only the rows of the embedding are, where its name is a known one. What cannot be judged passes: a wrong refusal of a
good model is worse than a missed check of an exotic one, which its engine makes again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.config import ModelConfig
from inferdock.registry.inspect.weights import Weights

Shape = tuple[int, ...]
_ARCHITECTURE: Final = re.compile(r"(\w+?)(ForCausalLM|Model|ForSequenceClassification|ForTokenClassification)")
_FLOATS: Final = frozenset(("F64", "F32", "F16", "BF16"))
_EMBEDDINGS: Final = (
    "model.embed_tokens.weight",
    "embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "transformer.wte.weight",
    "wte.weight",
    "gpt_neox.embed_in.weight",
    "transformer.word_embeddings.weight",
    "model.decoder.embed_tokens.weight",
)
_DRAFT_MARKS: Final = ("fc.weight", "model.fc.weight")
"""A head for speculative decoding names its big model's architecture and has only a part of it."""
_CURE: Final = "Use the config.json that was made with these weights."


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What one family of decoder models has beside attention and MLP.

    Attributes:
        norms: norms of a layer whose width is that of the model.
        head_dim: width of a head where the config is silent; None takes width / heads.
        qk_norm: queries and keys are normalised by head.
        fused: one matrix for query, key and value, and one for gate and up.
        tied: the output layer is the embedding where the config is silent.
        experts: config key of the number of experts, and name and width of an expert's matrices.
    """

    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    head_dim: int | None = None
    qk_norm: bool = False
    fused: bool = False
    tied: bool = False
    experts: str = ""


_FOUR_NORMS: Final = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
FAMILIES: Final[Mapping[str, Family]] = {
    "Llama": Family(),
    "Mistral": Family(),
    "Mixtral": Family(experts="mixtral"),
    "Qwen2": Family(),
    "Qwen2Moe": Family(experts="qwen"),
    "Qwen3": Family(head_dim=128, qk_norm=True),
    "Qwen3Moe": Family(qk_norm=True, experts="qwen"),
    "Phi3": Family(fused=True),
    "Gemma": Family(head_dim=256, tied=True),
    "Gemma2": Family(head_dim=256, tied=True, norms=_FOUR_NORMS),
    "Gemma3": Family(head_dim=256, tied=True, norms=_FOUR_NORMS, qk_norm=True),
}
"""By the architecture's name without its ending."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    width: int
    inner: int
    heads: int
    shared_heads: int
    head: int
    layers: int
    rows: int


def check_agreement(folder: Path, config: ModelConfig, weights: Weights, *, packed: bool) -> None:
    """Compare the weights with the config.

    Args:
        folder: the model, for messages.
        config: its config.
        weights: its tensors.
        packed: they are quantised, so that shapes are not those of the config.

    Raises:
        ModelError: they are not of one model; names the file and the tensor.
    """
    embedding = embedding_of(config, weights)
    wanted = config.numbers.get("vocab_size")
    if embedding is not None and wanted is not None and weights.tensors[embedding].shape[0] < wanted:
        raise ModelError(
            f"{folder / weights.files[embedding]}: `{embedding}` has {weights.tensors[embedding].shape[0]} rows, "
            f"and config.json asks for a vocabulary of {wanted}.",
            cure=_CURE,
        )
    match = _ARCHITECTURE.fullmatch(config.architectures[0])
    family = FAMILIES.get(match[1]) if match else None
    sizes = _sizes(config, family) if family else None
    is_draft = any(mark in weights.tensors for mark in _DRAFT_MARKS)
    if match is None or family is None or sizes is None or packed or config.nested or is_draft:
        return
    _Comparison(folder, config, family, sizes, weights).run(match[2] == "ForCausalLM")


def embedding_of(config: ModelConfig, weights: Weights) -> str | None:
    """Name of the tensor that holds a row for each token; None where it is not known, or packed."""
    found = [name for name in _EMBEDDINGS if name in weights.tensors]
    if len(found) != 1 or (config.nested and "language_model" not in found[0]):
        return None  # with several modalities another name may mean the tokens of sounds or images
    tensor = weights.tensors[found[0]]
    return found[0] if len(tensor.shape) == 2 and tensor.dtype in _FLOATS else None


def _sizes(config: ModelConfig, family: Family) -> _Sizes | None:
    """None where a size is not said or is not one number."""
    numbers = config.numbers
    heads = numbers.get("num_attention_heads")
    if config.odd or heads is None or not numbers.keys() >= {"hidden_size", "intermediate_size", "num_hidden_layers"}:
        return None
    width = numbers["hidden_size"]
    return _Sizes(
        width=width,
        inner=numbers["intermediate_size"],
        heads=heads,
        shared_heads=numbers.get("num_key_value_heads", heads),
        head=numbers.get("head_dim", family.head_dim or width // heads),
        layers=numbers["num_hidden_layers"],
        rows=numbers.get("vocab_size", 0),
    )


class _Comparison:
    """One model against one family's rules."""

    def __init__(self, folder: Path, config: ModelConfig, family: Family, sizes: _Sizes, weights: Weights) -> None:
        self._folder = folder
        self._config = config
        self._family = family
        self._sizes = sizes
        self._weights = weights

    def run(self, has_head: bool) -> None:
        """Compare every tensor that the family must have."""
        prefix = "" if "embed_tokens.weight" in self._weights.tensors else "model."
        self._compare(f"{prefix}embed_tokens.weight", (None, self._sizes.width))
        self._compare(f"{prefix}norm.weight", (self._sizes.width,))
        for layer in range(self._sizes.layers):
            for name, shape in self._layer(f"{prefix}layers.{layer}.", layer):
                self._compare(name, shape)
        self._refuse_more_layers(prefix)
        tied = self._family.tied if self._config.tied is None else self._config.tied
        if has_head and prefix and not tied:  # without prefix it was saved as a bare model, for embeddings
            self._compare("lm_head.weight", (None, self._sizes.width))

    def _layer(self, prefix: str, layer: int) -> Iterator[tuple[str, tuple[int | None, ...]]]:
        sizes, family = self._sizes, self._family
        queries, keys = sizes.heads * sizes.head, sizes.shared_heads * sizes.head
        for norm in family.norms:
            yield f"{prefix}{norm}.weight", (sizes.width,)
        attention = f"{prefix}self_attn."
        if family.fused:
            yield f"{attention}qkv_proj.weight", (queries + 2 * keys, sizes.width)
        else:
            yield f"{attention}q_proj.weight", (queries, sizes.width)
            yield f"{attention}k_proj.weight", (keys, sizes.width)
            yield f"{attention}v_proj.weight", (keys, sizes.width)
        yield f"{attention}o_proj.weight", (sizes.width, queries)
        if family.qk_norm:
            yield f"{attention}q_norm.weight", (sizes.head,)
            yield f"{attention}k_norm.weight", (sizes.head,)
        if not family.experts:
            yield from self._mlp(f"{prefix}mlp.", sizes.inner)
        else:
            yield from self._experts(prefix)

    def _mlp(self, prefix: str, inner: int) -> Iterator[tuple[str, Shape]]:
        if self._family.fused:
            yield f"{prefix}gate_up_proj.weight", (2 * inner, self._sizes.width)
        else:
            yield f"{prefix}gate_proj.weight", (inner, self._sizes.width)
            yield f"{prefix}up_proj.weight", (inner, self._sizes.width)
        yield f"{prefix}down_proj.weight", (self._sizes.width, inner)

    def _experts(self, prefix: str) -> Iterator[tuple[str, Shape]]:
        """Experts are compared where they are stored one by one; a layer may also be dense, or store them as one."""
        numbers, tensors = self._config.numbers, self._weights.tensors
        inner = numbers.get("moe_intermediate_size", 0)
        if f"{prefix}mlp.gate_proj.weight" in tensors:
            yield from self._mlp(f"{prefix}mlp.", self._sizes.inner)
        elif f"{prefix}mlp.experts.0.gate_proj.weight" in tensors and inner:
            for expert in range(numbers.get("num_experts", 1)):
                yield from self._mlp(f"{prefix}mlp.experts.{expert}.", inner)
        elif f"{prefix}block_sparse_moe.experts.0.w1.weight" in tensors:
            for expert in range(numbers.get("num_local_experts", 1)):
                name = f"{prefix}block_sparse_moe.experts.{expert}."
                yield f"{name}w1.weight", (self._sizes.inner, self._sizes.width)
                yield f"{name}w2.weight", (self._sizes.width, self._sizes.inner)
                yield f"{name}w3.weight", (self._sizes.inner, self._sizes.width)

    def _compare(self, name: str, wanted: tuple[int | None, ...]) -> None:
        tensor = self._weights.tensors.get(name)
        if tensor is None:
            raise ModelError(
                f"{self._folder}: the weights have no `{name}`, which {self._config.architectures[0]} needs by "
                "config.json.",
                cure=_CURE,
            )
        fits = len(tensor.shape) == len(wanted) and all(
            there == asked or asked is None for there, asked in zip(tensor.shape, wanted, strict=True)
        )
        if not fits:
            asked = " x ".join("any" if side is None else str(side) for side in wanted)
            raise ModelError(
                f"{self._folder / self._weights.files[name]}: `{name}` is {_spelt(tensor.shape)}, "
                f"and by config.json it is {asked}.",
                cure=_CURE,
            )

    def _refuse_more_layers(self, prefix: str) -> None:
        name = f"{prefix}layers.{self._sizes.layers}.input_layernorm.weight"
        if name in self._weights.tensors:
            raise ModelError(
                f"{self._folder / self._weights.files[name]} holds layer {self._sizes.layers}, and config.json "
                f"asks for {self._sizes.layers} layers only.",
                cure=_CURE,
            )


def _spelt(shape: Shape) -> str:
    return " x ".join(map(str, shape[:8])) or "a scalar"
