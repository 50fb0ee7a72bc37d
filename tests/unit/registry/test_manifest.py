"""Manifests: one spelling, one digest, nothing believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferdock.domain.errors import ConfigError, IntegrityError, ModelError
from inferdock.registry.canonical import canonical
from inferdock.registry.inspect.facts import Facts
from inferdock.registry.manifest import (
    Content,
    Engine,
    FileEntry,
    MadeFrom,
    Manifest,
    Provenance,
    decode,
    encode,
    make,
)

PROVENANCE = Provenance(pushed_at="2026-01-01T00:00:00.000Z", pushed_by="ada", source="here")


def manifest(*paths: str, **content: Any) -> Manifest:
    files = tuple(FileEntry(path=path, size=3, sha256="a" * 64) for path in paths or ("config.json", "b/ü.txt"))
    facts = Facts(architecture="LlamaForCausalLM", dtypes={"bfloat16": 8}, quantization={"method": "awq", "bits": 4})
    made = Content(**{"files": files, "facts": facts, **content})
    return make(name="m", version="1.0.0", content=made, provenance=PROVENANCE)


def changed(change: dict[str, Any], *at: str) -> bytes:
    document = json.loads(encode(manifest()))
    inner = document
    for key in at:
        inner = inner[key]
    inner.update(change)
    return canonical(document)


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    made = manifest()
    assert decode(encode(made), what="It") == made


def test_files_are_in_order_of_their_bytes() -> None:
    assert [entry.path for entry in manifest("b", "Z", "é", "a/c").content.files] == ["Z", "a/c", "b", "é"]


def test_the_revision_does_not_depend_on_who_pushed_it_as_what() -> None:
    content = manifest().content
    other = Provenance(pushed_at="2027-01-01T00:00:00.000Z", pushed_by="bob", source="there", labels={"a": "b"})
    assert make(name="n", version="2.0.0", content=content, provenance=other).revision == manifest().revision


@pytest.mark.parametrize(
    "content",
    [
        {"engine": Engine(arguments=("--max-model-len", "8"))},
        {"engine": Engine(image="r/i@sha256:" + "0" * 64)},
        {"facts": Facts(architecture="X")},
        {"files": (FileEntry(path="a", size=4, sha256="a" * 64),)},
    ],
    ids=["arguments", "image", "facts", "files"],
)
def test_the_revision_depends_on_all_that_decides_the_answers(content: dict[str, Any]) -> None:
    assert manifest(**content).revision != manifest().revision


@pytest.mark.parametrize(
    "content",
    [
        {"engine": Engine(image="repository:latest")},
        {"engine": Engine(arguments=("x" * 5000,))},
        {"engine": Engine(arguments=("\udcff",))},
    ],
    ids=["image without digest", "long argument", "not UTF-8"],
)
def test_what_the_person_says_wrong_is_theirs_to_mend(content: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        manifest(**content)


def test_paths_that_leave_the_folder_are_refused_when_it_is_made() -> None:
    with pytest.raises(ModelError, match="plain relative"):
        manifest("../x")


HOSTILE = {
    "another schema": changed({"schema": "inferdock.manifest/2"}),
    "unknown field": changed({"extra": 1}),
    "wrong revision": changed({"revision": "0" * 64}),
    "other facts": changed({"architecture": "Evil"}, "content", "facts"),
    "no files": changed({"files": []}, "content"),
    "path that leaves": changed({"files": [{"path": "../x", "size": 1, "sha256": "a" * 64}]}, "content"),
    "negative size": changed({"files": [{"path": "x", "size": -1, "sha256": "a" * 64}]}, "content"),
    "short digest": changed({"files": [{"path": "x", "size": 1, "sha256": "a" * 12}]}, "content"),
    "upper-case digest": changed({"files": [{"path": "x", "size": 1, "sha256": "A" * 64}]}, "content"),
    "digest with a line end": changed({"files": [{"path": "x", "size": 1, "sha256": "a" * 64 + "\n"}]}, "content"),
    "one path twice": changed({"files": [{"path": "x", "size": 1, "sha256": "a" * 64}] * 2}, "content"),
    "short version": changed({"version": "1.0"}),
    "name with a slash": changed({"name": "../m"}),
    "spaces": encode(manifest()) + b" ",
    "not JSON": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_manifest_that_was_tampered_with_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="It is not a manifest"):
        decode(data, what="It")


def test_floats_have_no_canonical_form() -> None:
    with pytest.raises(TypeError):
        canonical({"a": [0.5]})


def made_from(**changes: Any) -> MadeFrom:
    made: dict[str, Any] = {
        "revision": "b" * 64,
        "source": "m@1.0.0",
        "method": "awq",
        "bits": 4,
        "group_size": 128,
        "library": "torch 2",
        "calibration": "c" * 64,
        "samples": 128,
        "tokens": 65_536,
        "seed": 1,
    }
    return MadeFrom(**made | changes)


def test_what_a_model_was_made_from_is_read_back_and_leaves_the_revision_alone() -> None:
    provenance = Provenance(pushed_at=PROVENANCE.pushed_at, pushed_by="ada", source="here", made_from=made_from())
    made = make(name="m", version="1.0.0", content=manifest().content, provenance=provenance)
    assert decode(encode(made), what="It") == made
    assert made.revision == manifest().revision


def test_a_manifest_that_was_made_from_nothing_keeps_the_bytes_it_had_before_that_was_noted() -> None:
    assert sorted(json.loads(encode(manifest()))["provenance"]) == ["labels", "pushed_at", "pushed_by", "source"]
    with pytest.raises(IntegrityError, match="made_from"):
        decode(changed({"made_from": None}, "provenance"), what="It")


@pytest.mark.parametrize("changes", [{"bits": 0}, {"revision": "b"}, {"seed": -1}], ids=["bits", "revision", "seed"])
def test_a_model_is_not_made_from_what_makes_no_sense(changes: dict[str, Any]) -> None:
    provenance = Provenance(
        pushed_at=PROVENANCE.pushed_at, pushed_by="ada", source="here", made_from=made_from(**changes)
    )
    with pytest.raises(ConfigError):
        make(name="m", version="1.0.0", content=manifest().content, provenance=provenance)
