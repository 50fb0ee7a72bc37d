"""No model folder, however it is made, crashes its inspection or makes it grow."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.folder import Permissions, inspect_folder
from tests.support.model_folders import write_model

ALL = Permissions(pickle=True, remote_code=True)
FILES = [
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    *("architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "text_config"),
    *("rope_scaling", "quantization_config", "auto_map", "tie_word_embeddings", "mlp_only_layers", "model"),
    *("weight_map", "max_position_embeddings", "head_dim", "num_key_value_heads", "intermediate_size"),
]


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "model")


@contextlib.contextmanager
def restored(path: Path):
    """Every example begins with the whole folder."""
    before = path.read_bytes()
    try:
        yield before
    finally:
        path.write_bytes(before)


@in_one_folder
@given(st.sampled_from(FILES), st.binary(max_size=200))
def test_noise_in_any_file_is_accepted_or_refused(folder, name, noise):
    with restored(folder / name):
        (folder / name).write_bytes(noise)
        with contextlib.suppress(ModelError):
            inspect_folder(folder, allowed=ALL)


@in_one_folder
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_flipped_byte_anywhere_is_accepted_or_refused(folder, name, place, flip):
    with restored(folder / name) as whole:
        changed = bytearray(whole)
        changed[int(place * len(changed))] ^= flip
        (folder / name).write_bytes(changed)
        with contextlib.suppress(ModelError):
            inspect_folder(folder, allowed=ALL)


@in_one_folder
@given(st.sampled_from([name for name in FILES if name.endswith("json")]), st.sampled_from(KEYS), json_values)
def test_any_value_of_any_member_is_accepted_or_refused(folder, name, key, value):
    with restored(folder / name) as whole:
        (folder / name).write_text(json.dumps({**json.loads(whole), key: value}))
        with contextlib.suppress(ModelError):
            inspect_folder(folder, allowed=ALL)


@in_one_folder
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(folder, name, place):
    with restored(folder / name) as whole:
        (folder / name).write_bytes(whole[: int(place * (len(whole.rstrip()) - 1))])
        with pytest.raises(ModelError):
            inspect_folder(folder, allowed=ALL)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


@in_one_folder
@given(st.lists(names, min_size=1, max_size=4, unique=True))
def test_any_names_are_accepted_or_refused(folder, names):
    made = [folder / "extra" / name for name in names if len(name.encode()) < 200]
    try:
        for path in made:
            path.touch()
        with contextlib.suppress(ModelError):
            found = inspect_folder(folder, allowed=ALL)
            hidden = sum(path.name.startswith(".") for path in made)
            assert len(found.files) == 8 + len(made) - hidden - ((folder / "extra" / "notes.txt") in made)
    finally:
        for path in made:
            path.unlink(missing_ok=True)
        (folder / "extra" / "notes.txt").touch()


MEASURE = """
import resource, sys
from pathlib import Path
from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.folder import Permissions, inspect_folder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    inspect_folder(Path(sys.argv[1]), allowed=Permissions())
    said = "accepted"
except ModelError as exc:
    said = str(exc)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, said)
"""
MANY = 7_000_000


def members(value: str) -> str:
    """An object with millions of short members."""
    return "{" + ",".join(f'"{number:x}":{value}' for number in range(MANY // 2)) + "}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("config.json", lambda: members("0"), id="members"),
        pytest.param("config.json", lambda: '{"text_config":{"a":[%s0]}}' % ("[]," * 3 * MANY), id="lists"),
        pytest.param("config.json", lambda: '{"architectures":[%s"X"]}' % ('"",' * 3 * MANY), id="architectures"),
        pytest.param(
            "tokenizer.json",
            lambda: f'{{"model":{{"vocab":{members("0")}}}}}',
            id="tokens",
        ),
        pytest.param("tokenizer.json", lambda: '{"model":{"vocab":"%s"}}' % ("a" * 6 * 10**7), id="a long string"),
        pytest.param(FILES[1], lambda: f'{{"weight_map":{members(chr(34) + "a" + chr(34))}}}', id="index"),
        pytest.param("generation_config.json", lambda: "[" * 6 * 10**7, id="brackets"),
    ],
)
def test_large_json_is_read_in_bounded_memory(folder, name, content):
    """64 MiB of text may be 64 MiB in memory once or twice, and not its twentyfold."""
    (folder / name).write_text(content())
    command = [sys.executable, "-c", MEASURE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) < 250_000, done.stdout  # KiB


def test_a_folder_of_ten_thousand_files_is_inspected(folder):
    for number in range(10_000):
        (folder / "extra" / f"{number}.txt").touch()
    assert len(inspect_folder(folder, allowed=Permissions()).files) == 10_008
