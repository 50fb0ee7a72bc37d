"""Goes through a model block by block: collects what comes into its layers, and quantises them. Needs torch.

Each block is calibrated on what the unquantised blocks before it answer. Scales are put where they cost nothing: into
the norm before the layers that read it, and into the outputs of ``up_proj`` before ``down_proj``. Inputs of ``o_proj``
are not scaled: with fewer key-value heads than heads, as most models here have, there is no place for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from inferdock.domain.errors import ModelError
from inferdock.quantize.awq import Inputs, Quantised, Tensor, error, find_ranges, find_scales, quantise
from inferdock.quantize.calibration import Sample, check_tokens
from inferdock.quantize.recipe import Recipe

_READERS: Final = (
    ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
)
"""A norm, and the layers that read it."""
_NARROWED: Final = ("self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
"""Queries and keys keep their whole range, as in AWQ: their errors meet in a product."""
_UP, _DOWN = "mlp.up_proj", "mlp.down_proj"
_LAYERS: Final = (*(name for _, names in _READERS for name in names), "self_attn.o_proj", _DOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDone:
    """How a block went.

    Attributes:
        number: from 0.
        of: how many blocks there are.
        error: squared error of its layers' answers, as a part of the answers' own square.
        rounding_error: the same, had weights only been rounded.
    """

    number: int
    of: int
    error: float
    rounding_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A quantised model.

    Attributes:
        tensors: all that are kept as they are, or with scales in them.
        packed: the quantised layers by name.
        blocks: how each went.
        tokens: calibration tokens used.
    """

    tensors: dict[str, Tensor]
    packed: dict[str, Quantised]
    blocks: tuple[BlockDone, ...]
    tokens: int


def run(
    folder: Path, samples: Sequence[Sample], recipe: Recipe, done: Callable[[BlockDone], None], *, name: str
) -> Result:
    """Quantise a model.

    Args:
        folder: the model, checked by :func:`~inferdock.quantize.source.read_source`.
        samples: calibration texts.
        recipe: how.
        done: told of every block.
        name: of the calibration set, for errors.

    Raises:
        ConfigError: the texts are too short together.
        ModelError: the libraries cannot load the folder, or its numbers are not finite.
    """
    model, texts = _load(folder, samples, recipe.sequence_length)
    tokens = sum(int(ids.shape[1]) for ids in texts)
    check_tokens(tokens, name)
    packed: dict[str, Quantised] = {}
    blocks: list[BlockDone] = []
    with torch.no_grad():
        states, keywords = _before_blocks(model, texts)
        layers = model.model.layers
        for number, block in enumerate(layers):
            inputs, states = _through(block, states, keywords)
            made, lost, rounded = _quantise_block(block, inputs, recipe)
            packed.update({f"model.layers.{number}.{layer}": found for layer, found in made.items()})
            blocks.append(BlockDone(number=number, of=len(layers), error=lost, rounding_error=rounded))
            done(blocks[-1])
    return Result(tensors=_kept(model, packed), packed=packed, blocks=tuple(blocks), tokens=tokens)


def _load(folder: Path, samples: Sequence[Sample], length: int) -> tuple[Any, list[Tensor]]:
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        texts = [_encode(tokenizer, sample, length) for sample in samples]
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as exc:
        line = " ".join(str(exc).split())[:300]
        raise ModelError(
            f"{folder} cannot be loaded: {line}", cure="Check that transformers loads it, and its chat template."
        ) from exc
    return model.eval(), [ids for ids in texts if ids.shape[1]]


