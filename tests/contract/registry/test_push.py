"""Pushes: nothing is visible before the record, what was sent is kept for the next try, wrong bytes never arrive."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from inferdock.domain.errors import ConflictError, IntegrityError, ModelError
from inferdock.registry.manifest import encode
from inferdock.registry.store import BLOCK, Place, Store
from tests.contract.registry.conftest import Maker
from tests.support.registry_values import (
    FILES,
    delete,
    entry_of,
    manifest_of,
    next_event,
    push,
    read,
    send_all,
    still,
    versions,
    wanted,
    write,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", FILES)


class Cut(Exception):
    """The push is cut."""


def cut(store: Store, folder: Path, *, after: int, files: dict[str, bytes] = FILES) -> None:
    """Begin a push that ends after some files."""
    manifest = manifest_of(files)
    with pytest.raises(Cut):  # noqa: PT012 - the block is what is cut
        with store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
            for entry in manifest.content.files[:after]:
                upload.send(entry, folder / entry.path, still)
            raise Cut


def test_a_version_comes_back_byte_for_byte(store: Store, again: Maker, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    assert {path: read(again(), path) for path in FILES} == FILES


def test_the_manifest_comes_back_byte_for_byte(store: Store, folder: Path) -> None:
    manifest = manifest_of(FILES)
    push(store, manifest, folder)
    assert store.manifest("demo", "1.0.0") == (encode(manifest), None)


def test_signatures_come_back_byte_for_byte(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder, signatures=b'{"signed": true}')
    assert store.manifest("demo", "1.0.0")[1] == b'{"signed": true}'


def test_the_event_of_a_push_is_in_the_history(store: Store, folder: Path) -> None:
    manifest = manifest_of(FILES)
    event = next_event(store, manifest)
    push(store, manifest, folder)
    assert store.events("demo") == [event]


def test_bytes_are_counted_as_they_move(store: Store, folder: Path) -> None:
    manifest = manifest_of(FILES)
    moved: list[int] = []
    with store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        for entry in manifest.content.files:
            upload.send(entry, folder / entry.path, moved.append)
    assert sum(moved) == manifest.size_bytes


def test_a_push_that_is_stopped_between_blocks_stops(store: Store, folder: Path) -> None:
    manifest = manifest_of(FILES)

    def stop(count: int) -> None:
        raise Cut

    entry = entry_of("model.safetensors", FILES["model.safetensors"])
    with store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        with pytest.raises(Cut):
            upload.send(entry, folder / entry.path, stop)
        assert not upload.has(entry)
        upload.send(entry, folder / entry.path, still)
        assert upload.has(entry)


def test_nothing_is_visible_of_a_push_that_was_cut(store: Store, folder: Path) -> None:
    cut(store, folder, after=len(FILES))
    assert store.names() == []
    with pytest.raises(IntegrityError):
        store.manifest("demo", "1.0.0")


@pytest.mark.parametrize("after", range(len(FILES) + 1))
def test_a_push_goes_on_where_one_was_cut(store: Store, again: Maker, folder: Path, after: int) -> None:
    cut(store, folder, after=after)
    manifest = manifest_of(FILES)
    assert push(again(), manifest, folder) == [entry.path for entry in manifest.content.files[after:]]
    assert {path: read(store, path) for path in FILES} == FILES


def test_what_a_push_of_another_revision_left_is_replaced(store: Store, tmp_path: Path, folder: Path) -> None:
    others = {**FILES, "config.json": b"[]", "more.json": b"1"}
    cut(store, write(tmp_path / "others", others), after=6, files=others)
    push(store, manifest_of(FILES), folder)
    assert {path: read(store, path) for path in FILES} == FILES
    with pytest.raises(IntegrityError):
        read(store, "more.json")


def test_an_event_number_that_is_taken_is_told_and_the_next_one_commits(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    manifest = manifest_of(FILES, version="1.1.0")
    with store.begin("demo", "1.1.0", revision=manifest.revision, actor="ada") as upload:
        send_all(upload, manifest, folder)
        stale = next_event(store, manifest)
        delete(store, "demo", "1.0.0")
        assert not upload.commit(stale, encode(manifest), None)
        assert versions(store) == []
        assert upload.commit(next_event(store, manifest), encode(manifest), None)
    assert versions(store) == ["1.1.0"]
    assert read(store, "config.json", version="1.1.0") == FILES["config.json"]


def test_signatures_of_a_commit_that_came_too_late_do_not_stay(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    manifest = manifest_of(FILES, version="1.1.0")
    with store.begin("demo", "1.1.0", revision=manifest.revision, actor="ada") as upload:
        send_all(upload, manifest, folder)
        stale = next_event(store, manifest)
        delete(store, "demo", "1.0.0")
        assert not upload.commit(stale, encode(manifest), b"signed")
        assert upload.commit(next_event(store, manifest), encode(manifest), None)
    assert store.manifest("demo", "1.1.0") == (encode(manifest), None)


def test_a_version_that_exists_is_never_replaced(store: Store, tmp_path: Path, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    late = {"config.json": b"late"}
    manifest = manifest_of(late)
    unaware = msgspec.structs.replace(next_event(store, manifest_of(late, version="9.0.0")), change=wanted(manifest))
    with store.begin("demo", "1.0.0", revision=manifest.revision, actor="bob") as upload:
        send_all(upload, manifest, write(tmp_path / "late", late))
        assert not upload.commit(unaware, encode(manifest), None)
    assert {path: read(store, path) for path in FILES} == FILES


def test_a_version_lacking_a_file_is_not_committed(store: Store, folder: Path) -> None:
    manifest = manifest_of(FILES)
    with store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        for entry in manifest.content.files[1:]:
            upload.send(entry, folder / entry.path, still)
        with pytest.raises(IntegrityError):
            upload.commit(next_event(store, manifest), encode(manifest), None)
    assert store.events("demo") == []


def test_a_version_is_pushed_by_one_at_a_time(store: Store, again: Maker) -> None:
    with store.begin("demo", "1.0.0", revision="a" * 64, actor="ada"):
        with pytest.raises(ConflictError, match="ada"), again().begin("demo", "1.0.0", revision="b" * 64, actor="bob"):
            pass


def test_versions_are_pushed_side_by_side(store: Store, again: Maker) -> None:
    with store.begin("demo", "1.0.0", revision="a" * 64, actor="ada"):
        with again().begin("demo", "1.0.1", revision="b" * 64, actor="bob"):
            pass


def test_a_push_that_failed_does_not_stand_in_the_way(store: Store, again: Maker, folder: Path) -> None:
    cut(store, folder, after=1)
    with again().begin("demo", "1.0.0", revision="b" * 64, actor="bob"):
        pass


@pytest.mark.parametrize(
    "bytes_now",
    [b"[]", b"{", b"{} and more", b"", b"x" * (3 * BLOCK)],
    ids=["other", "shorter", "longer", "empty", "long"],
)
def test_a_file_that_changes_under_us_ends_the_push(store: Store, folder: Path, bytes_now: bytes) -> None:
    manifest = manifest_of(FILES)
    entry = entry_of("config.json", FILES["config.json"])
    (folder / "config.json").write_bytes(bytes_now)
    with store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        with pytest.raises(ModelError, match=r"config\.json"):
            upload.send(entry, folder / "config.json", still)
        assert not upload.has(entry)


def test_a_file_that_goes_under_us_ends_the_push(store: Store, folder: Path) -> None:
    entry = entry_of("config.json", FILES["config.json"])
    with store.begin("demo", "1.0.0", revision="a" * 64, actor="ada") as upload:
        with pytest.raises(ModelError, match=r"gone\.json"):
            upload.send(entry, folder / "gone.json", still)


def test_a_file_of_another_version_is_copied(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    manifest = manifest_of(FILES, version="1.1.0")
    moved: list[int] = []
    with store.begin("demo", "1.1.0", revision=manifest.revision, actor="ada") as upload:
        for entry in manifest.content.files:
            assert upload.copy(entry, Place("demo", "1.0.0", entry.path), moved.append)
        assert upload.commit(next_event(store, manifest), encode(manifest), None)
    assert sum(moved) == manifest.size_bytes
    assert {path: read(store, path, version="1.1.0") for path in FILES} == FILES


def test_a_copied_file_outlives_the_version_it_came_from(store: Store, folder: Path) -> None:
    test_a_file_of_another_version_is_copied(store, folder)
    delete(store, "demo", "1.0.0")
    assert {path: read(store, path, version="1.1.0") for path in FILES} == FILES


def test_a_file_is_copied_between_models_under_another_path(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    files = {"sub/weights.safetensors": FILES["model.safetensors"]}
    manifest = manifest_of(files, name="other")
    with store.begin("other", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        (entry,) = manifest.content.files
        assert upload.copy(entry, Place("demo", "1.0.0", "model.safetensors"), still)
        assert upload.commit(next_event(store, manifest), encode(manifest), None)
    assert read(store, "sub/weights.safetensors", name="other") == FILES["model.safetensors"]


@pytest.mark.parametrize(
    "source",
    [Place("demo", "1.0.0", "gone.json"), Place("demo", "9.9.9", "config.json"), Place("nobody", "1.0.0", "a")],
    ids=["no such file", "no such version", "no such model"],
)
def test_a_copy_of_what_is_gone_says_so(store: Store, folder: Path, source: Place) -> None:
    push(store, manifest_of(FILES), folder)
    with store.begin("demo", "1.1.0", revision="a" * 64, actor="ada") as upload:
        assert not upload.copy(entry_of("config.json", b"{}"), source, still)


def test_a_copy_of_other_bytes_says_so_and_leaves_nothing(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    entry = entry_of("config.json", b"no")  # as long as the source
    moved: list[int] = []
    with store.begin("demo", "1.1.0", revision="a" * 64, actor="ada") as upload:
        assert not upload.copy(entry, Place("demo", "1.0.0", "config.json"), moved.append)
        assert not upload.has(entry)
    assert sum(moved) == 0


def test_a_deleted_version_has_no_files_and_its_history_stays(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    delete(store, "demo", "1.0.0")
    assert len(store.events("demo")) == 2
    assert store.names() == ["demo"]
    with pytest.raises(IntegrityError):
        store.manifest("demo", "1.0.0")
    with pytest.raises(IntegrityError):
        read(store, "config.json")


def test_removing_twice_is_no_failure(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    delete(store, "demo", "1.0.0")
    store.remove("demo", "1.0.0")


def test_other_versions_stay_when_one_is_deleted(store: Store, folder: Path) -> None:
    for version in ("1.0.0", "1.0.0-rc.1", "1.0.1", "11.0.0"):
        push(store, manifest_of(FILES, version=version), folder)
    delete(store, "demo", "1.0.0")
    assert versions(store) == ["1.0.0-rc.1", "1.0.1", "11.0.0"]
    for version in versions(store):
        assert read(store, "config.json", version=version) == FILES["config.json"]


def test_a_deleted_version_is_pushed_again(store: Store, folder: Path) -> None:
    push(store, manifest_of(FILES), folder)
    delete(store, "demo", "1.0.0")
    push(store, manifest_of(FILES), folder)
    assert {path: read(store, path) for path in FILES} == FILES
