"""The shape of a model with invented weights: what vLLM is told with `--load-format dummy`, and what it must weigh.

Speed depends on shapes and types, not on what the numbers are. The sums here are checks on the engine's own report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_HALF_BYTES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder of Mistral's architecture, embeddings not tied."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    positions: int
    sliding_window: int | None

    @property
    def head_dim(self) -> int:
        """Numbers per head."""
        return self.hidden // self.heads

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear layers inside the decoder: what AWQ packs."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.kv_heads * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def other_parameters(self) -> int:
        """Embedding, output layer and norms: AWQ leaves them in 16 bits."""
        return 2 * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers, 16 bits each."""
        return 2 * self.layers * self.kv_heads * self.head_dim * _HALF_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq:
    """AWQ as AutoAWQ writes it: packed weights, a 16-bit scale and a packed zero per group."""

    bits: int = 4
    group: int = 128


MISTRAL_7B: Final = Shape(
    name="Mistral-7B-v0.1",
    hidden=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    intermediate=14336,
    vocabulary=32000,
    positions=32768,
    sliding_window=4096,
)
"""As published in the model's config.json."""

TINY: Final = Shape(
    name="tiny",
    hidden=256,
    layers=4,
    heads=4,
    kv_heads=2,
    intermediate=1024,
    vocabulary=2048,
    positions=2048,
    sliding_window=None,
)
"""A few megabytes, to try the procedure on a CPU. All linear layers divide by AWQ's groups of 128 and by the 32 that
vLLM's CPU kernel for packed weights asks of both sides (its `CPUWNA16LinearKernel`)."""


def weight_bytes(shape: Shape, awq: Awq | None = None) -> int:
    """Bytes of all weights, in 16 bits or packed."""
    if awq is None:
        return (shape.linear_parameters + shape.other_parameters) * _HALF_BYTES
    groups = shape.linear_parameters // awq.group
    packed_bits = (shape.linear_parameters + groups) * awq.bits
    return packed_bits // 8 + (groups + shape.other_parameters) * _HALF_BYTES


def model_config(shape: Shape, awq: Awq | None = None) -> dict[str, object]:
    """The content of config.json."""
    config: dict[str, object] = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "sliding_window": shape.sliding_window,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "float16" if awq else "bfloat16",
    }
    if awq:
        config["quantization_config"] = {
            "quant_method": "awq",
            "bits": awq.bits,
            "group_size": awq.group,
            "zero_point": True,
            "version": "gemm",
        }
    return config
