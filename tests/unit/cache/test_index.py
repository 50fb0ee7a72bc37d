"""One partition's vectors and the set of all partitions."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from inferdock.cache.index import BORDER, IndexSet, VectorIndex, pack, unpack

SMALL = 100
"""Vectors from which on a graph is begun in these tests."""


def clustered(count: int, *, clusters: int = 200, seed: int = 1) -> np.ndarray:
    """Unit vectors in clusters, as questions are: neighbours at a cosine of about 0.7."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, 384), dtype=np.float32)
    vectors = centres[random.integers(0, clusters, count)] + 0.7 * random.standard_normal(
        (count, 384), dtype=np.float32
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def name(number: int) -> bytes:
    return number.to_bytes(32, "big")


def filled(vectors: np.ndarray, *, border: int = SMALL) -> VectorIndex:
    index = VectorIndex(border=border)
    for number, vector in enumerate(vectors):
        index.add(name(number), vector)
    return index


def recall(index: VectorIndex, vectors: np.ndarray, live: list[int], queries: np.ndarray, count: int = 4) -> float:
    """Share of the true nearest that a search finds."""
    numbers, found = np.array(live), 0
    for query in queries:
        order = np.argsort(-(vectors[numbers] @ query))[:count]
        nearest = {name(int(number)) for number in numbers[order]}
        found += len(nearest & {key for key, _ in index.search(query, count)})
    return found / (count * len(queries))


def noisy(vectors: np.ndarray, count: int = 60) -> np.ndarray:
    """Queries near some of the vectors."""
    random = np.random.default_rng(2)
    chosen = vectors[random.integers(0, len(vectors), count)]
    queries = chosen + 0.02 * random.standard_normal(chosen.shape, dtype=np.float32)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


def test_a_packed_vector_has_384_bytes_and_nearly_its_direction() -> None:
    for vector in clustered(50):
        assert len(pack(vector)) == 384
        assert unpack(pack(vector)) @ vector > 0.9998


def test_packing_moves_cosines_by_about_a_thousandth_at_most() -> None:
    vectors = clustered(200, clusters=20)
    unpacked = np.array([unpack(pack(vector)) for vector in vectors])
    off = np.abs(unpacked @ vectors.T - vectors @ vectors.T)
    assert np.percentile(off, 99) < 0.0012
    assert off.max() < 0.002


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(b"", id="no bytes"),
        pytest.param(b"\1" * 383, id="a byte short"),
        pytest.param(b"\0" * 384, id="zero bytes"),
        pytest.param(np.zeros(384, np.float32), id="zero"),
        pytest.param(np.full(384, np.nan, np.float32), id="no number"),
        pytest.param(np.full(384, np.inf, np.float32), id="infinite"),
        pytest.param(np.full(384, 1e-42, np.float32), id="denormal"),
        pytest.param(np.ones(383, np.float32), id="a number short"),
        pytest.param(np.ones((1, 384), np.float32), id="a matrix"),
    ],
)
def test_what_is_no_vector_is_refused_and_changes_nothing(vector: np.ndarray | bytes) -> None:
    index = IndexSet()
    with pytest.raises(ValueError, match="vector"):
        index.add(b"p", b"k", vector)
    assert (len(index), index.partitions, index.nbytes) == (0, 0, 0)


def test_an_empty_index_finds_nothing() -> None:
    assert VectorIndex().search(clustered(1)[0]) == []


def test_the_nearest_comes_first_with_its_cosine() -> None:
    vectors = clustered(50)
    (best, score), *rest = filled(vectors).search(vectors[7], 3)
    assert (best, len(rest)) == (name(7), 2)
    assert score == pytest.approx(1.0, abs=0.0003)
    assert score > rest[0][1] >= rest[1][1]


def test_scale_does_not_matter() -> None:
    vector = clustered(1)[0]
    index = VectorIndex()
    index.add(b"k", vector * 1000)
    assert index.search(vector * 0.001)[0][1] == pytest.approx(1.0, abs=0.0003)


def test_packed_and_plain_vectors_find_the_same() -> None:
    vectors = clustered(80)
    index, packed = filled(vectors), VectorIndex()
    for number, vector in enumerate(vectors):
        packed.add(name(number), pack(vector))
    assert index.search(vectors[3]) == packed.search(vectors[3])
    assert [key for key, _ in index.search(pack(vectors[3]))] == [key for key, _ in index.search(vectors[3])]


def test_of_equal_vectors_the_lower_keys_come_first() -> None:
    index, vector = VectorIndex(), clustered(1)[0]
    for number in (5, 1, 4, 2, 3):
        index.add(name(number), vector)
    assert [key for key, _ in index.search(vector, 3)] == [name(1), name(2), name(3)]


def test_a_key_has_one_vector_the_last() -> None:
    one, other = clustered(2, seed=4)
    index = VectorIndex()
    index.add(b"k", one)
    index.add(b"k", other)
    assert len(index) == 1
    assert index.search(other)[0][1] == pytest.approx(1.0, abs=0.0003)


