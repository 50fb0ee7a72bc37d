"""What can be quantised, and how much memory it takes: read from headers alone."""

import json
import shutil
from pathlib import Path

import pytest

from inferdock.domain.errors import ModelError, ResourceError
from inferdock.quantize.recipe import Recipe
from inferdock.quantize.source import Layer, check_memory, check_sizes, memory_needed, read_source
from tests.docs.pages import ROOT

DEMO = ROOT / "models" / "demo"
SMALL = Recipe(group_size=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def change_config(folder: Path, **members: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def test_all_layers_of_the_blocks_are_found_and_neither_embedding_nor_output() -> None:
    source = read_source(DEMO, SMALL)
    assert len(source.layers) == 4 * 7
    assert source.linear_bytes == 5_898_240
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json"} <= set(source.kept)
    assert "config.json" not in source.kept


def test_a_group_size_that_does_not_divide_names_the_layer_and_the_sizes_that_do() -> None:
    with pytest.raises(
        ModelError, match=r"128 does not divide the 704 inputs of model\.layers\.0\.mlp\.down_proj"
    ) as caught:
        read_source(DEMO, Recipe(group_size=128))
    assert caught.value.cure == "Give --group-size 32 or 64."


def test_sides_that_no_kernel_takes_are_refused() -> None:
    with pytest.raises(ModelError, match="multiples of 32"):
        check_sizes([Layer(name="odd", outputs=48, inputs=64, size_bytes=1)], 64)
    with pytest.raises(ModelError, match="does not divide") as caught:
        check_sizes([Layer(name="odd", outputs=64, inputs=48, size_bytes=1)], 64)
    assert caught.value.cure == "No group size fits this model."


def test_a_model_that_is_quantised_already_is_refused(folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 64})
    with pytest.raises(ModelError, match=r"is quantised already \(awq, 4 bits\)"):
        read_source(folder, SMALL)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel cannot be quantised here"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "attend in different ways"),
    ],
    ids=["architecture", "mixed attention"],
)
def test_a_model_of_another_kind_is_refused(folder: Path, members: dict[str, object], sentence: str) -> None:
    change_config(folder, **members)
    with pytest.raises(ModelError, match=sentence):
        read_source(folder, SMALL)


def test_memory_is_counted_before_the_start_and_a_lack_of_it_refused() -> None:
    source = read_source(DEMO, SMALL)
    needed = memory_needed(source, SMALL)
    assert needed > 2 * source.facts.weight_bytes
    assert memory_needed(source, Recipe(group_size=64, samples=8)) < needed
    check_memory(needed, None)
    check_memory(needed, needed)
    with pytest.raises(ResourceError, match="GiB of memory"):
        check_memory(needed, needed - 1)
