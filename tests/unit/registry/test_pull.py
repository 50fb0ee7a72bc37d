"""A version as plain files in a folder: what stays, what is replaced, what is refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from inferdock.domain.errors import IntegrityError, ModelError, ResourceError, UnreachableError
from inferdock.registry.gather import Pulled
from inferdock.registry.manifest import Manifest, encode
from inferdock.registry.paths import MANIFEST
from inferdock.registry.progress import Silent
from inferdock.registry.pull import pull_to, verify_folder
from inferdock.registry.store import Store
from tests.support.stored_versions import CHUNK, FILES, never, read_folder, stored

SHARD = "model-00001-of-00002.safetensors"
DEEP = "tokenizer/deep/er/same.json"


def pull(store: Store, manifest: Manifest, target: Path, *, force: bool = False) -> Pulled:
    return pull_to(store, manifest, target, threads=4, progress=Silent(), force=force, chunk=CHUNK, pause=never)


def check(manifest: Manifest, target: Path) -> None:
    verify_folder(manifest, target, threads=2, progress=Silent())


def test_a_folder_gets_the_versions_files_and_its_manifest(tmp_path: Path) -> None:
    store, manifest = stored()

    pulled = pull(store, manifest, tmp_path / "new" / "folder")

    assert pulled.folder == tmp_path / "new" / "folder"
    assert read_folder(pulled.folder) == FILES
    assert (pulled.folder / MANIFEST).read_bytes() == encode(manifest)
    assert not any(path.is_symlink() for path in pulled.folder.rglob("*"))
    check(manifest, pulled.folder)


def test_a_second_pull_changes_nothing(tmp_path: Path) -> None:
    store, manifest = stored()
    pull(store, manifest, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    store.files.clear()

    pulled = pull(store, manifest, tmp_path)

    assert (pulled.fetched_files, pulled.present_files) == (0, len(FILES))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}.items() <= before.items()


def replaced_by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "gone": Path.unlink,
    "a link": replaced_by_a_link,
}


@pytest.mark.parametrize("path", [SHARD, DEEP])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_wrong_file_is_named_by_a_check_and_replaced_by_a_pull(
    tmp_path: Path, damage: Callable[[Path], object], path: str
) -> None:
    store, manifest = stored()
    pull(store, manifest, tmp_path)
    damage(tmp_path / path)

    with pytest.raises(IntegrityError, match=path) as caught:
        check(manifest, tmp_path)
    pulled = pull(store, manifest, tmp_path)

    assert f"pull demo@1.0.0 --to {tmp_path}" in caught.value.cure
    assert pulled.fetched_files == 1
    assert read_folder(tmp_path) == FILES
    check(manifest, tmp_path)


def a_file(folder: Path) -> None:
    (folder / "stray.safetensors").write_bytes(b"weights of somebody else")


def a_folder(folder: Path) -> None:
    (folder / "stray").mkdir()
    (folder / "stray" / "x").write_bytes(b"")


def a_file_in_a_folder_of_ours(folder: Path) -> None:
    (folder / "tokenizer" / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer" / "deep" / "stray").write_bytes(b"")


def a_link_to_a_file(folder: Path) -> None:
    (folder / "stray").symlink_to("/etc/hostname")


STRAYS = [a_file, a_folder, a_file_in_a_folder_of_ours, a_link_to_a_file]


@pytest.mark.parametrize("stray", STRAYS)
def test_files_that_are_not_the_versions_are_refused(tmp_path: Path, stray: Callable[[Path], None]) -> None:
    store, manifest = stored()
    stray(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(ModelError, match=r"not those of demo@1\.0\.0.*stray") as caught:
        pull(store, manifest, tmp_path, force=True)  # a folder that never was ours is not emptied

    assert caught.value.cure == "Choose an empty folder."
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("stray", STRAYS)
def test_strays_in_a_folder_of_ours_are_removed_only_by_force(tmp_path: Path, stray: Callable[[Path], None]) -> None:
    store, manifest = stored()
    pull(store, manifest, tmp_path)
    stray(tmp_path)

    with pytest.raises(ModelError, match="stray"):
        check(manifest, tmp_path)
    with pytest.raises(ModelError, match="stray") as caught:
        pull(store, manifest, tmp_path)
    pull(store, manifest, tmp_path, force=True)

    assert "--force" in caught.value.cure
    assert read_folder(tmp_path) == FILES
    check(manifest, tmp_path)


def test_a_stray_folder_is_a_link_then_only_the_link_is_removed(tmp_path: Path) -> None:
    store, manifest = stored()
    pull(store, manifest, tmp_path / "model")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear ann")
    (tmp_path / "model" / "stray").symlink_to(tmp_path / "mine")

    pull(store, manifest, tmp_path / "model", force=True)

    assert (tmp_path / "mine" / "letter").read_text() == "dear ann"


def test_a_link_planted_as_a_folder_of_the_version_is_refused_and_not_written_through(tmp_path: Path) -> None:
    store, manifest = stored()
    (tmp_path / "mine").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer").symlink_to(tmp_path / "mine")

    with pytest.raises(ModelError, match="'tokenizer'"):
        pull(store, manifest, tmp_path / "model")

    assert list((tmp_path / "mine").iterdir()) == []


def test_a_link_planted_as_the_folder_of_our_work_is_refused(tmp_path: Path) -> None:
    store, manifest = stored()
    (tmp_path / "mine").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".inferdock").symlink_to(tmp_path / "mine")

    with pytest.raises(ResourceError, match="cannot be used"):
        pull(store, manifest, tmp_path / "model")

    assert list((tmp_path / "mine").iterdir()) == []


def test_hidden_files_and_those_of_a_new_disk_are_left_alone(tmp_path: Path) -> None:
    store, manifest = stored()
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".note").write_text("mine")

    pull(store, manifest, tmp_path)

    assert (tmp_path / ".note").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["lost+found", "tokenizer"]


def test_right_files_without_a_manifest_stay_and_get_one(tmp_path: Path) -> None:
    store, manifest = stored()
    (tmp_path / SHARD).write_bytes(FILES[SHARD])

    pulled = pull(store, manifest, tmp_path)

    assert (pulled.present_files, pulled.present_bytes) == (1, len(FILES[SHARD]))
    assert read_folder(tmp_path) == FILES


def test_another_version_takes_the_place_of_the_first_and_what_only_that_had_goes(tmp_path: Path) -> None:
    store, first = stored()
    files = {"config.json": b"{}", SHARD: FILES[SHARD], "tokenizer": b"a file where a folder was"}
    other, second = stored(files, version="2.0.0")
    pull(store, first, tmp_path)

    pulled = pull(other, second, tmp_path)

    assert read_folder(tmp_path) == files
    assert pulled.present_files == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, MANIFEST])


def test_while_something_is_missing_no_manifest_marks_the_folder_complete(tmp_path: Path) -> None:
    store, first = stored()
    pull(store, first, tmp_path)
    (tmp_path / SHARD).unlink()

    def dead(step: str) -> None:
        raise UnreachableError("The line is dead.")

    store.hook = dead

    with pytest.raises(UnreachableError):
        pull(store, first, tmp_path)

    assert not (tmp_path / MANIFEST).exists()


def test_a_pull_that_was_cut_leaves_the_folder_to_another_version(tmp_path: Path) -> None:
    store, first = stored()
    reads: list[str] = []

    def dying(step: str) -> None:
        reads.append(step)
        if len(reads) > 14:
            raise UnreachableError("The line is dead.")

    store.hook = dying
    with pytest.raises(UnreachableError):
        pull(store, first, tmp_path)
    other, second = stored({"config.json": b"{}"}, version="2.0.0")

    pull(other, second, tmp_path)

    assert read_folder(tmp_path) == {"config.json": b"{}"}


def test_a_damaged_manifest_in_the_folder_is_replaced(tmp_path: Path) -> None:
    store, manifest = stored()
    pull(store, manifest, tmp_path)
    (tmp_path / MANIFEST).write_bytes(b"{")

    pull(store, manifest, tmp_path)

    assert (tmp_path / MANIFEST).read_bytes() == encode(manifest)


def test_pulls_into_one_folder_come_one_after_the_other(tmp_path: Path) -> None:
    reads: list[str] = []
    store, manifest = stored(hook=reads.append)
    pulls = [threading.Thread(target=pull, args=(store, manifest, tmp_path)) for _ in range(4)]

    for one in pulls:
        one.start()
    for one in pulls:
        one.join()

    assert read_folder(tmp_path) == FILES
    assert (tmp_path / MANIFEST).exists()
    assert sum(step.startswith("read ") for step in reads) == 5 + 3 + 1 + 1 + 1


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    store, manifest = stored()
    (tmp_path / "file").write_text("")

    with pytest.raises(ResourceError, match="file cannot be used"):
        pull(store, manifest, tmp_path / "file")


def test_a_folder_to_check_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="nowhere cannot be used: No such file"):
        check(stored()[1], tmp_path / "nowhere")


def test_another_versions_files_are_refused_by_a_check(tmp_path: Path) -> None:
    store, first = stored()
    _, second = stored({path: FILES[path] for path in ("config.json", SHARD)}, version="2.0.0")
    pull(store, first, tmp_path)

    with pytest.raises(ModelError, match=r"not those of demo@2\.0\.0"):
        check(second, tmp_path)


def test_wrong_bytes_in_the_store_get_no_name_in_the_folder(tmp_path: Path) -> None:
    store, manifest = stored()
    store.files["demo", "1.0.0"][SHARD] = os.urandom(4500)

    with pytest.raises(IntegrityError, match=SHARD):
        pull(store, manifest, tmp_path)

    assert not (tmp_path / SHARD).exists()
    assert not (tmp_path / MANIFEST).exists()
