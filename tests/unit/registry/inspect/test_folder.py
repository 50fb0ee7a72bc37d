"""What may be pushed: one table of folders that are refused, and what is said of those that are not."""

import json
import os
import random
import socket
import zipfile
from pathlib import Path

import pytest

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.folder import Permissions, inspect_folder
from tests.support.model_folders import (
    llama_tensors,
    safetensors_bytes,
    tensor,
    write_model,
    write_safetensors,
    write_weights,
)

NOTHING = Permissions()
DEMO = Path(__file__).resolve().parents[4] / "models" / "demo"
SHARD = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "model")


def change(path: Path, **members: object) -> None:
    """Set members of a JSON file; None takes them away."""
    data = {**json.loads(path.read_text()), **members}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


def rewrite(folder: Path, **changes: object) -> None:
    """Write the weights again in one file, with some tensors replaced (``model.norm.weight`` as ``model_norm``)."""
    tensors = llama_tensors(random.Random(0), 64, 16, 2)
    for name, one in changes.items():
        tensors[name] = one
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    write_weights(folder, {name: one for name, one in tensors.items() if one is not None})


# What is accepted


def test_a_whole_folder_is_accepted_with_its_subfolders(folder):
    found = inspect_folder(folder, allowed=NOTHING)
    assert [file.path for file in found.files] == [
        "config.json",
        "extra/notes.txt",
        "generation_config.json",
        SHARD,
        "model-00002-of-00002.safetensors",
        INDEX,
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert all(file.source.stat().st_size == file.size for file in found.files)


def test_what_nobody_uses_is_not_needed(folder):
    allowed = Permissions(pickle=True, remote_code=True)
    assert inspect_folder(folder, allowed=allowed).needed == NOTHING


def test_hidden_files_and_the_registrys_own_are_left_out(folder):
    before = inspect_folder(folder, allowed=NOTHING).files
    for name in (".git/config", ".cache/x.py", ".gitattributes", "MANIFEST.json", "MANIFEST.sig", "extra/.hidden.sh"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    assert inspect_folder(folder, allowed=NOTHING).files == before


@pytest.mark.parametrize("glob", ["extra", "extra/", "extra/*", "*.txt", "ext*"])
def test_what_is_excluded_is_not_looked_at(folder, glob):
    (folder / "extra" / "run.txt").write_text("#!/bin/sh\n")
    paths = [file.path for file in inspect_folder(folder, allowed=NOTHING, exclude=[glob]).files]
    assert "config.json" in paths
    assert not any(path.startswith("extra/") for path in paths)


def test_a_name_that_looks_like_a_glob_can_be_excluded(folder):
    (folder / "run[1].py").write_text("x")
    inspect_folder(folder, allowed=NOTHING, exclude=["run[1].py"])


def test_links_within_the_folder_are_followed(folder):
    (folder / "extra" / "copy.txt").symlink_to("notes.txt")
    files = {file.path: file for file in inspect_folder(folder, allowed=NOTHING).files}
    assert files["extra/copy.txt"].source == files["extra/notes.txt"].source


def test_a_snapshot_of_the_hub_cache_is_followed_to_its_blobs(tmp_path):
    snapshot = write_model(tmp_path / "models--org--tiny" / "snapshots" / "0a1b2c")
    blobs = tmp_path / "models--org--tiny" / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in snapshot.iterdir() if p.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(Path("../../blobs") / str(number))
    found = inspect_folder(snapshot, allowed=NOTHING)
    assert found.files[0].source == blobs / "0"
    assert found.facts.layers == 2


def test_a_folder_that_is_a_link_is_followed(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert inspect_folder(tmp_path / "link", allowed=NOTHING).files == inspect_folder(folder, allowed=NOTHING).files


def test_the_same_weights_under_other_names_do_not_count_twice(folder):
    before = inspect_folder(folder, allowed=NOTHING).facts
    write_safetensors(folder / "consolidated.safetensors", {"tok_embeddings.weight": tensor("BF16", 64, 16)})
    assert inspect_folder(folder, allowed=NOTHING).facts == before


def test_weights_without_an_index_are_read_too(folder):
    before = inspect_folder(folder, allowed=NOTHING).facts
    (folder / INDEX).unlink()
    assert inspect_folder(folder, allowed=NOTHING).facts == before


def test_infinity_in_a_config_is_accepted_as_python_does(folder):
    text = (folder / "config.json").read_text().rstrip().rstrip("}")
    (folder / "config.json").write_text(text + ', "time_step_limit": [0.0, Infinity]}')
    assert inspect_folder(folder, allowed=NOTHING).facts.layers == 2


def test_a_wrong_total_size_in_the_index_is_ignored(folder):
    change(folder / INDEX, metadata={"total_size": 5})
    inspect_folder(folder, allowed=NOTHING)


# What is refused: folders and files


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def bound_socket(folder: Path) -> None:
    before = os.getcwd()
    os.chdir(folder)  # a socket's path may have 107 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("socket")
    finally:
        os.chdir(before)


def outside_link(folder: Path) -> None:
    (folder.parent / "secret").write_text("x")
    (folder / "notes.txt").symlink_to("../secret")


def blob_of_no_cache(folder: Path) -> None:
    (folder.parent / "blobs").mkdir()
    (folder.parent / "blobs" / "x").write_text("x")
    (folder / "notes.txt").symlink_to("../blobs/x")


def deep(folder: Path) -> None:
    path = folder.joinpath(*["d"] * 20)
    path.mkdir(parents=True)
    (path / "x").touch()


def moved_to_pickles(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}.")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda f: (f / "config.json").unlink(), "config.json is missing", id="no config"),
        pytest.param(lambda f: (f / "config.json").write_text("[]"), "JSON object", id="config is a list"),
        pytest.param(lambda f: change(f / "config.json", architectures=None), "no `architectures`", id="no class"),
        pytest.param(lambda f: change(f / "config.json", architectures=[]), "no `architectures`", id="no class named"),
        pytest.param(
            lambda f: change(f / "config.json", architectures=["\x1b[2J"]), "no `arch", id="class is an escape"
        ),
        pytest.param(lambda f: change(f / "config.json", architectures=["X" * 10**6]), "no `arch", id="class is long"),
        pytest.param(lambda f: change(f / "config.json", architectures=[5]), "no `architectures`", id="class is 5"),
        pytest.param(lambda f: (f / "tokenizer.json").unlink(), "no tokenizer", id="no tokenizer"),
        pytest.param(lambda f: [p.unlink() for p in f.glob("model*")], "has no weights", id="no weights"),
        pytest.param(moved_to_pickles, "weights only as pickles", id="pickled weights"),
        pytest.param(lambda f: (f / "generation_config.json").write_text("{"), "not valid JSON", id="JSON cut"),
        pytest.param(lambda f: (f / "extra" / "x.json").write_text("[" * 10**6), "not valid JSON", id="JSON deep"),
        pytest.param(lambda f: (f / "extra" / "x.json").write_bytes(b'"\xff"'), "not valid JSON", id="JSON no UTF-8"),
        pytest.param(
            lambda f: os.truncate(f / "tokenizer_config.json", 65 * 2**20), "larger than 64 MiB", id="JSON huge"
        ),
        pytest.param(pipe, "pipe is not a regular file", id="a pipe"),
        pytest.param(bound_socket, "socket is not a regular file", id="a socket"),
        pytest.param(outside_link, "a link that leaves the folder", id="a link outside"),
        pytest.param(blob_of_no_cache, "a link that leaves the folder", id="a link to blobs of no cache"),
        pytest.param(lambda f: (f / "a").symlink_to("/dev/zero"), "a link that leaves", id="a link to a device"),
        pytest.param(lambda f: (f / "a").symlink_to("extra"), "a link to a folder", id="a link to a folder"),
        pytest.param(lambda f: (f / "a").symlink_to("."), "a link to a folder", id="a link to itself"),
        pytest.param(lambda f: (f / "a").symlink_to("a"), "cannot be read", id="a loop of links"),
        pytest.param(lambda f: (f / "\x1b[2J").symlink_to("/"), "a link that leaves", id="a link with an escape"),
        pytest.param(lambda f: (f / "a").symlink_to("nowhere"), "cannot be read", id="a link to nothing"),
        pytest.param(lambda f: (f / os.fsdecode(b"odd-\xff")).touch(), "not UTF-8", id="a name of bytes"),
        pytest.param(lambda f: (f / os.fsdecode(b"\xff.fifo")).symlink_to("x"), "cannot be read", id="bytes and link"),
        pytest.param(lambda f: (f / "Config.json").write_text("{}"), "where case does not count", id="case clash"),
        pytest.param(lambda f: (f / "manifest.json").write_text("{}"), "the registry writes itself", id="our name"),
        pytest.param(lambda f: (f / "a\nb").touch(), "control or invisible", id="a line break in a name"),
        pytest.param(deep, "folders deep", id="too deep"),
        pytest.param(
            lambda f: (f / SHARD).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "Git LFS pointer",
            id="weights not fetched",
        ),
        pytest.param(
            lambda f: (f / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "Git LFS pointer",
            id="tokenizer not fetched",
        ),
        pytest.param(
            lambda f: (f / "extra" / "x.safetensors").write_bytes(b"abc"), "cut or not", id="other weights broken"
        ),
    ],
)
def test_a_folder_that_may_not_be_pushed_is_refused(folder, spoil, words):
    spoil(folder)
    with pytest.raises(ModelError, match=words) as caught:
        inspect_folder(folder, allowed=NOTHING)
    assert caught.value.cure
    assert caught.value.message.isprintable()


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no file"):
        inspect_folder(tmp_path, allowed=NOTHING)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is not a folder"):
        inspect_folder(tmp_path / "nowhere", allowed=NOTHING)


def test_a_home_folder_given_by_mistake_ends_early(folder, monkeypatch):
    monkeypatch.setattr("inferdock.registry.inspect.walk.MAX_FILES", 5)
    with pytest.raises(ModelError, match="more than 5 files"):
        inspect_folder(folder, allowed=NOTHING)


def test_an_excluded_config_is_missing(folder):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        inspect_folder(folder, allowed=NOTHING, exclude=["config.json"])


# What is refused: index and weights


def misplaced(folder: Path) -> None:
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    other = {SHARD: "model-00002-of-00002.safetensors"}.get(weight_map["lm_head.weight"], SHARD)
    change(folder / INDEX, weight_map={**weight_map, "lm_head.weight": other})


def unnamed(folder: Path) -> None:
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    change(folder / INDEX, weight_map={name: file for name, file in weight_map.items() if name != "lm_head.weight"})


def named_twice(folder: Path) -> None:
    (folder / INDEX).unlink()
    (folder / "model-00002-of-00002.safetensors").write_bytes((folder / SHARD).read_bytes())


def weight_map(value: object):
    return lambda folder: change(folder / INDEX, weight_map=value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda f: (f / SHARD).unlink(), "1 of 2 weight files are missing", id="a shard is missing"),
        pytest.param(
            lambda f: [(f / SHARD).unlink(), (f / INDEX).unlink()], "1 of 2 weight files", id="missing by its name"
        ),
        pytest.param(weight_map([]), "no usable `weight_map`", id="a map that is a list"),
        pytest.param(weight_map({}), "no usable `weight_map`", id="an empty map"),
        pytest.param(weight_map({"w": 5}), "no usable `weight_map`", id="a map to numbers"),
        pytest.param(weight_map({"w": "../x"}), "points outside", id="a map that leaves"),
        pytest.param(weight_map({"w": "/etc/passwd"}), "points outside", id="an absolute map"),
        pytest.param(weight_map({"w": ".hidden"}), "weight files are missing", id="a map to a hidden file"),
        pytest.param(weight_map({"w": "config.json"}), "cut or not a safetensors", id="a map to a config"),
        pytest.param(weight_map({str(n): SHARD for n in range(501_500)}), "more than 500,000", id="a huge map"),
        pytest.param(misplaced, "places `lm_head.weight` in model-0000", id="a tensor in another shard"),
        pytest.param(unnamed, "holds `lm_head.weight`, which .* does not name", id="a tensor not in the index"),
        pytest.param(named_twice, "holds `.*`, which .* holds too", id="a tensor twice"),
    ],
)
def test_an_index_that_does_not_match_is_refused(folder, spoil, words):
    spoil(folder)
    with pytest.raises(ModelError, match=words) as caught:
        inspect_folder(folder, allowed=NOTHING)
    assert caught.value.cure


