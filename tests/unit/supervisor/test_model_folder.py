"""Finding and checking model folders, honest and hostile."""

import contextlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferdock.domain.errors import ModelError
from inferdock.supervisor.model_folder import check_folder, check_safetensors, fingerprint, resolve


def safetensors(data: int = 16, *, header: object = None, missing: int = 0) -> bytes:
    head = header if header is not None else {"w": {"dtype": "F32", "shape": [data // 4], "data_offsets": [0, data]}}
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * (data - missing)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["MistralForCausalLM"], "max_position_embeddings": 64}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    return tmp_path


def test_a_whole_folder_is_accepted(folder):
    model = check_folder(folder, "m")
    assert (model.name, model.max_model_len) == ("m", 64)
    assert model.revision == f"local-{fingerprint(folder)}"


def test_the_demo_model_of_the_checkout_is_found():
    assert resolve("demo", None).name == "inferdock-demo"


def test_a_hub_name_is_passed_on():
    assert resolve("mistralai/Mistral-7B", None).folder is None


def test_the_revision_changes_with_any_byte(folder):
    before = fingerprint(folder)
    (folder / "tokenizer.json").write_text("{ }")
    assert fingerprint(folder) != before


def shards(folder: Path, mapping: object) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "JSON object"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
        (lambda f: (f / "config.json").write_text("{}"), "architectures"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickles"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors(missing=5)), "5 bytes are missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "cut"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), "cut"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors(header=[1])), "damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors(header={"w": {"data_offsets": "x"}})), "damaged"),
        (lambda f: shards(f, {"w": "model-1.safetensors"}), "weight files are missing"),
        (lambda f: shards(f, {"w": "../../etc/passwd"}), "outside"),
        (lambda f: shards(f, {"w": 5}), "weight_map"),
        (lambda f: shards(f, []), "weight_map"),
    ],
)
def test_a_spoilt_folder_is_named_with_its_cure(folder, spoil, words):
    spoil(folder)
    with pytest.raises(ModelError, match=words) as caught:
        check_folder(folder, "m")
    assert caught.value.cure


@pytest.mark.parametrize("source", ["/nowhere", "./nowhere", "no such model", "", "a/b/c", "name@1.0"])
def test_what_is_no_model_is_said(source):
    with pytest.raises(ModelError):
        resolve(source, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_noise_is_never_a_weight_file_that_crashes_the_check(tmp_path, noise):
    path = tmp_path / "noise.safetensors"
    path.write_bytes(noise)
    with contextlib.suppress(ModelError):
        check_safetensors(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values)
def test_any_header_is_accepted_or_refused_but_never_crashes(tmp_path, header):
    path = tmp_path / "header.safetensors"
    path.write_bytes(safetensors(header=header if header is not None else {}))
    with contextlib.suppress(ModelError):
        check_safetensors(path)