def _encode(tokenizer: Any, sample: Sample, length: int) -> Tensor:
    """Token ids, 1 by at most ``length``."""
    text = sample.text
    if sample.messages:
        turns = [{"role": turn.role, "content": turn.content} for turn in sample.messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = tokenizer(text, add_special_tokens=not sample.messages)["input_ids"][:length]
    return torch.tensor([ids], dtype=torch.long)


class _ReachedError(Exception):
    """The first block is reached: what comes into it is known, and the rest need not run."""


def _before_blocks(model: Any, texts: Iterable[Tensor]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """What comes into the first block for each text: hidden states, and the arguments that all blocks get."""
    states: list[Tensor] = []
    keywords: list[dict[str, Any]] = []

    def look(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states.append(arguments[0] if arguments else named.pop("hidden_states"))
        keywords.append(named)
        raise _ReachedError

    hook = model.model.layers[0].register_forward_pre_hook(look, with_kwargs=True)
    try:
        for ids in texts:
            try:
                model(input_ids=ids, use_cache=False)
            except _ReachedError:
                continue
    finally:
        hook.remove()
    return states, keywords


def _through(
    block: Any, states: Sequence[Tensor], keywords: Sequence[dict[str, Any]]
) -> tuple[dict[str, Inputs], list[Tensor]]:
    """Sums of the inputs of each layer, and what the block answers."""
    readers = [*(names for _, names in _READERS), ("self_attn.o_proj",), (_DOWN,)]
    watched = {names[0]: Inputs.of(block.get_submodule(names[0]).in_features) for names in readers}
    with _watching(block, watched):
        answers = [block(state, **named) for state, named in zip(states, keywords, strict=True)]
    inputs = {name: watched[names[0]] for names in readers for name in names}  # they read the same: one sum
    return inputs, [answer[0] if isinstance(answer, tuple) else answer for answer in answers]


@contextmanager
def _watching(block: Any, inputs: dict[str, Inputs]) -> Iterator[None]:
    def hook(sums: Inputs) -> Callable[[Any, tuple[Any, ...]], None]:
        return lambda _, arguments: sums.add(arguments[0])

    hooks = [block.get_submodule(name).register_forward_pre_hook(hook(sums)) for name, sums in inputs.items()]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def _quantise_block(block: Any, inputs: dict[str, Inputs], recipe: Recipe) -> tuple[dict[str, Quantised], float, float]:
    """The block's layers, their error and that of rounding alone; its norms and biases take the scales in."""
    dtype = block.get_submodule(_DOWN).weight.dtype
    options = {"bits": recipe.bits, "group_size": recipe.group_size, "dtype": dtype}
    weights = {name: block.get_submodule(name).weight.float() for name in _LAYERS}
    own = sum(error(weights[name], inputs[name].square) for name in _LAYERS)
    rounded = sum(_lost(weights[name], quantise(weights[name], **options), inputs[name]) for name in _LAYERS)
    down = torch.ones(weights[_UP].shape[0])
    if recipe.method == "awq":
        weights, inputs, down = _scaled(block, weights, inputs, options)
    made: dict[str, Quantised] = {}
    for name in _LAYERS:
        narrow = recipe.method == "awq" and name in _NARROWED
        keep = find_ranges(weights[name], inputs[name], **options) if narrow else None
        made[name] = quantise(weights[name], keep=keep, **options)
    rows = {_UP: down.unsqueeze(1)}  # its answers are divided by these: the error is told in the old unit
    lost = sum(
        error((weights[name] - made[name].weights()) * rows.get(name, 1), inputs[name].square) for name in _LAYERS
    )
    if not (lost < float("inf") and own > 0):
        raise ModelError("The model's numbers are not finite on the calibration texts.", cure="Check the weights.")
    return made, lost / own, rounded / own


def _lost(weights: Tensor, made: Quantised, inputs: Inputs) -> float:
    return error(weights - made.weights(), inputs.square)


def _scaled(
    block: Any, weights: dict[str, Tensor], inputs: dict[str, Inputs], options: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Inputs], Tensor]:
    """The same block with scales: what comes in is divided by them, and the weights are multiplied.

    The last is what ``up_proj`` answers were divided by.
    """
    weights, inputs = dict(weights), dict(inputs)
    for norm, names in _READERS:
        scales = find_scales([weights[name] for name in names], inputs[names[0]], **options)
        module = block.get_submodule(norm)
        module.weight.copy_(module.weight.float() / scales)
        divided = inputs[names[0]].divided(scales)
        for name in names:
            weights[name], inputs[name] = weights[name] * scales, divided
    scales = find_scales([weights[_DOWN]], inputs[_DOWN], **options)
    weights[_DOWN], inputs[_DOWN] = weights[_DOWN] * scales, inputs[_DOWN].divided(scales)
    weights[_UP] = weights[_UP] / scales.unsqueeze(1)
    bias = block.get_submodule(_UP).bias
    if bias is not None:
        bias.copy_(bias.float() / scales)
    return weights, inputs, scales


def _kept(model: Any, packed: dict[str, Quantised]) -> dict[str, Tensor]:
    """What is not packed; an output layer that is the embedding is stored once."""
    tied = bool(model.config.tie_word_embeddings)
    gone = {f"{name}.weight" for name in packed} | ({"lm_head.weight"} if tied else set())
    return {name: tensor for name, tensor in model.state_dict().items() if name not in gone}