def test_weights_without_a_tensor_are_refused(folder):
    rewrite(folder)
    (folder / "model.safetensors").write_bytes(safetensors_bytes({}))
    with pytest.raises(ModelError, match="holds no tensor"):
        inspect_folder(folder, allowed=NOTHING)


# Pickles and code


def archive(path: Path, name: str, content: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, content)


def npy(descr: str) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}".encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def windows_program() -> bytes:
    return b"MZ" + bytes(58) + (64).to_bytes(4, "little") + b"PE\0\0"


def put(name: str, content: bytes = b"x"):
    return lambda folder: (folder / name).write_bytes(content)


PICKLES = [
    *(pytest.param(put(f"x.{end}"), id=end) for end in ("bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "PT")),
    pytest.param(put("extra/x.pt"), id="in a sub-folder"),
    *(pytest.param(put("x", b"\x80" + bytes([n]) + b"}."), id=f"protocol {n}") for n in (2, 3, 4, 5)),
    pytest.param(lambda f: archive(f / "x", "archive/data.pkl"), id="an archive of PyTorch"),
    pytest.param(put("x", b"PK\x03\x04" + b"\xff" * 100), id="a damaged archive"),
    pytest.param(put("x.npy", npy("'|O'")), id="an array of objects"),
    pytest.param(put("x.npy", npy("[('a', '<f4'), ('b', '|O')]")), id="an array with a column of objects"),
    pytest.param(lambda f: archive(f / "x.npz", "a.npy", npy("'|O'")), id="an archive with an array of objects"),
]
CODE = [
    *(pytest.param(put(f"x.{end}"), id=end) for end in ("py", "so", "dll", "sh", "pyc", "exe", "so.1.2", "PY", "jar")),
    pytest.param(put("extra/modeling.py"), id="in a sub-folder"),
    pytest.param(put("x", b"\x7fELF\x02\x01"), id="ELF"),
    pytest.param(put("x", b"\xcf\xfa\xed\xfe"), id="Mach-O"),
    pytest.param(put("x", windows_program()), id="PE"),
    pytest.param(put("x.txt", b"#!/usr/bin/env python\n"), id="a script"),
    pytest.param(lambda f: archive(f / "x", "a/evil.py"), id="an archive with code"),
    *(
        pytest.param(
            lambda f, n=name: change(f / n, auto_map={"AutoModelForCausalLM": "modeling.Model"}),
            id=f"classes in {name}",
        )
        for name in ("config.json", "tokenizer_config.json", "generation_config.json")
    ),
]


@pytest.mark.parametrize("spoil", PICKLES)
def test_a_pickle_is_refused_unless_it_is_allowed(folder, spoil):
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        inspect_folder(folder, allowed=Permissions(remote_code=True))
    assert "--allow-pickle" in caught.value.cure
    assert "--exclude 'ex" in caught.value.cure or "--exclude 'x" in caught.value.cure
    assert inspect_folder(folder, allowed=Permissions(pickle=True)).needed == Permissions(pickle=True)


@pytest.mark.parametrize("spoil", CODE)
def test_code_is_refused_unless_it_is_allowed(folder, spoil):
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        inspect_folder(folder, allowed=Permissions(pickle=True))
    assert "--trust-remote-code" in caught.value.cure
    assert inspect_folder(folder, allowed=Permissions(remote_code=True)).needed == Permissions(remote_code=True)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(put("extra/x.txt", b"\x80abc"), id="a byte as of a pickle"),
        pytest.param(put("extra/x.txt", b"MZ is a text about programs that is longer than the mark " * 9), id="MZ"),
        pytest.param(put("README.md", b"#!python is no shebang here"), id="#!"),
        pytest.param(put("x.npy", npy("'<f4'")), id="an array of numbers"),
        pytest.param(lambda f: archive(f / "x.npz", "a.npy", npy("'<f4'")), id="an archive of numbers"),
        pytest.param(lambda f: change(f / "config.json", auto_map={}), id="no classes"),
        pytest.param(put("chat_template.jinja", b"{{ messages }}"), id="a template"),
        pytest.param(put("empty", b""), id="an empty file"),
    ],
)
def test_what_only_looks_dangerous_is_accepted(folder, spoil):
    spoil(folder)
    assert inspect_folder(folder, allowed=NOTHING).needed == NOTHING


