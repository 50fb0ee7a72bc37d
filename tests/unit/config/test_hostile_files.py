"""Whatever stands in a configuration file ends in settings or in one `ConfigError`, soon and in few words."""

from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inferdock.config.load import MAX_FILE_BYTES, load
from inferdock.config.settings import Settings
from inferdock.domain.errors import ConfigError


def load_bytes(folder: Path, data: bytes) -> Settings:
    path = folder / "c.yaml"
    path.write_bytes(data)
    return load(file=path, env={}, flags={}).settings


def aliases_that_double(levels: int) -> str:
    """A few hundred bytes that spell out to 9 ** levels words."""
    lines = ["engine:", "  env:", "    a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"    a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "aliases that double": aliases_that_double(12).encode(),
    "brackets": b"model: " + b"[" * 20_000,
    "nested maps": b"model: " + b"{a: " * 3_000 + b"1" + b"}" * 3_000,
    "aliases that double in one value": b"model: {source: ["
    + b", ".join(
        [b"&a0 [x, x, x, x, x, x, x, x, x]"]
        + [b"&a%d [%s]" % (i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12)]
    )
    + b"]}\n",
    "an impossible date": b"model: {source: 2020-13-45}\n",
    "a number of 5000 digits": b"gateway: {port: " + b"9" * 5_000 + b"}\n",
    "a value of half a megabyte": b"gateway: {port: '" + b"x" * 500_000 + b"'}\n",
    "the same key twice": b"model: {source: a}\nmodel: {source: b}\n",
    "an infinite time": b"drain_timeout_s: .inf\n",
    "a group inside itself": b"engine: &x\n  sim: *x\n",
    "a value inside itself": b"engine: &x\n  env: *x\n",
    "a python object": b"model: !!python/object/apply:os.system ['true']\n",
    "a list as key": b"? [1, 2]\n: 3\n",
    "null as key": b"null: 2\n",
    "tabs": b"model:\n\tsource: a\n",
    "two documents": b"model: {}\n---\nmodel: {}\n",
    "a word": b"hello",
    "a list": b"- a\n- b\n",
    "binary": bytes(range(256)),
    "zero bytes": b"\0" * 100,
    "utf-16": "model: {}".encode("utf-16"),
    "a date as text": b"model: {source: 2020-01-01}\n",
    "text as group": b"model: demo\n",
    "a group as value": b"model: {source: {a: b}}\n",
    "text as number": b"gateway: {port: eighty}\n",
    "not a number": b"drain_timeout_s: .nan\n",
    "a fraction as whole number": b"gateway: {port: 80.5}\n",
    "a negative size": b"engine: {replicas: -1}\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_one_clear_error(tmp_path, data):
    with pytest.raises(ConfigError) as error:
        load_bytes(tmp_path, data)
    assert len(str(error.value)) < 1_000


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_bytes(tmp_path, b"#" * (MAX_FILE_BYTES + 1))


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match="Cannot read the configuration file"):
        load(file=tmp_path / name, env={}, flags={})


def test_a_file_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load(file=Path("/dev/zero"), env={}, flags={})


def test_a_byte_order_mark_does_no_harm(tmp_path):
    assert load_bytes(tmp_path, b"\xef\xbb\xbfgateway: {port: 81}\n").gateway.port == 81


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=8), st.dates()
)
KEYS = st.one_of(st.text(max_size=8), st.sampled_from(["model", "engine", "gateway", "sim", "port", "env", "source"]))
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


@settings(max_examples=150)
@given(tree=st.dictionaries(KEYS, TREES, max_size=4))
def test_any_tree_of_values_loads_or_is_one_clear_error(tmp_path_factory, tree):
    with suppress(ConfigError):
        assert isinstance(load_bytes(tmp_path_factory.getbasetemp(), yaml.safe_dump(tree).encode()), Settings)


@settings(max_examples=150)
@given(data=st.binary(max_size=64))
def test_any_bytes_load_or_are_one_clear_error(tmp_path_factory, data):
    with suppress(ConfigError):
        assert isinstance(load_bytes(tmp_path_factory.getbasetemp(), data), Settings)
