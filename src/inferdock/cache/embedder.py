"""From a prompt to its vector, one at a time, on one core. The only module that holds the embedding runtime.

The semantic tier calls it from a thread of its own; the interpreter is free while the model computes. Texts that the
model would not tell apart are refused, because they would hit each other's answers: more than 256 tokens (it would
read the first 256), words it does not know, and nothing at all.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tokenizers import Tokenizer

from inferdock.cache import huge_pages, minilm
from inferdock.domain.errors import ConfigError

DIMENSIONS: Final = 384
MAX_TOKENS: Final = 256
"""Of a text, the two marks at its ends included."""
MAX_CHARACTERS: Final = 16 * MAX_TOKENS
"""Longer texts are not even cut into tokens, which takes 1 s a megabyte. Prose has 4 to 5 characters a token."""
DEFAULT_FAST_TOKENS: Final = 48

_STEP: Final = 8
_ROUNDS: Final = 5
_RUNS: Final = 6
_WORDS: Final = ("time", "year", "people", "way", "day", "thing", "man", "world", "life", "hand", "part", "child")
"""One token each."""


class EmbeddingError(Exception):
    """A text that gets no vector; it can be looked up exactly only."""


class TooLong(EmbeddingError):
    """The text has more tokens than the model reads."""


class Unembeddable(EmbeddingError):
    """The text is empty, has parts that the model does not know, or is no valid Unicode."""


class Embedder:
    """all-MiniLM-L6-v2 in int8.

    Attributes:
        fingerprint: digest of model, tokenizer, runtime and pooling. Vectors are comparable where it is equal.
        dimensions: of a vector.
        max_tokens: of a text.
        fast_tokens: up to here a look-up keeps its time; a guess until ``calibrate`` has measured it.
    """

    dimensions: Final = DIMENSIONS
    max_tokens: Final = MAX_TOKENS

    def __init__(self, session: onnxruntime.InferenceSession, tokenizer: Tokenizer, *, fingerprint: str) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._unknown = tokenizer.token_to_id("[UNK]")
        self.fingerprint = fingerprint
        self.fast_tokens = DEFAULT_FAST_TOKENS

    @classmethod
    def load(cls, folder: Path | None = None, cache_dir: Path | None = None) -> Embedder:
        """Ready to embed; the model is built first where the cache folder does not have it.

        Args:
            folder: of ``model.safetensors`` and ``tokenizer.json``; by default that of the installed package.
            cache_dir: of the built model; by default ``~/.cache/inferdock/embedder``.

        Raises:
            ConfigError: a file is missing or not the one that was measured, or the runtime refuses the model.
        """
        folder = folder or minilm.weights_folder()
        tokens = minilm.tokenizer_file(folder)
        model = minilm.model_file(folder, cache_dir or minilm.default_model_cache())
        before = huge_pages.private_memory()
        embedder = cls(_session(model), _tokenizer(tokens), fingerprint=fingerprint())
        embedder.embed(_text(MAX_TOKENS))  # takes what memory the longest text needs
        huge_pages.join(huge_pages.private_memory() - before)
        return embedder

    def token_count(self, text: str) -> int:
        """Tokens of a text, the two marks included.

        Raises:
            TooLong: more characters than any text may have; not counted.
            Unembeddable: see there.
        """
        return len(self._tokens(text))

    def embed(self, text: str) -> NDArray[np.float32]:
        """The text's vector, of length 1: 384 numbers.

        Raises:
            TooLong, Unembeddable: see there.
        """
        tokens = self._tokens(text)
        if len(tokens) > MAX_TOKENS:
            raise TooLong(f"The text has {len(tokens)} tokens; the model reads {MAX_TOKENS}.")
        vector: NDArray[np.float32] = self._session.run(None, {"input_ids": np.array([tokens], dtype=np.int64)})[0]
        return vector

    def calibrate(
        self, budget_s: float = 0.005, *, reserve_s: float = 0.0005, clock: Callable[[], float] = time.thread_time
    ) -> int:
        """Measure up to which length a look-up keeps its time, and note it in ``fast_tokens``. Takes half a second.

        Args:
            budget_s: seconds for a look-up, kept by 95 of 100.
            reserve_s: of these, seconds for searching, and for a processor cache that others have used meanwhile.
            clock: seconds, from any point on; by default of the processor, so that what else runs just now counts less.

        Returns:
            A multiple of 8 up to 256; 0 where not even 8 tokens are fast enough.
        """
        limit_s = budget_s - reserve_s
        low, high = 0, MAX_TOKENS // _STEP  # a longer text takes longer, so that halving finds the border
        while low < high:
            middle = (low + high + 1) // 2
            if self._keeps(limit_s, middle * _STEP, clock):
                low = middle
            else:
                high = middle - 1
        self.fast_tokens = low * _STEP
        return self.fast_tokens

    def _keeps(self, limit_s: float, tokens: int, clock: Callable[[], float]) -> bool:
        """Whether all but the slowest runs of most rounds are in time. What disturbs a round or two does not count."""
        text = _text(tokens)
        self.embed(text)
        slow: list[float] = []
        for _ in range(_ROUNDS):
            times = sorted(self._time(text, clock) for _ in range(_RUNS))
            if times[0] > 1.2 * limit_s and not slow:
                return False  # far off: no need to look closer
            slow.append(times[-2])
        return statistics.median(slow) <= limit_s

    def _time(self, text: str, clock: Callable[[], float]) -> float:
        started = clock()
        self.embed(text)
        return clock() - started

    def _tokens(self, text: str) -> list[int]:
        if len(text) > MAX_CHARACTERS:
            raise TooLong(f"The text has {len(text)} characters; {MAX_CHARACTERS} are looked at.")
        try:
            tokens: list[int] = self._tokenizer.encode(text).ids
        except TypeError as error:  # half a surrogate pair: JSON can write it, UTF-8 cannot
            raise Unembeddable("The text is not valid Unicode.") from error
        if len(tokens) <= 2:
            raise Unembeddable("The text is empty.")
        if self._unknown in tokens:
            raise Unembeddable("The text has a part that the model does not know; all of these look the same to it.")
        return tokens


def _text(tokens: int) -> str:
    """Some text of so many tokens."""
    return " ".join(itertools.islice(itertools.cycle(_WORDS), tokens - 2))


def _tokenizer(path: Path) -> Tokenizer:
    """Nothing is cut or filled up (the file asks for 128 tokens), and ``[SEP]`` in a prompt is text like any other."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _session(path: Path) -> onnxruntime.InferenceSession:
    """One thread and no waiting in loops. The graph is as it should be: fusing more would make it slower."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False  # keeps a plan for every length that was seen
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no common base class for its errors
        raise ConfigError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the embedding model: {error}",
            cure="Install the version that stands in requirements/.",
        ) from error


def fingerprint() -> str:
    """Patch releases of the runtime are taken to compute alike, others not."""
    runtime = ".".join(onnxruntime.__version__.split(".")[:2])
    parts = (minilm.MODEL_SHA256, minilm.TOKENIZER_SHA256, f"onnxruntime-{runtime}", "mean-l2")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