def test_a_header_whose_length_looks_like_a_pickle_is_accepted(folder):
    for length in (0x0280, 0x0480):  # begins with b"\x80\x02"
        header = json.dumps({"w": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode().ljust(length)
        (folder / "other.safetensors").write_bytes(safetensors_bytes(header))
        inspect_folder(folder, allowed=NOTHING)


def test_of_pickled_weights_only_the_size_is_known(folder):
    moved_to_pickles(folder)
    facts = inspect_folder(folder, allowed=Permissions(pickle=True)).facts
    assert (facts.weight_bytes, facts.parameters, facts.dtype, facts.layers) == (4, 0, "", 2)


# Config and weights


@pytest.mark.parametrize(
    ("members", "words"),
    [
        pytest.param({"vocab_size": 65}, "has 64 rows, and config.json asks for a vocabulary of 65", id="vocabulary"),
        pytest.param({"hidden_size": 32}, "`model.embed_tokens.weight` is 64 x 16, and .* any x 32", id="width"),
        pytest.param({"intermediate_size": 33}, "gate_proj.weight` is 32 x 16, and by config.json it is 33", id="MLP"),
        pytest.param({"num_key_value_heads": None}, "k_proj.weight` is 8 x 16, and by config.json it is 16", id="keys"),
        pytest.param({"head_dim": 4}, "q_proj.weight` is 16 x 16, and by config.json it is 8", id="head"),
        pytest.param({"num_hidden_layers": 3}, r"no `model\.layers\.2\.input_layernorm", id="more layers"),
        pytest.param({"num_hidden_layers": 10**9}, r"no `model\.layers\.2\.input_layernorm", id="a billion layers"),
        pytest.param({"num_hidden_layers": 1}, "holds layer 1, and config.json asks for 1 layers", id="fewer layers"),
        pytest.param({"architectures": ["Qwen3ForCausalLM"], "head_dim": 8}, "no `.*q_norm", id="another family"),
    ],
)
def test_a_config_of_another_model_is_refused(folder, members, words):
    change(folder / "config.json", **members)
    with pytest.raises(ModelError, match=words) as caught:
        inspect_folder(folder, allowed=NOTHING)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"lm_head.weight": None}, "no `lm_head.weight`", id="no output layer"),
        pytest.param({"model.norm.weight": None}, "no `model.norm.weight`", id="no last norm"),
        pytest.param({"model.norm.weight": tensor("BF16", 16, 1)}, "is 16 x 1, and by config.json", id="a side more"),
        pytest.param({"model.layers.1.mlp.up_proj.weight": None}, "no `model.layers.1.mlp.up_proj", id="no matrix"),
    ],
)
def test_weights_of_another_model_are_refused(folder, changes, words):
    rewrite(folder, **changes)
    with pytest.raises(ModelError, match=words):
        inspect_folder(folder, allowed=NOTHING)


