"""Headers of weight files: the format's rules, and what hostile ones cost."""

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.safetensors import DTYPES, MAX_HEADER_BYTES, read_header
from tests.support.model_folders import header_of, safetensors_bytes, tensor, write_safetensors

MEMORY_BYTES = 300_000_000
"""What reading one header may take at most; honest ones take a few megabytes."""


def entry(begin: int = 0, end: int = 4, *, dtype: str = "U8", shape: object = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def written(tmp_path, header, data=4):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(header, bytes(data)))
    return path


def test_a_header_is_read_in_the_order_of_its_bytes(tmp_path):
    write_safetensors(tmp_path / "w", {"b": tensor("BF16", 2, 3), "a": tensor("F32", 1), "empty": tensor("F32", 0)})
    found = [(t.name, t.dtype, t.shape, t.elements) for t in read_header(tmp_path / "w")]
    assert found == [("b", "BF16", (2, 3), 6), ("a", "F32", (1,), 1), ("empty", "F32", (0,), 0)]


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_type_of_the_format_has_its_size(tmp_path, dtype):
    size = DTYPES[dtype][0]  # eight elements have as many bytes as one has bits
    assert read_header(written(tmp_path, {"w": entry(0, size, dtype=dtype, shape=[8])}, size))[0].dtype == dtype


@pytest.mark.parametrize(
    ("header", "data"),
    [
        pytest.param({}, 0, id="no tensor"),
        pytest.param({"w": entry(0, 1, shape=[])}, 1, id="a scalar"),
        pytest.param({"w": entry(), "__metadata__": {"format": "pt"}}, 4, id="notes"),
        pytest.param({"w": entry(), "__metadata__": None}, 4, id="notes that are null"),
        pytest.param({"z": entry(0, 0), "w": entry()}, 4, id="an empty tensor before"),
        pytest.param(b'  {"w": {"shape": [4], "dtype": "U8", "data_offsets": [0, 4]}}   ', 4, id="spaces around"),
        pytest.param({"dtype": entry(0, 2), "shape": entry(2, 4)}, 4, id="names that are keys of the format"),
    ],
)
def test_what_the_reference_reader_takes_is_taken(tmp_path, header, data):
    read_header(written(tmp_path, header, data))


TWICE = b'{"w": %b, "w": %b}' % (json.dumps(entry()).encode(), json.dumps(entry()).encode())
TWICE_INSIDE = b'{"w": {"dtype": "F32", "dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}'


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        pytest.param([1], 0, "not the JSON", id="a list"),
        pytest.param(b"{", 0, "not the JSON", id="no JSON"),
        pytest.param(b'{"w": "\xff"}', 0, "not the JSON", id="not UTF-8"),
        pytest.param({"w": {"data_offsets": "x"}}, 4, "not the JSON", id="fields missing"),
        pytest.param({"w": {**entry(), "more": 1}}, 4, "not the JSON", id="an unknown field"),
        pytest.param({"w": entry(), "__metadata__": {"a": 1}}, 4, "not the JSON", id="notes that are no text"),
        pytest.param({"w": entry(dtype="F7")}, 4, "unknown type 'F7'", id="an unknown type"),
        pytest.param({"w": entry(shape=[-4])}, 4, "not the JSON", id="a negative side"),
        pytest.param({"w": entry(shape=[4.0])}, 4, "not the JSON", id="a side that is no integer"),
        pytest.param({"w": entry(shape=[True, 4])}, 4, "not the JSON", id="a side that is true"),
        pytest.param({"w": entry(shape=[2**63, 0])}, 4, "not the JSON", id="a side beyond 63 bits"),
        pytest.param({"w": entry(shape=[1] * 65)}, 4, "not the JSON", id="65 sides"),
        pytest.param({"w": entry(shape=[5])}, 4, "not that of its shape", id="shape larger than data"),
        pytest.param({"w": entry(shape=[2**62, 2**62])}, 4, "not that of its shape", id="a product beyond 64 bits"),
        pytest.param({"w": entry(0, 3, dtype="F32", shape=[1])}, 3, "not that of its shape", id="bytes for no element"),
        pytest.param({"w": entry(4, 0, shape=[4])}, 4, "not that of its shape", id="ends before it begins"),
        pytest.param({"w": {**entry(), "data_offsets": [-4, 0]}}, 4, "not the JSON", id="a negative offset"),
        pytest.param({"w": {**entry(), "data_offsets": [0, 4, 8]}}, 4, "not the JSON", id="three offsets"),
        pytest.param({"a": entry(), "b": entry(2, 6)}, 6, "`b` overlaps another tensor", id="an overlap"),
        pytest.param({"a": entry(), "b": entry()}, 4, "`b` overlaps another tensor", id="the same bytes twice"),
        pytest.param({"a": entry(), "b": entry(2, 2)}, 4, "overlaps", id="an empty tensor inside another"),
        pytest.param({"a": entry(), "b": entry(8, 12)}, 12, "`b` leaves bytes", id="a hole"),
        pytest.param({"a": entry(1, 4)}, 4, "`a` leaves bytes", id="a hole at the start"),
        pytest.param({"w": entry()}, 9, "5 bytes at the end belong to no tensor", id="bytes at the end"),
        pytest.param({"w": entry(0, 40)}, 4, "cut: 36 bytes are missing", id="data missing"),
        pytest.param({"w": entry(0, 2**62)}, 4, "cut", id="far beyond the file"),
        pytest.param({"\x1b[2J": entry(0, 2)}, 4, "belong to no tensor", id="an escape as a name"),
        pytest.param({"\x1b[2J": entry(4, 8)}, 8, r"`\\x1b\[2J` leaves", id="an escape as the name at fault"),
        pytest.param(TWICE, 4, "`w` is there twice", id="a tensor twice"),
        pytest.param(TWICE_INSIDE, 4, "`dtype` is there twice", id="a field twice"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(tmp_path, header, data, words):
    path = written(tmp_path, header, data)
    with pytest.raises(ModelError, match=words) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.cure


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "cut or not", id="empty"),
        pytest.param(b"abc", "cut or not", id="three bytes"),
        pytest.param(b"\xff" * 64, "cut or not", id="a length of 2**64 - 1"),
        pytest.param(b"\x00\x00\x00\x00\x00\x00\x00\x80" + b"{}", "cut or not", id="a negative length"),
        pytest.param((0).to_bytes(8, "little"), "not the JSON", id="a header of no length"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS", id="LFS pointer"
        ),
    ],
)
def test_what_is_no_such_file_is_said(tmp_path, content, words):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        read_header(path)


