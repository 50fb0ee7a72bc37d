"""How much of the KV cache a token takes, as far as ``config.json`` says it plainly."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from inferdock.registry.inspect.config import CONFIG_CURE, read_config
from inferdock.registry.inspect.json_files import is_null, pick, read_object
from inferdock.registry.inspect.shapes import FAMILIES

_NESTS: Final = ("text_config", "llm_config", "language_config")
_COMPRESSED: Final = "kv_lora_rank"
"""DeepSeek's latent attention keeps one short vector instead of keys and values of all heads."""
_NEEDED: Final = frozenset(("num_hidden_layers", "num_attention_heads", "hidden_size"))
_OWN: Final = frozenset(("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size"))


def kv_values_per_token(config_file: Path) -> int | None:
    """Numbers that a token keeps in the KV cache: 2 x layers x KV heads x head size.

    Where some layers look at a window only, or are no attention at all, it is the most that it can be.

    Args:
        config_file: a model's ``config.json``.

    Returns:
        None where the config does not say it plainly.

    Raises:
        ModelError: the file is missing or malformed.
    """
    config = read_config(config_file)
    data = read_object(config_file, CONFIG_CURE)
    outer = pick(data, _COMPRESSED, *_NESTS)
    compressed = [outer[_COMPRESSED], *(pick(outer[nest], _COMPRESSED)[_COMPRESSED] for nest in _NESTS)]
    numbers = config.numbers
    if not all(map(is_null, compressed)) or config.odd & _OWN or not numbers.keys() >= _NEEDED:
        return None
    family = FAMILIES.get(config.architectures[0].partition("For")[0])
    heads = numbers["num_attention_heads"]
    said = numbers.get("head_dim") or (family.head_dim if family else None)
    return (
        2
        * numbers["num_hidden_layers"]
        * numbers.get("num_key_value_heads", heads)
        * (said or numbers["hidden_size"] // heads)
    )
