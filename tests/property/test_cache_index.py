"""The laws of the vector index: it is a dictionary that can be asked for what is near, at any size and on any path."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferdock.cache.index import IndexSet, VectorIndex, pack, unpack

_RANDOM = np.random.default_rng(3)
_CENTRES = _RANDOM.standard_normal((6, 384), dtype=np.float32)
POOL = [(_CENTRES[n % 6] + 0.5 * _RANDOM.standard_normal(384, dtype=np.float32)).astype(np.float32) for n in range(48)]
"""In clusters, so that there is something near; some stand under several keys."""

keys = st.integers(0, 60).map(lambda number: number.to_bytes(4, "big"))
numbers = st.integers(0, len(POOL) - 1)
changes = st.one_of(
    st.tuples(st.just("add"), keys, numbers),
    st.tuples(st.just("add"), keys, numbers),
    st.tuples(st.just("remove"), keys, numbers),
    st.tuples(st.just("search"), keys, numbers),
)
borders = st.sampled_from([0, 1, 4, 12, 1000])


def nearest(model: dict[bytes, bytes], query: np.ndarray) -> dict[bytes, float]:
    """Each key with its cosine."""
    unit = query / np.linalg.norm(query)
    return {key: float(unpack(packed) @ unit) for key, packed in model.items()}


def check_search(index: VectorIndex, model: dict[bytes, bytes], query: np.ndarray, count: int) -> None:
    """True cosines, in order, and the best ones; equal ones may stand for each other."""
    truth = nearest(model, query)
    found = index.search(query, count)
    scores = [score for _, score in found]
    assert len({key for key, _ in found}) == len(found) == min(count, len(model))
    assert found == sorted(found, key=lambda match: (-match[1], match[0]))
    np.testing.assert_allclose(scores, [truth[key] for key, _ in found], atol=1e-4)
    np.testing.assert_allclose(scores, sorted(truth.values(), reverse=True)[:count], atol=1e-4)


@given(borders, st.lists(changes, max_size=120), st.integers(1, 6))
def test_it_is_a_dictionary_that_knows_what_is_near(
    border: int, steps: list[tuple[str, bytes, int]], count: int
) -> None:
    index, model = VectorIndex(border=border), dict[bytes, bytes]()
    for kind, key, number in steps:
        if kind == "add":
            index.add(key, POOL[number])
            model[key] = pack(POOL[number])
        elif kind == "remove":
            assert index.remove(key) == (model.pop(key, None) is not None)
        else:
            check_search(index, model, POOL[number], count)
        assert len(index) == len(model)
    assert {key for key in (n.to_bytes(4, "big") for n in range(61)) if key in index} == set(model)
    check_search(index, model, POOL[0], count)


@given(borders, st.lists(st.tuples(st.sampled_from([b"p", b"q", b"r"]), changes), max_size=80))
def test_partitions_count_up_and_vanish(border: int, steps: list[tuple[bytes, tuple[str, bytes, int]]]) -> None:
    index, model = IndexSet(border=border), dict[bytes, set[bytes]]()
    for partition, (kind, key, number) in steps:
        held = model.setdefault(partition, set())
        if kind == "add":
            index.add(partition, key, POOL[number])
            held.add(key)
        elif kind == "remove":
            assert index.remove(partition, key) == (key in held)
            held.discard(key)
        else:
            assert {match for match, _ in index.search(partition, POOL[number], 61)} == held
        assert index.size(partition) == len(held)
    assert len(index) == sum(map(len, model.values()))
    assert index.partitions == sum(map(bool, model.values()))
    for partition in model:
        index.drop(partition)
    assert index.nbytes == 0


@given(st.integers(0, 2**32), st.floats(1e-20, 1e20), st.integers(1, 384))
def test_packing_twice_changes_nothing(seed: int, scale: float, filled: int) -> None:
    vector = np.zeros(384, dtype=np.float32)
    vector[:filled] = np.random.default_rng(seed).standard_normal(filled) * scale
    packed = pack(vector)
    assert pack(unpack(packed)) == packed
    assert abs(float(np.linalg.norm(unpack(packed))) - 1) < 1e-5
