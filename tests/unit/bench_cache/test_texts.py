"""Prompts of the cache's benchmark."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
from bench.cache import texts


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    with gzip.open(folder / name, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data in the form of the labelled sets, with made-up texts."""
    for name in texts.PAIRS:
        write(tmp_path, f"{name}.dev.jsonl.gz", [{"a": f"{name} a", "b": f"{name} b"}, {"a": "twice", "b": "asked"}])
    write(tmp_path, "clinc150.dev.jsonl.gz", [{"text": "said"}])
    load = {
        "stored": [{"prompt": "p", "response": "r"}, {"prompt": "q", "response": "s"}],
        "lookups": [
            {"prompt": "Q", "expect": "q", "kind": "surface"},
            {"prompt": "z", "expect": None, "kind": "unrelated"},
        ],
    }
    (tmp_path / "workload_1k.dev.json.gz").write_bytes(gzip.compress(json.dumps(load).encode()))
    return tmp_path


def test_a_workload_names_the_stored_prompt_that_is_expected(folder: Path) -> None:
    found = texts.workload(folder)
    assert found.stored == ["p", "q"]
    assert [(one.prompt, one.expect, one.kind) for one in found.lookups] == [
        ("Q", 1, "surface"),
        ("z", None, "unrelated"),
    ]
    assert found.labelled


def test_without_data_a_workload_is_made_up_and_the_same_every_time() -> None:
    found = texts.workload(None)
    assert (len(found.stored), len(found.lookups), found.labelled) == (1000, 1000, False)
    assert found == texts.workload(None)


def test_fillers_are_different_written_ones_first_and_none_that_is_asked(folder: Path) -> None:
    found = texts.fillers(folder, 30, ["said", "asked"])
    written = {f"{name} {side}" for name in texts.PAIRS for side in "ab"} | {"twice"}
    assert set(found[: len(written)]) == written
    assert len(set(found)) == 30
    assert not {"said", "asked"} & set(found)


def test_a_smaller_number_of_fillers_is_the_beginning_of_a_larger_one(folder: Path) -> None:
    assert texts.fillers(folder, 100, [])[:50] == texts.fillers(folder, 50, [])


def test_sentences_are_many() -> None:
    assert len(set(itertools.islice(texts.sentences(seed=2), 60_000))) > 40_000


@pytest.mark.parametrize("named", [True, False], ids=["with-data", "empty"])
def test_the_folder_of_the_data_is_the_one_named_if_it_has_them(
    folder: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = folder if named else folder / "nothing"
    monkeypatch.setenv("INFERDOCK_CACHE_DATA", str(where))
    assert texts.data_folder() == (folder if named else None)
