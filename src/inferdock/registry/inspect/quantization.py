"""How weights are packed, by the config or by the files beside it that older tools wrote, and how many there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from inferdock.registry.inspect.json_files import Members, flag, integer, pick, read_object, values, word
from inferdock.registry.inspect.safetensors import DTYPES, Tensor

_SIDE_FILES: Final = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Of GPTQ, AWQ and ModelOpt, before the config held it."""
_METHODS: Final = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
_KEYS: Final = (
    "quant_method",
    "quant_algo",
    "bits",
    "w_bit",
    "weight_bits",
    "group_size",
    "q_group_size",
    "format",
    "fmt",
    "load_in_4bit",
    "load_in_8bit",
    "config_groups",
    "quantization",
)
_HELPERS: Final = re.compile(
    r"(?:.*_)?(?:scales?|scale_inv|scale_\d|zero_point|zeros|qzeros|g_idx|shape|absmax|quant_map|SCB|biases|weight_format)"
)
_FLOATS: Final = frozenset(key for key, (_, name) in DTYPES.items() if name.startswith(("float", "bfloat", "complex")))
_BUFFERS: Final = frozenset(("inv_freq", "position_ids", "masked_bias"))
Quantization = Mapping[str, str | int]


def read_quantization(folder: Path, said: msgspec.Raw | None, top: Iterable[str]) -> dict[str, str | int] | None:
    """What is known of a model's quantisation: ``method``, ``bits``, ``group_size``, ``format``; None without any.

    Args:
        folder: the model.
        said: the config's own object, None where it has none.
        top: names of the files directly in the folder.

    Raises:
        ModelError: a file beside the config is malformed.
    """
    names = set(top)
    if said is not None:
        return _described(pick(said, *_KEYS), "")
    for name in _SIDE_FILES:
        if name in names:
            members = pick(read_object(folder / name), *_KEYS)
            inner = pick(members["quantization"], *_KEYS)  # ModelOpt nests it
            return _described(inner if name == "hf_quant_config.json" else members, _METHODS[name])
    return None


def _described(members: Members, method: str) -> dict[str, str | int]:
    weights = _first_group(members["config_groups"])
    in_4, in_8 = flag(members["load_in_4bit"]), flag(members["load_in_8bit"])
    numbers = {
        "bits": _first(members, "bits", "w_bit", "weight_bits")
        or integer(weights["num_bits"])
        or (4 if in_4 else 8 if in_8 else None),
        "group_size": _first(members, "group_size", "q_group_size") or integer(weights["group_size"]),
    }
    words = {
        "method": word(members["quant_method"]) or ("bitsandbytes" if in_4 or in_8 else method) or "unknown",
        "algorithm": word(members["quant_algo"]),
        "format": word(members["format"]) or word(members["fmt"]),
    }
    found: dict[str, str | int] = {key: said for key, said in words.items() if said}
    found.update({key: number for key, number in numbers.items() if number is not None and -2 < number < 2**31})
    return found


def _first(members: Members, *keys: str) -> int | None:
    return next((number for key in keys if (number := integer(members[key])) is not None), None)


def _first_group(groups: msgspec.Raw) -> Members:
    """The weights' settings of compressed-tensors' first group. One model rarely mixes widths."""
    first = next(iter(values(groups)), msgspec.Raw(b"null"))
    return pick(pick(first, "weights")["weights"], "num_bits", "group_size")


def is_packed(tensors: Mapping[str, Tensor]) -> bool:
    """Whether names or types say that weights are packed, even if no config does."""
    return any(
        name.endswith((".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".absmax", "_blocks"))
        or (name.endswith(".weight") and tensor.dtype not in _FLOATS)
        for name, tensor in tensors.items()
    )


def count_parameters(tensors: Mapping[str, Tensor], quantization: Quantization | None, tied: bool) -> int:
    """Number of weights. Packed ones count as many as they are unpacked, scales and the like not at all.

    Tables that a model computes (rotary frequencies, positions, masks) do not count; neither does an output layer that
    is stored although it is tied to the embedding.
    """
    packed = quantization is not None or is_packed(tensors)
    bits = _bits(quantization)
    total = 0
    for name, tensor in tensors.items():
        if tied and name == "lm_head.weight":
            continue
        total += _unpacked(name, tensor, bits) if packed else _plain(name, tensor)
    return total


def _bits(quantization: Quantization | None) -> int:
    """Bits of a packed weight: 4 where nothing is said, since what has 8 needs no packing."""
    bits = (quantization or {}).get("bits")
    return bits if isinstance(bits, int) and bits in (1, 2, 3, 4, 5, 6, 8) else 4


def _plain(name: str, tensor: Tensor) -> int:
    last = name.rpartition(".")[2]
    is_mask = last == "bias" and len(tensor.shape) == 4  # GPT-2 stores its triangle
    return 0 if last in _BUFFERS or is_mask or tensor.dtype not in _FLOATS else tensor.elements


def _unpacked(name: str, tensor: Tensor, bits: int) -> int:
    last = name.rpartition(".")[2]
    if _HELPERS.fullmatch(last) or ".quant_state." in name or tensor.dtype == "F8_E8M0":
        return 0
    if last in ("qweight", "weight_packed", "weight") and tensor.dtype in ("I32", "U32", "U8"):
        return tensor.elements * DTYPES[tensor.dtype][0] // bits
    if last.endswith("_blocks") and tensor.dtype == "U8":  # MXFP4: two in a byte
        return 2 * tensor.elements
    return tensor.elements if last == "weight" and tensor.dtype == "I8" else _plain(name, tensor)
