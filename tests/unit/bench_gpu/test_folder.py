"""The model folder: a word for every id, and a token for every word."""

import json
import random
from pathlib import Path

import pytest
from bench.gpu.folder import vocabulary, words, write_folder
from bench.gpu.forms import WEIGHTS, chosen
from bench.gpu.shape import MISTRAL_7B, TINY, Shape

from inferdock.bench.workload import parse_length, synthetic
from inferdock.domain.errors import ConfigError


@pytest.mark.parametrize("shape", [TINY, MISTRAL_7B], ids=lambda shape: shape.name)
def test_every_id_has_a_word_of_its_own(shape: Shape) -> None:
    assert sorted(vocabulary(shape.vocabulary).values()) == list(range(shape.vocabulary))
    assert set(words()) < set(vocabulary(shape.vocabulary))


def test_a_prompt_of_n_words_is_n_tokens_and_every_token_has_text(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    write_folder(tmp_path, TINY, None)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    prompt = next(synthetic(parse_length("64"), parse_length("1"), random.Random(3))).prompt
    ids = tokenizer.encode(prompt).ids
    assert (len(ids), ids.count(1)) == (64, 1)  # the number that makes each prompt differ is no word
    assert [number for number in range(TINY.vocabulary) if not tokenizer.decode([number])] == [2]  # the end alone


def test_only_the_quantised_folder_says_so(tmp_path: Path) -> None:
    for name, awq in WEIGHTS.items():
        write_folder(tmp_path, TINY, awq)
        config = json.loads((tmp_path / "config.json").read_text())
        assert ("quantization_config" in config) is (name == "awq")


@pytest.mark.parametrize("text", ["", "fp8", "awq,awq"])
def test_unknown_weights_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bf16 or awq"):
        chosen(text)
