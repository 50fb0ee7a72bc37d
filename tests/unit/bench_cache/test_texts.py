"""Prompts of the cache's benchmark."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
from bench.cache import accuracy_data, texts


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    with gzip.open(folder / name, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data in the form of the labelled sets, with made-up texts."""
    for name in texts.SETS:
        pairs = [{"a": f"{name} a", "b": f"{name} b", "label": 1}, {"a": "twice", "b": "asked", "label": 0}]
        write(tmp_path, f"pairs_{name}.dev.jsonl.gz", pairs)
    write(tmp_path, "clinc150.dev.jsonl.gz", [{"text": "said", "intent": "i"}])
    load = {
        "stored": [{"prompt": "p", "response": "r"}],
        "lookups": [{"prompt": "P", "expect": "p", "kind": "surface"}],
    }
    (tmp_path / "workload_1k.dev.json.gz").write_bytes(gzip.compress(json.dumps(load).encode()))
    monkeypatch.setattr(accuracy_data, "FOLDER", tmp_path)


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is missing."""
    monkeypatch.setattr(accuracy_data, "FOLDER", tmp_path / "nothing")


@pytest.mark.usefixtures("data")
def test_the_workload_is_the_labelled_one_where_it_is_there() -> None:
    assert texts.labelled()
    assert texts.workload().stored == ("p",)


@pytest.mark.usefixtures("no_data")
def test_without_data_a_workload_is_made_up_and_the_same_every_time() -> None:
    found = texts.workload()
    assert (len(found.stored), len(found.lookups), texts.labelled()) == (1000, 1000, False)
    assert found == texts.workload()


@pytest.mark.usefixtures("data")
def test_fillers_are_different_written_ones_first_and_none_that_is_asked() -> None:
    found = texts.fillers(30, ["said", "asked"])
    written = {f"{name} {side}" for name in texts.SETS for side in "ab"} | {"twice"}
    assert set(found[: len(written)]) == written
    assert len(set(found)) == 30
    assert not {"said", "asked"} & set(found)


@pytest.mark.usefixtures("no_data")
def test_fillers_are_made_up_where_nobody_wrote_any() -> None:
    assert len(set(texts.fillers(100, []))) == 100


@pytest.mark.usefixtures("data")
def test_a_smaller_number_of_fillers_is_the_beginning_of_a_larger_one() -> None:
    assert texts.fillers(100, [])[:50] == texts.fillers(50, [])


def test_sentences_are_many() -> None:
    assert len(set(itertools.islice(texts.sentences(seed=2), 60_000))) > 40_000
