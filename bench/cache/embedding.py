"""What a semantic look-up costs: embedding by length, search by entries, both together, memory, agreement.

``python -m bench.cache.embedding``, one minute. One thread. Times are those of the processor, behind them those of the
wall clock, which are longer where other programs run on the same cores. Texts are made up here, and the vectors that
are searched lie in clusters around theirs. ``--full`` compares with the model in 32-bit floats, by torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime

from inferdock.cache.embedder import Embedder
from inferdock.cache.index import VectorIndex, pack, unpack
from inferdock.cache.minilm import weights_folder

T = TypeVar("T")

LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 200, 256)
ENTRIES = (1_000, 10_000, 20_000, 100_000)
RUNS = 200
SENTENCES = """
how do i change the address of my order when it has left already what is the best way to learn a new language at home
why does the sky look blue in summer and who wrote the first book about stars can you show me a short plan for five days
in the mountains with two small children and a dog
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=ENTRIES, help="sizes of the partition")
    parser.add_argument("--full", action="store_true", help="compare with the model in 32-bit floats (torch)")
    options = parser.parse_args()

    started, before = time.perf_counter(), _resident_mb()
    embedder = Embedder.load()
    print(f"onnxruntime {onnxruntime.__version__}; loaded in {time.perf_counter() - started:.2f} s, ", end="")
    embedder.embed(text(200, seed=0))
    print(f"{_resident_mb() - before:.0f} MB")
    started = time.perf_counter()
    print(f"calibrated: {embedder.calibrate()} tokens, in {time.perf_counter() - started:.2f} s\n")
    _print_embedding(embedder)
    _print_search(embedder, options.entries)
    print(f"\nresident at the end: {_resident_mb():.0f} MB, after 1.5 kB for each made-up vector")
    if options.full:
        _print_agreement(embedder)


def text(tokens: int, *, seed: int) -> str:
    """A text of so many tokens, the two marks included: each of the words is one."""
    return " ".join(np.random.default_rng(seed).choice(SENTENCES.split(), tokens - 2))


def _print_embedding(embedder: Embedder) -> None:
    print("tokens   embed p50 / p95 ms (wall)")
    for tokens in LENGTHS:
        texts = [text(tokens, seed=seed) for seed in range(RUNS if tokens <= 64 else RUNS // 4)]
        assert embedder.token_count(texts[0]) == tokens
        print(f"{tokens:6d}   {_quantiles(embedder.embed, texts)}")


def _print_search(embedder: Embedder, entries: Iterable[int]) -> None:
    """A look-up is as in the semantic tier: a text of 48 tokens is embedded, then searched for."""
    print(
        "\nentries        search p50 / p95 ms (wall)      with embedding 48 tokens        add   bytes each   recall@4"
    )
    texts = [text(48, seed=seed) for seed in range(RUNS)]
    centres = np.array([embedder.embed(words) for words in texts])
    for count in entries:
        vectors = clustered(count, centres)
        index = VectorIndex()
        adding = _times(lambda item, index=index: index.add(*item), _named(vectors))
        queries = near(vectors)
        searching = _quantiles(index.search, queries)
        together = _quantiles(lambda words, index=index: index.search(embedder.embed(words)), texts)
        each = index.nbytes / count
        print(
            f"{count:7d}   {searching:>31}   {together:>26}   {_format(adding)}   {each:10.0f}   "
            f"{_recall(index, vectors, queries):.4f}"
        )


def _print_agreement(embedder: Embedder) -> None:
    texts = [text(4 + seed % 60, seed=seed) for seed in range(RUNS)]
    ours = [embedder.embed(words) for words in texts]
    cosines = [float(full @ our) for full, our in zip(_by_torch(texts), ours, strict=True)]
    packed = [float(unpack(pack(our)) @ our) for our in ours]
    for name, values in (("32-bit floats", cosines), ("its packed form", packed)):
        print(f"cosine to {name}: mean {np.mean(values):.4f}, p1 {np.percentile(values, 1):.4f}, min {min(values):.4f}")


def _by_torch(texts: list[str]) -> Iterator[np.ndarray]:
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights_folder())
    model = transformers.AutoModel.from_pretrained(weights_folder()).eval()
    for words in texts:
        with torch.no_grad():
            states = model(**tokenizer(words, return_tensors="pt", truncation=True, max_length=256)).last_hidden_state
        mean = states.mean(dim=1)[0].numpy()
        yield mean / np.linalg.norm(mean)


def clustered(count: int, centres: np.ndarray) -> np.ndarray:
    """Unit vectors, each at a cosine of about 0.8 to one of the centres."""
    random = np.random.default_rng(1)
    vectors = (0.75 / np.sqrt(384)) * random.standard_normal((count, 384), dtype=np.float32)
    vectors += centres[random.integers(0, len(centres), count)]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def near(vectors: np.ndarray) -> list[np.ndarray]:
    """Queries at a cosine of about 0.95 to some of the vectors."""
    random = np.random.default_rng(2)
    queries = vectors[random.integers(0, len(vectors), RUNS)]
    queries = queries + 0.017 * random.standard_normal(queries.shape, dtype=np.float32)
    return list(queries / np.linalg.norm(queries, axis=1, keepdims=True))


def _named(vectors: np.ndarray) -> Iterator[tuple[bytes, np.ndarray]]:
    return ((number.to_bytes(32, "big"), vector) for number, vector in enumerate(vectors))


def _recall(index: VectorIndex, vectors: np.ndarray, queries: list[np.ndarray]) -> float:
    found = 0
    for query in queries:
        nearest = {int(number).to_bytes(32, "big") for number in np.argpartition(-(vectors @ query), 4)[:4]}
        found += len(nearest & {key for key, _ in index.search(query, 4)})
    return found / (4 * len(queries))


def _quantiles(work: Callable[[T], object], items: Sequence[T]) -> str:
    processor = _format(_times(work, items, clock=time.thread_time))
    return f"{processor} ({_format(_times(work, items))})"


def _times(
    work: Callable[[T], object], items: Iterable[T], *, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Milliseconds of each."""
    times = []
    for item in items:
        started = clock()
        work(item)
        times.append(1000 * (clock() - started))
    return times


def _format(times: list[float]) -> str:
    return f"{np.percentile(times, 50):.2f} / {np.percentile(times, 95):.2f}"


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
