"""Finding and checking model folders that are to be served, honest and hostile.

The header of the weights and the JSON files have their own tests: tests/unit/registry/inspect.
"""

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferdock.domain.errors import ModelError
from inferdock.supervisor.model_folder import (
    SAMPLED_ABOVE_BYTES,
    check_folder,
    fingerprint,
    resolve,
)
from tests.support.model_folders import safetensors_bytes


def safetensors(data: int = 16, *, header: object = None, missing: int = 0) -> bytes:
    head = header if header is not None else {"w": {"dtype": "F32", "shape": [data // 4], "data_offsets": [0, data]}}
    return safetensors_bytes(head, bytes(data - missing))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["MistralForCausalLM"], "max_position_embeddings": 64}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    return tmp_path


def test_a_whole_folder_is_accepted(folder):
    model = check_folder(folder, "m")
    assert (model.name, model.max_model_len) == ("m", 64)
    assert model.revision == f"local-{fingerprint(folder)[:12]}"


def test_the_demo_model_of_the_checkout_is_found():
    assert resolve("demo", None).name == "inferdock-demo"


def test_a_hub_name_is_passed_on():
    assert resolve("mistralai/Mistral-7B", None).folder is None


def test_the_revision_changes_with_any_byte(folder):
    before = fingerprint(folder)
    (folder / "tokenizer.json").write_text("{ }")
    assert fingerprint(folder) != before


def test_names_that_are_not_text_count_too(folder):
    before = fingerprint(folder)
    (folder / os.fsdecode(b"odd-\xff")).touch()
    assert fingerprint(folder) != before


def test_hidden_notes_of_download_tools_do_not_change_the_revision(folder):
    before = fingerprint(folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "model.json.metadata").write_text("downloaded today")
    assert fingerprint(folder) == before


def test_links_are_followed_as_the_hub_cache_uses_them(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("blobs") / "0a1b"
    (folder / "model.safetensors").rename(elsewhere)
    (folder / "model.safetensors").symlink_to(elsewhere)
    assert check_folder(folder, "m").weight_bytes == elsewhere.stat().st_size


def test_of_large_files_the_ends_and_the_size_tell_revisions_apart(folder):
    large = folder / "large.bin"
    with large.open("wb") as file:
        file.truncate(SAMPLED_ABOVE_BYTES + 1)
    before = fingerprint(folder)
    with large.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert fingerprint(folder) != before


def test_a_pickle_beside_safetensors_does_not_matter_here(folder):
    (folder / "training_args.bin").write_bytes(b"\x80\x02}.")
    assert check_folder(folder, "m").weight_bytes == (folder / "model.safetensors").stat().st_size


def test_weights_that_come_twice_count_once(folder):
    (folder / "consolidated.safetensors").write_bytes(safetensors(64))
    assert check_folder(folder, "m").weight_bytes == (folder / "model.safetensors").stat().st_size


def test_whole_shards_need_no_index(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    for number in (1, 2):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(weights)
    assert check_folder(folder, "m").weight_bytes == 2 * len(weights)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "linear", "factor": 4}}, None),
        ({"max_position_embeddings": 8192, "rope_parameters": {"rope_type": "default"}}, 8192),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": True}, None),
        ({"max_position_embeddings": "8192"}, None),
        ({}, None),
    ],
)
def test_the_length_is_known_only_where_the_config_says_it_plainly(folder, config, longest):
    (folder / "config.json").write_text(json.dumps({"architectures": ["X"], **config}))
    assert check_folder(folder, "m").max_model_len == longest


def shards(folder: Path, mapping: object) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))


def pipe(path: Path) -> None:
    """A named pipe: whoever opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def folder_at(path: Path) -> None:
    path.unlink()
    path.mkdir()


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
        (lambda f: shards(f, {"w": "n" * 5000}), "weight files are missing"),
        (lambda f: shards(f, {"w": "nul\0.safetensors"}), "weight files are missing"),
        (lambda f: shards(f, {"w": "\ud800"}), "not valid JSON"),
        (lambda f: (f / "config.json").write_text('{"architectures": "X"}'), "architectures"),
        (lambda f: (f / "config.json").write_text("9" * 5000), "JSON object"),
        (lambda f: pipe(f / "config.json"), "is not a file"),
        (lambda f: pipe(f / "model.safetensors"), "is not a file"),
        (lambda f: folder_at(f / "config.json"), "is not a file"),
        (lambda f: folder_at(f / "model.safetensors"), "is not a file"),
        (
            lambda f: (f / "model.safetensors").rename(f / "model-00002-of-00003.safetensors"),
            "2 of 3 weight files are missing",
        ),
        (lambda f: shards(f, []), "weight_map"),
    ],
)
def test_a_spoilt_folder_is_named_with_its_cure(folder, spoil, words):
    spoil(folder)
    with pytest.raises(ModelError, match=words) as caught:
        check_folder(folder, "m")
    assert caught.value.cure


@pytest.mark.parametrize(
    "source",
    [
        "/nowhere",
        "./nowhere",
        "no such model",
        "",
        "a/b/c",
        "name@1.0",
        "~nosuchuser/model",
        "a" * 5000,
        "nul\0",
        "/etc/passwd",
    ],
)
def test_what_is_no_model_is_said(source):
    with pytest.raises(ModelError):
        resolve(source, None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["architectures", "max_position_embeddings", "rope_scaling", "x"]), json_values))
def test_any_config_is_accepted_or_refused_but_never_crashes(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    with contextlib.suppress(ModelError):
        check_folder(folder, "m")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values, st.text())
def test_any_index_is_refused_when_its_shards_are_not_there(folder, mapping, name):
    index = folder / "model.safetensors.index.json"
    for weight_map in (mapping, {"w": name}):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with contextlib.suppress(ModelError):
            assert name == "model.safetensors" or check_folder(folder, "m") is None
