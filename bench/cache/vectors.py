"""Vectors of many texts, each embedded alone as the cache does it (2 ms), and kept in ``out/`` for the next run."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferdock.cache.embedder import Embedder, EmbeddingError
from inferdock.cache.packing import pack

FOLDER = Path(__file__).parents[2] / "out" / "bench-cache"
KEEP_EVERY = 10_000
NONE = np.zeros(384, dtype=np.int8)
"""Of a text that has no vector."""


def vectors(embedder: Embedder, texts: list[str], folder: Path = FOLDER) -> NDArray[np.int8]:
    """Packed vectors, one a row; all zero for a text that gets none.

    What is kept belongs to these texts in this order, and to the embedding model; an earlier run may have left the
    beginning.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("\0".join([embedder.fingerprint, *texts]).encode()).hexdigest()[:16]
    path = folder / f"vectors-{digest}.npy"
    rows = list(np.load(path)) if path.exists() else []
    while len(rows) < len(texts):
        batch = texts[len(rows) : len(rows) + KEEP_EVERY]
        print(f"embedding {len(rows)} to {len(rows) + len(batch)} of {len(texts)} texts", file=sys.stderr, flush=True)
        rows += [_packed(embedder, text) for text in batch]
        draft = path.with_suffix(".new.npy")
        np.save(draft, np.array(rows, dtype=np.int8))
        draft.replace(path)
    return np.array(rows, dtype=np.int8)


def _packed(embedder: Embedder, text: str) -> NDArray[np.int8]:
    try:
        return np.frombuffer(pack(embedder.embed(text)), dtype=np.int8)
    except EmbeddingError:
        return NONE
