"""Laws of the registry's pure core: order of versions, paths, manifests, histories."""

from __future__ import annotations

import posixpath
import unicodedata
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inferdock.domain.errors import ConfigError, IntegrityError, ModelError, RegistryError
from inferdock.registry import ledger
from inferdock.registry.event import Event, Push
from inferdock.registry.inspect.facts import Facts
from inferdock.registry.ledger import By, fold
from inferdock.registry.manifest import Content, FileEntry, Provenance, decode, encode, make
from inferdock.registry.names import Version
from inferdock.registry.paths import check_path, check_paths

NUMBERS = st.integers(0, 12) | st.integers(0, 10**10 - 1)
IDENTIFIERS = st.from_regex(r"\A(0|[1-9][0-9]{0,3}|[0-9]{0,2}[A-Za-z-][0-9A-Za-z-]{0,4})\Z")
VERSIONS = st.builds(Version, st.tuples(NUMBERS, NUMBERS, NUMBERS), st.lists(IDENTIFIERS, max_size=3).map(tuple))
BY = By(actor="ada", now=datetime(2026, 1, 1, tzinfo=UTC))


def rank(version: Version) -> tuple[Any, ...]:
    """The order that https://semver.org (2.0.0, paragraph 11) describes, by other means."""
    pre = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in version.pre)
    return (version.numbers, not version.pre, pre)


@given(VERSIONS, VERSIONS)
def test_the_sort_key_orders_versions_as_semver_does(a: Version, b: Version) -> None:
    assert (a < b) == (rank(a) < rank(b))
    assert (a.order == b.order) == (a == b)


@given(VERSIONS)
def test_a_version_is_read_back_as_it_was_written(version: Version) -> None:
    assert Version.parse(str(version)) == version


@given(st.text(max_size=40) | st.lists(st.sampled_from(["a", "..", ".", "", "/", "\\", "b"]), max_size=6).map("/".join))
def test_an_allowed_path_stays_in_its_folder(path: str) -> None:
    try:
        check_path(path)
    except ModelError:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert posixpath.normpath(path) == path
    assert PurePosixPath("/base", path).is_relative_to("/base")
    assert unicodedata.normalize("NFC", path) == path
    path.encode()


PATHS = st.lists(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8), min_size=1, max_size=3).map(
    "/".join
)


@given(st.lists(PATHS, min_size=1, max_size=12))
def test_allowed_paths_are_different_files_on_every_system(paths: list[str]) -> None:
    try:
        check_paths(paths)
    except ModelError:
        return
    folded = [path.casefold() for path in paths]
    assert len(set(folded)) == len(paths)
    assert not any(a != b and b.startswith(a + "/") for a in folded for b in folded)


def _files(paths: list[str]) -> tuple[FileEntry, ...]:
    return tuple(FileEntry(path=path, size=len(path), sha256=f"{n:064x}") for n, path in enumerate(paths))


@given(
    st.lists(PATHS, min_size=1, max_size=12, unique=True),
    st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    st.data(),
)
def test_any_changed_byte_of_a_manifest_is_noticed(
    paths: list[str], labels: dict[str, str], data: st.DataObject
) -> None:
    provenance = Provenance(pushed_at="2026-01-01T00:00:00.000Z", pushed_by="ada", source="x", labels=labels)
    content = Content(files=_files(paths), facts=Facts(architecture="X"))
    try:
        spelt = encode(make(name="m", version="1.0.0", content=content, provenance=provenance))
    except (ModelError, ConfigError, UnicodeEncodeError):
        assume(False)
    made = decode(spelt, what="It")
    assert encode(made) == spelt
    at = data.draw(st.integers(0, len(spelt) - 1))
    harmed = spelt[:at] + bytes([spelt[at] ^ data.draw(st.integers(1, 255))]) + spelt[at + 1 :]
    # Who, when and the name are covered by the record's digest of all bytes; the content by the revision as well.
    try:
        read = decode(harmed, what="It")
    except IntegrityError:
        return
    assert read.content == made.content


STEP = st.tuples(
    st.sampled_from(["push", "move", "remove", "delete"]),
    st.sampled_from(["1.0.0", "1.1.0", "2.0.0"]),
    st.sampled_from(["a" * 64, "b" * 64]),
    st.sampled_from(["champion", "candidate", "previous"]),
)


@given(st.lists(STEP, max_size=30))
def test_no_sequence_of_wishes_changes_a_version_or_leaves_an_alias_to_nothing(steps: list[tuple[str, ...]]) -> None:
    events: list[Event] = []
    revisions: dict[str, str] = {}
    for kind, version, revision, alias in steps:
        state = fold("m", events)
        push = Push(version=version, revision=revision, manifest_sha256="c" * 64, size_bytes=1, files=1)
        try:
            if kind == "push":
                event = ledger.push(state, push, BY)
            elif kind == "delete":
                event = ledger.delete(state, version, BY)
            else:
                event = ledger.move(state, alias, version if kind == "move" else None, BY)
        except RegistryError:
            continue
        events += [event] if event is not None else []
        after = fold("m", events)
        assert set(after.aliases.values()) <= set(after.versions)
        for number, released in after.versions.items():
            assert revisions.setdefault(number, released.push.revision) == released.push.revision


@given(st.lists(STEP, min_size=2, max_size=10), st.data())
def test_no_event_can_be_left_out_of_a_history(steps: list[tuple[str, ...]], data: st.DataObject) -> None:
    events: list[Event] = []
    for number, _ in enumerate(steps):
        push = Push(version=f"{number}.0.0", revision="a" * 64, manifest_sha256="c" * 64, size_bytes=1, files=1)
        event = ledger.push(fold("m", events), push, BY)
        assert event is not None
        events.append(event)
    del events[data.draw(st.integers(0, len(events) - 2))]
    with pytest.raises(IntegrityError):
        fold("m", events)