def test_a_header_that_is_too_long_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(2 * MAX_HEADER_BYTES)
    with pytest.raises(ModelError, match="header of more than 16 MiB"):
        read_header(path)


EMPTY = '"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(lambda: "{" + ",".join(EMPTY % n for n in range(1_000_000)) + "}", id="a million tensors"),
        pytest.param(lambda: "{" + ",".join(EMPTY % n for n in range(200_000)) + ',"x":0}', id="200,000 and a fault"),
        pytest.param(lambda: "{" + ",".join(f'"{n:x}":0' for n in range(1_400_000)) + "}", id="1.4 million numbers"),
        pytest.param(lambda: '{"w":[' + "[]," * 5_000_000 + "0]}", id="5 million lists"),
        pytest.param(lambda: '{"w":{"shape":[' + "1," * 7_000_000 + "1]}}", id="7 million sides"),
        pytest.param(
            lambda: '{"__metadata__":{' + ",".join(f'"{n:x}":""' for n in range(1_200_000)) + "}}", id="many notes"
        ),
        pytest.param(lambda: '{"w":' + "[" * 15_000_000, id="15 million brackets"),
        pytest.param(lambda: "[" * 15_000_000, id="brackets only"),
        pytest.param(lambda: '{"a":' * 3_000_000, id="3 million objects deep"),
        pytest.param(lambda: '{"w":' + "9" * 15_000_000 + "}", id="a number of 15 million digits"),
        pytest.param(lambda: json.dumps({"w": entry(0, 4, shape=[2**62] * 64)}), id="a product of 4,000 bits"),
    ],
)
def test_a_hostile_header_is_refused_without_much_memory(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(header().encode()))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F4", "F32", "?"]) | json_values,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 20), min_size=2, max_size=2) | json_values,
    }
)
in_any_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_any_folder
@given(st.binary(max_size=300))
def test_noise_never_crashes_the_reader(tmp_path, noise):
    path = tmp_path / "noise"
    path.write_bytes(noise)
    with contextlib.suppress(ModelError):
        read_header(path)


@in_any_folder
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), fields | json_values) | json_values, st.binary())
def test_what_is_accepted_covers_its_data_exactly_once(tmp_path, header, data):
    path = tmp_path / "any"
    path.write_bytes(safetensors_bytes(header, data))
    try:
        tensors = read_header(path)
    except ModelError:
        return
    covered = [byte for one in tensors for byte in range(one.begin, one.end)]
    assert covered == list(range(len(data)))


shapes = st.tuples(st.sampled_from(["U8", "BF16", "F32", "I64"]), st.lists(st.integers(0, 4), max_size=3))


@in_any_folder
@given(st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), shapes, max_size=6))
def test_what_is_written_by_the_rules_is_read_back(tmp_path, wanted):
    tensors = {name: tensor(dtype, *shape) for name, (dtype, shape) in wanted.items()}
    path = tmp_path / "written"
    write_safetensors(path, tensors)
    found = {one.name: (one.dtype, list(one.shape)) for one in read_header(path)}
    assert found == {name: (dtype, shape) for name, (dtype, shape) in wanted.items()}


@in_any_folder
@given(st.integers(0, 400), st.integers(1, 64))
def test_a_file_cut_anywhere_is_refused(tmp_path, cut_at, words):
    tensors = {"w": tensor("F32", words)}
    whole = safetensors_bytes(header_of(tensors), tensors["w"].data)
    path = tmp_path / "cut"
    path.write_bytes(whole[: min(cut_at, len(whole) - 1)])
    with pytest.raises(ModelError, match="cut"):
        read_header(path)
