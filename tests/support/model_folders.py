"""Writes tiny model folders that pass every check: a Llama of a few kilobytes, in shards, tied, or quantised.

Nothing is needed to write them: a safetensors file is a length, a JSON header and bytes.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BITS = {"F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "I32": 32, "I64": 64, "U8": 8, "I8": 8, "F4": 4}
GROUP = 8
"""Weights that share a scale in the quantised folders."""


@dataclass(frozen=True, slots=True)
class TinyTensor:
    """One tensor of a file: the format's name of its type, its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def tensor(dtype: str, *shape: int, rng: random.Random | None = None) -> TinyTensor:
    """A tensor of random bytes, or of zeros."""
    count = 1
    for side in shape:
        count *= side
    size = count * BITS[dtype] // 8
    return TinyTensor(dtype, shape, rng.randbytes(size) if rng else bytes(size))


def header_of(tensors: Mapping[str, TinyTensor]) -> dict[str, Any]:
    """The header of a file that holds the tensors one after the other."""
    header: dict[str, Any] = {}
    end = 0
    for name, one in tensors.items():
        begin, end = end, end + len(one.data)
        header[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [begin, end]}
    return header


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    """A file with any header, as text, bytes or something for JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_safetensors(path: Path, tensors: Mapping[str, TinyTensor]) -> None:
    """Write a valid file."""
    header = {"__metadata__": {"format": "pt"}, **header_of(tensors)}
    path.write_bytes(safetensors_bytes(header, b"".join(one.data for one in tensors.values())))


def write_model(
    folder: Path,
    *,
    shards: int = 2,
    vocabulary: int = 64,
    hidden: int = 16,
    layers: int = 2,
    seed: int = 0,
    subfolder: bool = True,
    tied: bool = False,
    quantization: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a whole Llama.

    Args:
        folder: made if it is not there.
        shards: files of weights; above 1 they have an index.
        vocabulary: rows of the embedding, and entries of the tokenizer.
        hidden: width, a multiple of 16.
        layers: transformer blocks.
        seed: equal seeds give equal bytes.
        subfolder: also write a file in a folder of the folder.
        tied: no ``lm_head``, the embedding serves as one.
        quantization: ``awq`` (4 bits in ``qweight``), ``fp8``, ``compressed-tensors`` (4 bits in ``weight_packed``).
        config: keys of ``config.json`` that replace the right ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    tensors = llama_tensors(rng, vocabulary, hidden, layers, tied=tied, quantization=quantization)
    write_weights(folder, tensors, shards)
    _write_json(
        folder / "config.json", {**llama_config(vocabulary, hidden, layers, tied, quantization), **(config or {})}
    )
    _write_json(folder / "tokenizer.json", tokenizer(vocabulary))
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    _write_json(folder / "generation_config.json", {"eos_token_id": 1})
    if subfolder:
        (folder / "extra").mkdir(exist_ok=True)
        (folder / "extra" / "notes.txt").write_text("What this model was made from.\n")
    return folder


def write_weights(folder: Path, tensors: Mapping[str, TinyTensor], shards: int = 1) -> None:
    """Write the weights in one file, or in several with their index."""
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    names = sorted(tensors)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = names[number::shards]
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(len(one.data) for one in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def llama_config(vocabulary: int, hidden: int, layers: int, tied: bool, quantization: str | None) -> dict[str, Any]:
    """The config of :func:`write_model`: two heads, one of keys and values."""
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": vocabulary,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }
    if quantization == "awq":
        config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True}
    elif quantization == "fp8":
        config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    elif quantization == "compressed-tensors":
        weights = {"num_bits": 4, "group_size": GROUP, "type": "int", "symmetric": True, "strategy": "group"}
        config["quantization_config"] = {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        }
    return config


def llama_tensors(
    rng: random.Random,
    vocabulary: int,
    hidden: int,
    layers: int,
    *,
    tied: bool = False,
    quantization: str | None = None,
) -> dict[str, TinyTensor]:
    """Every tensor of a Llama with random bytes."""
    tensors = {"model.embed_tokens.weight": tensor("BF16", vocabulary, hidden, rng=rng)}
    linear = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden // 2, hidden),
        "self_attn.v_proj": (hidden // 2, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (2 * hidden, hidden),
        "mlp.up_proj": (2 * hidden, hidden),
        "mlp.down_proj": (hidden, 2 * hidden),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name, (rows, columns) in linear.items():
            tensors.update(_linear(f"{prefix}.{name}", rows, columns, quantization, rng))
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{norm}.weight"] = tensor("BF16", hidden, rng=rng)
    tensors["model.norm.weight"] = tensor("BF16", hidden, rng=rng)
    if not tied:
        tensors["lm_head.weight"] = tensor("BF16", vocabulary, hidden, rng=rng)
    return tensors


def _linear(name: str, rows: int, columns: int, quantization: str | None, rng: random.Random) -> dict[str, TinyTensor]:
    if quantization == "awq":
        groups = columns // GROUP
        return {
            f"{name}.qweight": tensor("I32", columns, rows // 8, rng=rng),
            f"{name}.qzeros": tensor("I32", groups, rows // 8, rng=rng),
            f"{name}.scales": tensor("F16", groups, rows, rng=rng),
        }
    if quantization == "compressed-tensors":
        return {
            f"{name}.weight_packed": tensor("I32", rows, columns // 8, rng=rng),
            f"{name}.weight_scale": tensor("BF16", rows, columns // GROUP, rng=rng),
            f"{name}.weight_shape": TinyTensor("I64", (2,), struct.pack("<qq", rows, columns)),
        }
    if quantization == "fp8":
        return {
            f"{name}.weight": tensor("F8_E4M3", rows, columns, rng=rng),
            f"{name}.weight_scale": tensor("F32", 1, rng=rng),
        }
    return {f"{name}.weight": tensor("BF16", rows, columns, rng=rng)}


def tokenizer(vocabulary: int) -> dict[str, Any]:
    """A tokenizer of words ``t0``, ``t1``, ... with one special token."""
    return {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "t0", "special": True}],
        "model": {"type": "WordLevel", "vocab": {f"t{i}": i for i in range(vocabulary)}, "unk_token": "t0"},
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))
