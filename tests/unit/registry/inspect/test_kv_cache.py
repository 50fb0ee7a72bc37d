"""How much of the KV cache a token takes by `config.json`: published shapes, silent configs, others that do not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inferdock.registry.inspect.kv_cache import kv_values_per_token

MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
GEMMA = {
    "architectures": ["GemmaForCausalLM"],
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}


def values(tmp_path: Path, config: dict[str, Any]) -> int | None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return kv_values_per_token(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MISTRAL, 2 * 32 * 8 * 128),
        ({**MISTRAL, "head_dim": 64}, 2 * 32 * 8 * 64),
        ({key: value for key, value in MISTRAL.items() if key != "num_key_value_heads"}, 2 * 32 * 32 * 128),
        (GEMMA, 2 * 28 * 16 * 256),
        ({"architectures": ["LlavaForConditionalGeneration"], "text_config": MISTRAL}, 2 * 32 * 8 * 128),
    ],
    ids=["grouped", "own head size", "all heads", "head size of the family", "several modalities"],
)
def test_plain_attention(tmp_path: Path, config: dict[str, Any], expected: int) -> None:
    assert values(tmp_path, config) == expected


@pytest.mark.parametrize(
    "config",
    [
        {**MISTRAL, "kv_lora_rank": 512},
        {"architectures": ["A"], "text_config": {**MISTRAL, "kv_lora_rank": 512}},
        {**MISTRAL, "num_key_value_heads": [8, 4]},
        {"architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12, "n_head": 12},
    ],
    ids=["latent", "latent of a nested model", "by layer", "other names"],
)
def test_what_is_not_said_plainly_is_not_guessed(tmp_path: Path, config: dict[str, Any]) -> None:
    assert values(tmp_path, config) is None