def test_what_was_removed_is_not_found() -> None:
    vectors = clustered(50)
    index = filled(vectors)
    assert index.remove(name(7))
    assert not index.remove(name(7))
    assert name(7) not in index
    assert name(7) not in [key for key, _ in index.search(vectors[7], 49)]


def test_thousands_of_equal_vectors_do_not_slow_a_search_down() -> None:
    vector = clustered(1)[0]
    index = filled(np.repeat(vector[None], 5000, axis=0), border=BORDER)
    started = time.perf_counter()
    assert len(index.search(vector)) == 4
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize("count", [SMALL, SMALL + 1, SMALL + 10, 2 * SMALL, 1500])
def test_nothing_is_lost_on_the_way_into_the_graph(count: int) -> None:
    vectors = clustered(count)
    index = filled(vectors)
    assert len(index) == count
    assert all(name(number) in index for number in range(count))
    assert recall(index, vectors, list(range(count)), noisy(vectors)) >= 0.97


def test_the_graph_finds_nearly_all_that_is_near() -> None:
    vectors = clustered(6000, clusters=600)
    index = filled(vectors, border=1000)
    assert recall(index, vectors, list(range(6000)), noisy(vectors, 200)) >= 0.97
    assert recall(index, vectors, list(range(6000)), noisy(vectors, 200), count=1) >= 0.97


def test_the_graph_still_finds_it_after_most_has_changed() -> None:
    vectors = clustered(6000, clusters=600)
    index = filled(vectors[:3000], border=500)
    for number in range(3000):
        index.remove(name(number))
        index.add(name(3000 + number), vectors[3000 + number])
    live = list(range(3000, 6000))
    assert len(index) == 3000
    assert recall(index, vectors, live, noisy(vectors[3000:], 200)) >= 0.97


def test_memory_returns_as_vectors_go() -> None:
    vectors = clustered(2000)
    index = filled(vectors)
    full = index.nbytes
    for number in range(1990):
        assert index.remove(name(number))
    assert recall(index, vectors, list(range(1990, 2000)), vectors[1990:], count=1) == 1.0
    assert index.nbytes < full / 50


def test_a_graph_with_few_vectors_left_gives_way_to_a_smaller_one() -> None:
    vectors = clustered(3000)
    index = filled(vectors)
    full = index.nbytes
    for number in range(2800):
        index.remove(name(number))
    live = list(range(2800, 3000))
    assert index.nbytes < full / 4
    assert recall(index, vectors, live, vectors[2800:]) >= 0.97


def test_partitions_do_not_see_each_other() -> None:
    vectors = clustered(2)
    index = IndexSet()
    index.add(b"one", b"k", vectors[0])
    index.add(b"two", b"l", vectors[0])
    assert [key for key, _ in index.search(b"one", vectors[0])] == [b"k"]
    assert index.search(b"three", vectors[0]) == []
    assert not index.remove(b"one", b"l")


def test_a_partition_goes_with_its_last_vector() -> None:
    index, vector = IndexSet(), clustered(1)[0]
    index.add(b"p", b"k", vector)
    index.add(b"p", b"l", vector)
    assert (len(index), index.size(b"p"), index.partitions) == (2, 2, 1)
    assert index.remove(b"p", b"k")
    assert index.remove(b"p", b"l")
    assert (len(index), index.size(b"p"), index.partitions, index.nbytes) == (0, 0, 0, 0)


def test_a_partition_is_dropped_at_once() -> None:
    index, vectors = IndexSet(border=SMALL), clustered(300)
    for number, vector in enumerate(vectors):
        index.add(b"p", name(number), vector)
    assert index.drop(b"p") == 300
    assert index.drop(b"p") == 0
    assert (len(index), index.partitions, index.nbytes) == (0, 0, 0)


@pytest.mark.parametrize(("each", "bytes_each"), [(1, 1200), (5, 3300)])
def test_small_partitions_are_cheap(each: int, bytes_each: int) -> None:
    index, vectors = IndexSet(), clustered(5)
    for partition in range(2000):
        for number in range(each):
            index.add(name(partition), name(number), vectors[number])
    assert index.nbytes / 2000 < bytes_each


@pytest.mark.parametrize("first", ["index", "embedder"])
def test_index_and_embedder_can_be_loaded_in_any_order(first: str) -> None:
    second = {"index": "embedder", "embedder": "index"}[first]
    program = f"import inferdock.cache.{first}, inferdock.cache.{second}; print('alive')"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, "alive")


def test_a_search_among_the_most_that_is_searched_exactly_is_quick() -> None:
    vectors = clustered(2000)
    packed = [pack(vector) for vector in vectors]
    index = VectorIndex()
    for number in range(BORDER):
        index.add(name(number), packed[number % 2000])
    times = []
    for query in noisy(vectors, 20):
        started = time.perf_counter()
        index.search(query)
        times.append(time.perf_counter() - started)
    assert sorted(times)[10] < 0.01
    assert index.nbytes / BORDER < 700