def test_a_tokenizer_with_ids_beyond_the_embedding_is_refused(folder):
    change(folder / "tokenizer.json", model={"type": "BPE", "vocab": {"a": 0, '\\":9000': 3, "b": 64}})
    with pytest.raises(ModelError, match=r"has the id 64, and `model\.embed_tokens\.weight` has 64 rows"):
        inspect_folder(folder, allowed=NOTHING)


def test_a_unigram_tokenizer_counts_its_list(folder):
    change(folder / "tokenizer.json", model={"type": "Unigram", "vocab": [["[", -1.0]] * 65})
    with pytest.raises(ModelError, match="has the id 64"):
        inspect_folder(folder, allowed=NOTHING)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"vocab_size": 60}, id="an embedding that is padded"),
        pytest.param(
            {"architectures": ["SomethingNewForCausalLM"], "hidden_size": 5, "num_hidden_layers": 9}, id="new"
        ),
        pytest.param({"num_key_value_heads": [1, 1]}, id="a size for each layer"),
        pytest.param({"hidden_size": None}, id="a size that is not said"),
        pytest.param({"tie_word_embeddings": True}, id="tied, and stored all the same"),
        pytest.param({"text_config": {"vocab_size": 9999, "hidden_size": 3}}, id="several modalities"),
        pytest.param({"hidden_size": 99, "quantization_config": {"quant_method": "new"}}, id="quantised"),
    ],
)
def test_what_cannot_be_judged_passes(folder, members):
    change(folder / "config.json", **members)
    inspect_folder(folder, allowed=NOTHING)


