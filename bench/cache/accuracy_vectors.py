"""Vectors of many prompts, made by the product's embedder one by one and kept under ``out/`` for the next run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferdock.cache.embedder import DIMENSIONS, Embedder, EmbeddingError

Matrix = NDArray[np.float32]


class Vectors:
    """By prompt. A prompt that gets no vector has zeros: its cosine with all others is 0."""

    def __init__(self, folder: Path = Path("out")) -> None:
        self._embedder = Embedder.load()
        self._file = folder / f"accuracy-vectors-{self._embedder.fingerprint[:12]}.npz"
        self._known: dict[bytes, Matrix] = {}
        if self._file.exists():
            with np.load(self._file) as kept:
                self._known = dict(zip(map(bytes, kept["keys"]), kept["vectors"], strict=True))

    def add(self, prompts: Iterable[str]) -> None:
        """Make those that are missing, and keep them."""
        missing = {key: prompt for prompt in prompts if (key := _key(prompt)) not in self._known}
        for key, prompt in missing.items():
            self._known[key] = self._embed(prompt)
        if missing:
            self._file.parent.mkdir(exist_ok=True)
            keys = np.array([np.frombuffer(key, np.uint8) for key in self._known])
            np.savez(self._file, keys=keys, vectors=np.stack(list(self._known.values())))

    def of(self, prompts: Sequence[str]) -> Matrix:
        """A row for each prompt."""
        self.add(prompts)
        return np.stack([self._known[_key(prompt)] for prompt in prompts])

    def cosines(self, left: Sequence[str], right: Sequence[str]) -> NDArray[np.float32]:
        """Of the first with the first, and so on."""
        self.add([*left, *right])
        return np.einsum("ij,ij->i", self.of(left), self.of(right))

    def _embed(self, prompt: str) -> Matrix:
        try:
            return self._embedder.embed(prompt)
        except EmbeddingError:
            return np.zeros(DIMENSIONS, np.float32)


def _key(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
