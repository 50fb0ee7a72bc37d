"""The graph of all-MiniLM-L6-v2 for ONNX Runtime, made from its weights without torch; ``minilm`` asks for it once.

Every linear layer is dynamically quantised: int8 weights with a scale per output channel, uint8 activations with a
scale per call. One prompt at a time and no padding, so there is no attention mask. The result is the mean over all
tokens, of length 1. Only elementwise steps and maxima are taken here, so equal weights give equal bytes anywhere.

Two things make it faster than the exported and quantised model: ``LayerNormalization`` behind an ``Add`` is vectorised
where the fused ``SkipLayerNormalization`` is not (a fifth of a look-up), which is why sessions must not optimise this
graph again; and query, key and value are one matrix. Choice and figures: docs/decisions/0015-embedding.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]
Weights = Mapping[str, Floats]

LAYERS: Final = 6
HEADS: Final = 12
WIDTH: Final = 384
MAX_TOKENS: Final = 256
"""Positions that the model was trained on; the graph holds no more."""

_EPSILON: Final = 1e-12
_MICROSOFT: Final = "com.microsoft"
_OPSETS: Final = {"": 18, _MICROSOFT: 1}
_IR_VERSION: Final = 9


class _Tensor(msgspec.Struct, frozen=True):
    """One tensor in the header of a safetensors file."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_safetensors(path: Path) -> dict[str, Floats]:
    """All float32 tensors of a file: 8 bytes with the header's length, the header (JSON), the data."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = msgspec.json.decode(raw[8:start].tobytes(), type=dict[str, Any])
    header.pop("__metadata__", None)
    tensors = msgspec.convert(header, type=dict[str, _Tensor])
    return {
        name: raw[start + tensor.data_offsets[0] : start + tensor.data_offsets[1]].view("<f4").reshape(tensor.shape)
        for name, tensor in tensors.items()
        if tensor.dtype == "F32"
    }


def quantise(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Each column in 8 bits: ``matrix`` is about the integers times their column's scale.

    Args:
        matrix: inputs by outputs, so that a column is an output channel.

    Returns:
        Integers of -127 to 127, and the scales.
    """
    scales = (np.abs(matrix).max(axis=0) / np.float32(127)).astype(np.float32)
    return np.clip(np.rint(matrix / scales), -127, 127).astype(np.int8), scales


def build(weights: Weights) -> bytes:
    """The model as an ONNX file: ``input_ids`` int64 [1, n], n up to 256, to ``embedding`` float32 [384]."""
    graph = _Graph()
    state = _embeddings(graph, weights)
    for layer in range(LAYERS):
        state = _layer(graph, weights, f"encoder.layer.{layer}", state)
    mean = graph.add("ReduceMean", state, graph.constant("pooled_axes", np.array([0, 1])), keepdims=0)
    length = graph.add("ReduceL2", mean, keepdims=1)
    graph.add("Div", mean, length, output="embedding")
    return graph.serialise()


def _embeddings(graph: _Graph, weights: Weights) -> str:
    """Word, position and type of each token. The words' table is in 8 bits, a scale per word."""
    words, scales = quantise(weights["embeddings.word_embeddings.weight"].T)
    rows = graph.add("Gather", graph.constant("words", words.T), "input_ids")
    scale = graph.add("Gather", graph.constant("word_scales", scales[:, None]), "input_ids")
    word = graph.add("Mul", graph.add("Cast", rows, to=TensorProto.FLOAT), scale)

    kind = weights["embeddings.token_type_embeddings.weight"][0]
    places = graph.constant("places", weights["embeddings.position_embeddings.weight"][:MAX_TOKENS] + kind)
    count = graph.add("Shape", "input_ids", start=1, end=2)
    first = graph.constant("first", np.array([0]))
    place = graph.add("Slice", places, first, count, first)
    return _add_and_norm(graph, weights, "embeddings.LayerNorm", word, place)


def _layer(graph: _Graph, weights: Weights, name: str, state: str) -> str:
    """Attention, then the two feed-forward matrices; each is added to what came in, and normalised."""
    attention = f"{name}.attention.self"
    mixed = _linear(graph, weights, [f"{attention}.query", f"{attention}.key", f"{attention}.value"], state)
    thirds = graph.constant("thirds", np.array([WIDTH] * 3))
    parts = graph.add_many("Split", mixed, thirds, count=3, axis=2)
    seen = graph.add("MultiHeadAttention", *parts, domain=_MICROSOFT, num_heads=HEADS)
    answer = _linear(graph, weights, [f"{name}.attention.output.dense"], seen)
    state = _add_and_norm(graph, weights, f"{name}.attention.output.LayerNorm", answer, state)

    wide = _linear(graph, weights, [f"{name}.intermediate.dense"], state)
    active = graph.add("Gelu", wide, domain=_MICROSOFT)
    narrow = _linear(graph, weights, [f"{name}.output.dense"], active)
    return _add_and_norm(graph, weights, f"{name}.output.LayerNorm", narrow, state)


def _linear(graph: _Graph, weights: Weights, names: list[str], state: str) -> str:
    """Linear layers side by side as one int8 matrix."""
    matrix = np.concatenate([weights[f"{name}.weight"].T for name in names], axis=1)
    bias = np.concatenate([weights[f"{name}.bias"] for name in names])
    integers, scales = quantise(matrix)
    return graph.add(
        "DynamicQuantizeMatMul",
        state,
        graph.constant(f"{names[0]}.weight", integers),
        graph.constant(f"{names[0]}.scales", scales),
        "",  # no zero points: the weights are symmetric
        graph.constant(f"{names[0]}.bias", bias),
        domain=_MICROSOFT,
    )


def _add_and_norm(graph: _Graph, weights: Weights, name: str, left: str, right: str) -> str:
    gain = graph.constant(f"{name}.weight", weights[f"{name}.weight"])
    bias = graph.constant(f"{name}.bias", weights[f"{name}.bias"])
    return graph.add("LayerNormalization", graph.add("Add", left, right), gain, bias, epsilon=_EPSILON)


class _Graph:
    """Collects nodes and constants in the order in which they are asked for."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def add(self, kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        output = output or f"value_{len(self._nodes)}"
        self._append(kind, inputs, [output], domain, attributes)
        return output

    def add_many(self, kind: str, *inputs: str, count: int, domain: str = "", **attributes: Any) -> list[str]:
        """A node with several outputs."""
        outputs = [f"value_{len(self._nodes)}_{n}" for n in range(count)]
        self._append(kind, inputs, outputs, domain, attributes)
        return outputs

    def _append(
        self, kind: str, inputs: tuple[str, ...], outputs: list[str], domain: str, attributes: dict[str, Any]
    ) -> None:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes))

    def serialise(self) -> bytes:
        graph = helper.make_graph(
            self._nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [WIDTH])],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="inferdock", ir_version=_IR_VERSION)
        return bytes(model.SerializeToString(deterministic=True))