def test_tokens_added_later_may_lack_a_row(folder):
    change(folder / "tokenizer.json", added_tokens=[{"id": 64, "content": "<image>"}])
    inspect_folder(folder, allowed=NOTHING)


def test_a_model_saved_without_its_output_layer_passes(folder):
    tensors = llama_tensors(random.Random(0), 64, 16, 2, tied=True)
    for file in folder.glob("model*"):
        file.unlink()
    write_weights(folder, {name.removeprefix("model."): one for name, one in tensors.items()})
    inspect_folder(folder, allowed=NOTHING)


def test_a_head_for_speculative_decoding_passes(folder):
    rewrite(folder, **{"fc.weight": tensor("BF16", 16, 32), "model.norm.weight": None})
    inspect_folder(folder, allowed=NOTHING)


# Facts


def test_the_facts_of_the_demo_model_are_right():
    facts = inspect_folder(DEMO, allowed=NOTHING).facts
    assert facts.architecture == "MistralForCausalLM"
    assert (facts.model_type, facts.dtype, facts.parameters) == ("mistral", "bfloat16", 4_000_000)
    assert (facts.layers, facts.hidden_size, facts.vocabulary_size, facts.context_length) == (4, 256, 2048, 2048)
    assert (facts.quantization, facts.tied_embeddings) == (None, False)
    assert (facts.dtypes, facts.weight_bytes) == ({"bfloat16": 8_000_000}, 8_004_184)


