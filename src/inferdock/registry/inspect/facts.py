"""What a model is, as far as its files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts read from ``config.json``, the tokenizer and the headers of the weights.

    Attributes:
        architecture: first of the config's ``architectures``.
        model_type: the config's ``model_type``, "" where it names none.
        parameters: number of weights; what is packed (4 bits) counts unpacked.
        dtype: type of most bytes of the weights, for instance ``bfloat16``; "" without safetensors.
        dtypes: bytes of the weights by type.
        quantization: ``method`` and what else the config says of it (``bits``, ``group_size``); None without.
        context_length: longest prompt plus answer in tokens, None where the config does not say it plainly.
        vocabulary_size: rows of the embedding that the config asks for.
        layers: number of transformer blocks.
        hidden_size: width of the model.
        tied_embeddings: the output layer uses the embedding's weights.
        weight_bytes: size of the weight files.
    """

    architecture: str
    model_type: str = ""
    parameters: int = 0
    dtype: str = ""
    dtypes: Mapping[str, int] = field(default_factory=dict)
    quantization: Mapping[str, str | int] | None = None
    context_length: int | None = None
    vocabulary_size: int | None = None
    layers: int | None = None
    hidden_size: int | None = None
    tied_embeddings: bool = False
    weight_bytes: int = 0
