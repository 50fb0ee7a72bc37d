"""The embedding model's files: found, checked, built once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from inferdock.cache import minilm, minilm_graph
from inferdock.domain.errors import ConfigError

LINEAR_LAYERS = 6 * 4  # query, key and value are one; then attention's output and the two feed-forward ones
RUN = [sys.executable, "-m", "inferdock.cache.minilm"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minilm.model_file(minilm.weights_folder(), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def graph(built: Path) -> onnx.GraphProto:
    return onnx.load(built).graph


def test_equal_weights_give_equal_bytes() -> None:
    weights = minilm_graph.read_safetensors(minilm.weights_folder() / "model.safetensors")
    assert hashlib.sha256(minilm_graph.build(weights)).hexdigest() == minilm.MODEL_SHA256


def test_the_built_model_is_valid_onnx(built: Path) -> None:
    onnx.checker.check_model(str(built))


def test_every_linear_layer_has_int8_weights_with_a_scale_per_output(graph: onnx.GraphProto) -> None:
    constants = {constant.name: constant for constant in graph.initializer}
    layers = [node for node in graph.node if node.op_type == "DynamicQuantizeMatMul"]
    for layer in layers:
        weights, scales = constants[layer.input[1]], constants[layer.input[2]]
        assert weights.data_type == TensorProto.INT8
        assert list(scales.dims) == [weights.dims[1]]
    assert len(layers) == LINEAR_LAYERS


def test_no_matrix_is_left_in_floats_but_the_positions(graph: onnx.GraphProto) -> None:
    floats = [
        c.name for c in graph.initializer if c.data_type == TensorProto.FLOAT and len(c.dims) > 1 and c.dims[1] > 1
    ]
    assert floats == ["places"]


def test_the_built_file_is_a_quarter_of_the_weights(built: Path) -> None:
    assert built.stat().st_size < 24e6


def test_a_built_file_is_not_built_again(built: Path) -> None:
    before = built.stat().st_mtime_ns
    assert minilm.model_file(minilm.weights_folder(), built.parent) == built
    assert built.stat().st_mtime_ns == before


def test_a_built_file_needs_no_weights(built: Path, tmp_path: Path) -> None:
    assert minilm.model_file(tmp_path, built.parent) == built


def test_a_damaged_file_is_built_again(built: Path, tmp_path: Path) -> None:
    damaged = tmp_path / built.name
    damaged.write_bytes(built.read_bytes()[:-1] + b"\0")
    minilm.model_file(minilm.weights_folder(), tmp_path)
    assert damaged.read_bytes() == built.read_bytes()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    shutil.copy(minilm.weights_folder() / "model.safetensors", tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    with pytest.raises(ConfigError, match="not the file") as refusal:
        minilm.model_file(tmp_path, tmp_path / "cache")
    assert refusal.value.cure


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.safetensors cannot be read"):
        minilm.model_file(tmp_path, tmp_path / "cache")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="not the file"):
        minilm.tokenizer_file(tmp_path)


def test_a_package_that_is_not_installed_is_a_sentence_with_a_cure() -> None:
    with pytest.raises(ConfigError, match="not installed") as refusal:
        minilm.weights_folder("no_such_package")
    assert "inferdock[cache]" in refusal.value.cure


def test_a_cache_folder_that_cannot_be_made_is_a_sentence_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written") as refusal:
        minilm.model_file(minilm.weights_folder(), tmp_path / "file" / "cache")
    assert "XDG_CACHE_HOME" in refusal.value.cure


def test_several_processes_build_at_once_and_leave_one_whole_file(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    runs = [subprocess.Popen(RUN, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {run.communicate(timeout=60)[0].strip() for run in runs}
    folder = tmp_path / "inferdock" / "embedder"
    assert printed == {str(path) for path in folder.iterdir()}
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()] == [minilm.MODEL_SHA256]