PARAMETERS = 64 * 16 * 2 + 16 + 2 * (16 * 16 * 2 + 8 * 16 * 2 + 3 * 32 * 16 + 2 * 16)


@pytest.mark.parametrize(
    ("quantization", "found"),
    [
        (None, None),
        ("awq", {"method": "awq", "bits": 4, "group_size": 8}),
        ("fp8", {"method": "fp8"}),
        (
            "compressed-tensors",
            {"method": "compressed-tensors", "format": "pack-quantized", "bits": 4, "group_size": 8},
        ),
    ],
)
def test_packed_weights_count_as_many_as_they_are_unpacked(tmp_path, quantization, found):
    write_model(tmp_path, quantization=quantization, shards=3)
    facts = inspect_folder(tmp_path, allowed=NOTHING).facts
    assert (facts.quantization, facts.parameters) == (found, PARAMETERS)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "left out"])
def test_a_tied_output_layer_counts_once(tmp_path, stored):
    write_model(tmp_path, tied=not stored, config={"tie_word_embeddings": True})
    facts = inspect_folder(tmp_path, allowed=NOTHING).facts
    assert (facts.tied_embeddings, facts.parameters) == (True, PARAMETERS - 64 * 16)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128}, {"method": "gptq", "bits": 4, "group_size": 128}),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 64}, {"method": "awq", "bits": 4, "group_size": 64}),
        (
            "hf_quant_config.json",
            {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
            {"method": "modelopt", "algorithm": "FP8"},
        ),
    ],
)
def test_older_tools_describe_the_packing_in_a_file_of_their_own(tmp_path, name, content, found):
    write_model(tmp_path, quantization="awq", config={"quantization_config": None})
    (tmp_path / name).write_text(json.dumps(content))
    assert inspect_folder(tmp_path, allowed=NOTHING).facts.quantization == found


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"quant_method": "gptq", "bits": 8}, {"method": "gptq", "bits": 8}),
        ({"load_in_4bit": True}, {"method": "bitsandbytes", "bits": 4}),
        ({"quant_method": "mxfp4"}, {"method": "mxfp4"}),
        ({"quant_method": 5, "bits": "x", "group_size": -1}, {"method": "unknown", "group_size": -1}),
        ({"quant_method": "\x1b[2J", "format": "x" * 101}, {"method": "unknown"}),
        ({}, {"method": "unknown"}),
    ],
)
def test_what_a_config_says_of_its_packing_is_kept(folder, said, found):
    change(folder / "config.json", quantization_config=said)
    assert inspect_folder(folder, allowed=NOTHING).facts.quantization == found


def test_of_several_modalities_the_language_model_gives_the_facts(folder):
    change(folder / "config.json", text_config={"num_hidden_layers": 7, "max_position_embeddings": 99, "vocab_size": 3})
    facts = inspect_folder(folder, allowed=NOTHING).facts
    assert (facts.layers, facts.context_length, facts.vocabulary_size, facts.hidden_size) == (7, 99, 3, 16)
