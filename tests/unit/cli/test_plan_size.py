"""``inferdock plan`` with a model's size: what fits where, what is refused, and sizes that the registry knows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inferdock.cli.main import cli
from inferdock.simulation import fleet
from tests.support.model_folders import write_model

PROFILE = {"steps": [{"running": 1, "seconds": 0.01}, {"running": 64, "seconds": 0.04}], "startup_s": 30}
MISTRAL = ("--kv-bytes-per-token", "131072")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a profile, a registry of the test's own, and short simulations."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("INFERDOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(fleet, "REQUESTS", 400)
    (tmp_path / "p.json").write_text(json.dumps(PROFILE))
    offer = {"instance_type": "box", "gpu": "Other 9", "gpus": 1, "region": "us-east-1"}
    price = {**offer, "on_demand": 1.0, "on_demand_source": "quote"}
    prices = {"sources": {"quote": {"text": "an offer"}}, "prices": [price]}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    (tmp_path / "inferdock.yaml").write_text("cost: {price_file: prices.json}\n")
    return tmp_path


def run(*arguments: str, kinds: tuple[str, ...] = ("g5.xlarge",)) -> Result:
    profiles = [part for kind in kinds for part in ("--profile", f"{kind}=p.json")]
    return CliRunner().invoke(cli, ["plan", "--region", "us-east-1", "--rate", "5", *profiles, *arguments])


def refusal(*arguments: str, kinds: tuple[str, ...] = ("g5.xlarge",)) -> str:
    result = run(*arguments, kinds=kinds)
    assert result.exit_code != 0
    return str(result.exception)


def push(folder: Path, *arguments: str, version: str = "1.0.0") -> None:
    command = ["model", "push", str(folder), "--name", "m", "--version", version, *arguments]
    assert CliRunner().invoke(cli, command, standalone_mode=False).exception is None


def test_machines_that_are_too_small_are_left_out_with_the_sum() -> None:
    result = run("--weights-gib", "13.5", *MISTRAL, "-o", "json", kinds=("g4dn.xlarge", "g5.xlarge"))
    assert {row["instance_type"] for row in json.loads(result.stdout)} == {"g5.xlarge"}
    assert "g4dn.xlarge: the model does not fit: vLLM may take 12.6 GiB" in result.stderr
    assert "beside the weights there is room for 43,417 tokens" in result.stderr


def test_quantised_weights_fit_on_both() -> None:
    result = run("--weights-gib", "3.9", *MISTRAL, "-o", "json", kinds=("g4dn.xlarge", "g5.xlarge"))
    assert {row["instance_type"] for row in json.loads(result.stdout)} == {"g4dn.xlarge", "g5.xlarge"}


def test_where_it_fits_on_none_there_is_no_plan() -> None:
    result = run("--weights-gib", "130", *MISTRAL, "-o", "json")
    assert json.loads(result.stdout) == []
    assert "fits on none of these machines" in str(result.exception)
    assert result.exception.exit_code == 8  # type: ignore[union-attr]


def test_more_gpus_of_a_node_are_named_where_they_would_do() -> None:
    result = run("--weights-gib", "27", *MISTRAL, kinds=("g5.12xlarge",))
    assert "2 of its 4 GPUs would do (--gpus-per-replica 2)" in result.stderr
    assert run("--weights-gib", "27", *MISTRAL, "--gpus-per-replica", "2", kinds=("g5.12xlarge",)).exit_code == 0


def test_the_context_counts() -> None:
    assert run("--weights-gib", "13.5", *MISTRAL, "--max-model-len", "43417").exit_code == 0
    assert "fits on none" in refusal("--weights-gib", "13.5", *MISTRAL, "--max-model-len", "43418")


def test_memory_that_is_not_in_the_table_must_be_given() -> None:
    assert "(Other 9) is not known. Give --gpu-memory-gib." in refusal("--weights-gib", "1", *MISTRAL, kinds=("box",))
    assert run("--weights-gib", "1", *MISTRAL, "--gpu-memory-gib", "8", kinds=("box",)).exit_code == 0


def test_the_smaller_memory_counts_as_in_the_chart() -> None:
    given = ("--weights-gib", "13.5", *MISTRAL, "--gpu-memory-gib")
    assert "fits on none" in refusal(*given, "14")
    assert "of KV cache; they count" in run(*given, "80").stderr  # the card has 22 whatever is said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--weights-gib", "13.5"), "The weights alone do not say"),
        (("--weights-gib", "nan", *MISTRAL), "not a finite number"),
        (("--max-model-len", "100"), "--max-model-len says nothing without a model"),
        (MISTRAL, "--kv-bytes-per-token says nothing"),
        (("--gpu-memory-gib", "20"), "--gpu-memory-gib says nothing"),
        (("--registry", "r"), "--registry says nothing"),
        (("--model", "nobody@1.0.0"), "The registry"),
        (("--model", "a/b"), "is no name of a model"),
    ],
)
def test_half_a_size_is_refused_with_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    assert said in refusal(*arguments)


def test_the_registry_knows_sizes(place: Path) -> None:
    """A Llama with 2 layers, 1 KV head of 8: 32 numbers a token, 64 bytes with 16 bits."""
    push(write_model(place / "model"))
    assert run("--model", "m@1.0.0").exit_code == 0
    tight = ("--gpu-memory-gib", "1.15", "--max-model-len", str(10**6))
    assert "needs 0.06 GiB of KV cache" in run("--model", "m@1.0.0", *tight).stderr
    assert "The registry" in refusal("--model", "m@1.0.0", "--registry", str(place / "other"))


def test_weights_that_are_given_count_instead_of_the_versions(place: Path) -> None:
    push(write_model(place / "model"))
    assert "the weights take 50.0" in run("--model", "m@1.0.0", "--weights-gib", "50").stderr


def test_a_versions_arguments_count(place: Path) -> None:
    arguments = ("--engine-arg=--kv-cache-dtype=fp8", "--engine-arg=--max-model-len", "--engine-arg=1000000")
    push(write_model(place / "model"), *arguments)
    said = run("--model", "m@1.0.0", "--gpu-memory-gib", "1.1").stderr
    assert "one sequence of 1000000 tokens needs 0.03 GiB" in said


@pytest.mark.parametrize(
    ("config", "arguments"),
    [({"kv_lora_rank": 16}, ()), ({}, ("--engine-arg=--kv-cache-dtype=int8_per_token_head",))],
    ids=["latent attention", "a type of which we do not know the bytes"],
)
def test_a_version_that_does_not_say_it_plainly(
    place: Path, config: dict[str, int], arguments: tuple[str, ...]
) -> None:
    push(write_model(place / "model", config=config), *arguments)
    assert "of m@1.0.0 do not say plainly" in refusal("--model", "m@1.0.0")
    assert run("--model", "m@1.0.0", *MISTRAL).exit_code == 0


def test_a_config_that_was_changed_in_the_store_is_not_believed(place: Path) -> None:
    push(write_model(place / "model"))
    (config,) = [file for file in (place / "data").rglob("config.json") if "m" in file.parts]
    config.chmod(0o600)
    config.write_bytes(config.read_bytes().replace(b'"num_hidden_layers": 2', b'"num_hidden_layers": 1'))
    assert "is not the file that was pushed" in refusal("--model", "m@1.0.0")
