"""The cache of models: what it fetches, what it compares, and what becomes of damage."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from inferdock.domain.errors import IntegrityError, ResourceError, UnreachableError
from inferdock.registry import disk
from inferdock.registry.fetch import TRIES
from inferdock.registry.manifest import Manifest, decode, revision_of
from inferdock.registry.model_cache import ModelCache
from inferdock.registry.paths import MANIFEST
from inferdock.registry.progress import Silent
from inferdock.registry.revision_folder import blob_path
from inferdock.registry.store import Place
from tests.support.memory_registry import MemoryStore
from tests.support.stored_versions import CHUNK, FILES, entry_of, never, read_folder, stored

SHARD = "model-00001-of-00002.safetensors"
DISTINCT = {entry_of(path, data).sha256: len(data) for path, data in FILES.items()}


class Counting(Silent):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.totals: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self._lock = threading.Lock()

    def begin(self, title: str, total_bytes: int, total_files: int) -> None:
        self.titles.append(title)
        self.totals[title] = total_bytes
        self.bytes[title] = 0

    def moved(self, path: str, count: int) -> None:
        with self._lock:
            self.bytes[self.titles[-1]] += count


def cache_in(folder: Path) -> ModelCache:
    return ModelCache(folder, threads=4, chunk=CHUNK, pause=never)


def blob(root: Path, path: str) -> Path:
    return root / blob_path(entry_of(path, FILES[path]).sha256)


def rewrite(path: Path, data: bytes) -> None:
    """What a person, or a rotting disk, does to a file of the cache."""
    path.chmod(0o644)
    path.write_bytes(data)


def leftovers(root: Path) -> list[str]:
    return [str(path) for path in root.rglob("*") if path.suffix in (".partial", ".draft", ".old")]


def test_a_pull_makes_a_folder_of_the_versions_files(tmp_path: Path) -> None:
    store, manifest = stored()

    pulled = cache_in(tmp_path).pull(store, manifest, Silent())

    assert pulled.folder == tmp_path / "revisions" / manifest.revision
    assert read_folder(pulled.folder) == FILES
    assert decode((pulled.folder / MANIFEST).read_bytes(), what="it") == manifest
    assert (pulled.fetched_files, pulled.fetched_bytes) == (len(DISTINCT), sum(DISTINCT.values()))
    assert leftovers(tmp_path) == []


def test_files_of_the_cache_are_read_only_and_the_folder_holds_relative_links(tmp_path: Path) -> None:
    store, manifest = stored()

    folder = cache_in(tmp_path).pull(store, manifest, Silent()).folder

    assert blob(tmp_path, SHARD).stat().st_mode & 0o777 == 0o444
    assert os.readlink(folder / "tokenizer/deep/er/same.json").startswith("../../../../../blobs/sha256/")


def test_a_cache_that_was_moved_still_works(tmp_path: Path) -> None:
    store, manifest = stored()
    cache_in(tmp_path / "a").pull(store, manifest, Silent())
    (tmp_path / "a").rename(tmp_path / "b")

    folder = cache_in(tmp_path / "b").verified(manifest, Silent())

    assert folder is not None
    assert read_folder(folder) == FILES


def test_a_second_pull_fetches_nothing_and_compares_every_byte(tmp_path: Path) -> None:
    store, manifest = stored()
    cache_in(tmp_path).pull(store, manifest, Silent())
    progress = Counting()
    store.files.clear()

    pulled = cache_in(tmp_path).pull(store, manifest, progress)

    assert (pulled.fetched_files, pulled.fetched_bytes) == (0, 0)
    assert (pulled.present_files, pulled.present_bytes) == (len(DISTINCT), sum(DISTINCT.values()))
    assert progress.bytes == {"Checking": sum(DISTINCT.values())}


def test_progress_moves_by_every_byte_that_was_announced(tmp_path: Path) -> None:
    store, manifest = stored()
    progress = Counting()

    cache_in(tmp_path).pull(store, manifest, progress)

    assert progress.bytes == progress.totals == {"Fetching": sum(DISTINCT.values())}


def test_what_two_versions_share_is_fetched_once(tmp_path: Path) -> None:
    store, first = stored()
    other, second = stored({**FILES, "config.json": b"{}\n"}, version="1.1.0")
    cache_in(tmp_path).pull(store, first, Silent())

    pulled = cache_in(tmp_path).pull(other, second, Silent())

    assert (pulled.fetched_files, pulled.fetched_bytes) == (1, 3)
    assert read_folder(pulled.folder) == {**FILES, "config.json": b"{}\n"}
    assert read_folder(tmp_path / "revisions" / first.revision) == FILES


def test_a_damaged_file_is_replaced_by_a_pull_which_says_so(tmp_path: Path) -> None:
    store, manifest = stored()
    folder = cache_in(tmp_path).pull(store, manifest, Silent()).folder
    rewrite(blob(tmp_path, SHARD), bytes(len(FILES[SHARD])))

    pulled = cache_in(tmp_path).pull(store, manifest, Silent())

    assert pulled.damaged == (SHARD,)
    assert (pulled.fetched_files, pulled.fetched_bytes) == (1, len(FILES[SHARD]))
    assert read_folder(folder) == FILES


def swapped_for_a_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(elsewhere)


def swapped_for_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "one byte": lambda path: rewrite(path, bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "one byte less": lambda path: rewrite(path, path.read_bytes()[:-1]),
    "one byte more": lambda path: rewrite(path, path.read_bytes() + b"x"),
    "gone": Path.unlink,
    "a link to the right bytes": swapped_for_a_link,
    "a pipe": swapped_for_a_pipe,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_before_a_start_and_mended_by_a_pull(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store, manifest = stored()
    cache = cache_in(tmp_path)
    cache.pull(store, manifest, Silent())
    damage(blob(tmp_path, SHARD))

    with pytest.raises(IntegrityError, match=f"{SHARD} of demo@1.0.0") as caught:
        cache.verified(manifest, Silent())

    assert "inferdock model pull demo@1.0.0" in caught.value.cure
    assert not os.path.lexists(blob(tmp_path, SHARD))
    assert read_folder(cache.pull(store, manifest, Silent()).folder) == FILES
    assert cache.verified(manifest, Silent()) is not None


def test_what_was_never_pulled_is_not_there(tmp_path: Path) -> None:
    assert cache_in(tmp_path).verified(stored()[1], Silent()) is None


def test_a_folder_whose_links_were_changed_is_made_again(tmp_path: Path) -> None:
    store, manifest = stored()
    cache = cache_in(tmp_path)
    folder = cache.pull(store, manifest, Silent()).folder
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to("/etc/hostname")
    (folder / "stray.safetensors").write_bytes(b"not of the version")

    assert cache.verified(manifest, Silent()) == folder

    assert read_folder(folder) == FILES


def test_a_link_in_place_of_the_folder_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    store, manifest = stored()
    cache = cache_in(tmp_path / "cache")
    folder = cache.pull(store, manifest, Silent()).folder
    shutil.rmtree(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear ann")
    folder.symlink_to(tmp_path / "mine")

    assert read_folder(cache.pull(store, manifest, Silent()).folder) == FILES

    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear ann"


def test_wrong_bytes_in_the_store_are_asked_for_twice_and_never_kept(tmp_path: Path) -> None:
    opened: list[str] = []
    store, manifest = stored(hook=opened.append)
    store.files["demo", "1.0.0"][SHARD] = bytes(len(FILES[SHARD]))

    with pytest.raises(IntegrityError, match=rf"{SHARD} of demo@1\.0\.0 has other bytes than were pushed in memory"):
        cache_in(tmp_path).pull(store, manifest, Silent())

    assert opened.count(f"open {SHARD}") == 10  # five ranges, twice
    assert not (tmp_path / "revisions").exists()
    assert not os.path.lexists(blob(tmp_path, SHARD))
    assert not os.path.lexists(f"{blob(tmp_path, SHARD)}.partial")


def test_bytes_that_were_wrong_once_are_fetched_again(tmp_path: Path) -> None:
    store, manifest = stored()
    good = store.files["demo", "1.0.0"][SHARD]
    store.files["demo", "1.0.0"][SHARD] = bytes(len(good))
    seen: list[str] = []

    def heal(step: str) -> None:
        seen.append(step)
        if seen.count(f"read {SHARD}") == 5:
            store.files["demo", "1.0.0"][SHARD] = good

    store.hook = heal
    progress = Counting()

    assert read_folder(cache_in(tmp_path).pull(store, manifest, progress).folder) == FILES
    assert progress.bytes == progress.totals


def test_a_file_that_is_shorter_in_the_store_is_refused(tmp_path: Path) -> None:
    store, manifest = stored()
    store.files["demo", "1.0.0"][SHARD] = FILES[SHARD][:-1]

    with pytest.raises(IntegrityError, match=f"{SHARD} of demo@1.0.0 has fewer than its 4500 bytes"):
        cache_in(tmp_path).pull(store, manifest, Silent())


def test_no_more_is_written_than_the_manifest_promises(tmp_path: Path) -> None:
    store, manifest = stored()
    store.files["demo", "1.0.0"][SHARD] = FILES[SHARD] + bytes(10_000_000)

    class Generous:
        """Gives more than it is asked for."""

        def read(self, size: int, /) -> bytes:
            return bytes(size + 1_000_000)

    class Lavish(MemoryStore):
        def open(self, place: Place, *, offset: int = 0, length: int | None = None) -> Any:
            return nullcontext(Generous())

    lavish = Lavish(files=store.files)

    with pytest.raises(IntegrityError):
        cache_in(tmp_path).pull(lavish, manifest, Silent())

    assert all(path.stat().st_size < 10_000 for path in tmp_path.rglob("*") if path.is_file())


def test_a_lost_connection_is_taken_up_again_where_it_broke(tmp_path: Path) -> None:
    failures = iter(range(3))

    def hook(step: str) -> None:
        if step.startswith("read ") and next(failures, None) is not None:
            raise UnreachableError("The line is dead.")

    pauses: list[float] = []
    store, manifest = stored(hook=hook)

    pulled = ModelCache(tmp_path, threads=1, chunk=CHUNK, pause=pauses.append).pull(store, manifest, Silent())

    assert read_folder(pulled.folder) == FILES
    assert sum(pauses) == 0.5 + 1 + 2


def test_a_store_that_stays_away_ends_the_pull_and_what_was_fetched_stays(tmp_path: Path) -> None:
    reads: list[str] = []

    def hook(step: str) -> None:
        reads.append(step)
        if step.startswith("read ") and sum(one.startswith("read ") for one in reads) > 3:
            raise UnreachableError("The line is dead.", cure="Plug it in.")

    store, manifest = stored(hook=hook)

    with pytest.raises(UnreachableError, match="The line is dead") as caught:
        ModelCache(tmp_path, threads=1, chunk=CHUNK, pause=never).pull(store, manifest, Silent())

    assert caught.value.cure.startswith("Plug it in. What was fetched stays")
    assert sum(step.startswith("read ") for step in reads) >= 3 + TRIES
    assert not (tmp_path / "revisions").exists()
    store.hook = lambda step: None
    pulled = cache_in(tmp_path).pull(store, manifest, Silent())
    assert read_folder(pulled.folder) == FILES
    assert pulled.present_bytes == 3 * CHUNK
    assert pulled.fetched_bytes == sum(DISTINCT.values()) - 3 * CHUNK


@pytest.mark.parametrize(
    "leftover",
    [b"", b"x", FILES[SHARD][:2500], bytes(4500), FILES[SHARD], bytes(6000), FILES[SHARD] + b"ranges 00000400\n11111"],
    ids=["empty", "a byte", "half", "whole but wrong", "whole and right", "too long", "ranges of another size"],
)
def test_whatever_an_earlier_try_left_the_pull_ends_well(tmp_path: Path, leftover: bytes) -> None:
    store, manifest = stored()
    blob(tmp_path, SHARD).parent.mkdir(parents=True)
    Path(f"{blob(tmp_path, SHARD)}.partial").write_bytes(leftover)

    assert read_folder(cache_in(tmp_path).pull(store, manifest, Silent()).folder) == FILES
    assert leftovers(tmp_path) == []


def test_a_partial_that_is_another_files_second_name_is_never_written_through(tmp_path: Path) -> None:
    store, manifest = stored()
    mine = tmp_path / "mine"
    mine.write_bytes(b"precious")
    blob(tmp_path, SHARD).parent.mkdir(parents=True)
    os.link(mine, f"{blob(tmp_path, SHARD)}.partial")

    cache_in(tmp_path).pull(store, manifest, Silent())

    assert mine.read_bytes() == b"precious"


def test_a_partial_that_is_a_link_is_refused(tmp_path: Path) -> None:
    store, manifest = stored()
    (tmp_path / "mine").write_bytes(b"precious")
    blob(tmp_path, SHARD).parent.mkdir(parents=True)
    Path(f"{blob(tmp_path, SHARD)}.partial").symlink_to(tmp_path / "mine")

    with pytest.raises(ResourceError, match="cannot be used"):
        cache_in(tmp_path).pull(store, manifest, Silent())

    assert (tmp_path / "mine").read_bytes() == b"precious"


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    store, manifest = stored(hook=reads.append)
    monkeypatch.setattr(disk.os, "fstatvfs", lambda fd: SimpleNamespace(f_bavail=1, f_frsize=4096))

    with pytest.raises(ResourceError, match=r"has room for 0\.0 GB, and 0\.0 GB are still to be fetched"):
        cache_in(tmp_path).pull(store, manifest, Silent())

    assert reads == []


def test_a_disk_that_gets_full_leaves_nothing_half_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, manifest = stored()
    write, written = os.pwrite, [0]

    def full(fd: int, data: bytes, offset: int) -> int:
        written[0] += len(data)
        if written[0] > 3000:
            raise OSError(28, "No space left on device")
        return write(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ResourceError, match=f"The disk of {tmp_path} is full"):
            cache_in(tmp_path).pull(store, manifest, Silent())

    assert not (tmp_path / "revisions").exists()
    assert read_folder(cache_in(tmp_path).pull(store, manifest, Silent()).folder) == FILES


def test_a_place_that_cannot_be_a_cache_is_named(tmp_path: Path) -> None:
    store, manifest = stored()
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(ResourceError, match="file cannot be used: Not a directory"):
        cache_in(tmp_path / "file").pull(store, manifest, Silent())


def hostile(manifest: Manifest, path: str) -> Manifest:
    """The same manifest with another path, as consistent as a hostile store would make it."""
    first, *rest = manifest.content.files
    files = (*rest, msgspec.structs.replace(first, path=path))
    content = msgspec.structs.replace(manifest.content, files=tuple(sorted(files, key=lambda f: f.path.encode())))
    return msgspec.structs.replace(manifest, content=content, revision=revision_of(content))


@pytest.mark.parametrize("path", ["../../evil", "/tmp/evil", "a/../../evil", "MANIFEST.json", "a\0b", "CONFIG.json/x"])
def test_a_manifest_with_a_hostile_path_is_refused(tmp_path: Path, path: str) -> None:
    store, manifest = stored({**FILES, "config.json": b"1", "a.txt": b"2"})

    with pytest.raises(IntegrityError):
        cache_in(tmp_path / "cache").pull(store, hostile(manifest, path), Silent())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("revision", ["../../evil", "0" * 64, ""])
def test_a_revision_that_is_not_the_contents_digest_is_refused(tmp_path: Path, revision: str) -> None:
    store, manifest = stored()

    with pytest.raises(IntegrityError):
        cache_in(tmp_path).pull(store, msgspec.structs.replace(manifest, revision=revision), Silent())


def test_two_pulls_at_once_share_the_work(tmp_path: Path) -> None:
    reads: list[str] = []
    store, manifest = stored(hook=reads.append)
    folders: list[Path] = []

    def pull() -> None:
        folders.append(ModelCache(tmp_path, threads=2, chunk=CHUNK).pull(store, manifest, Silent()).folder)

    pulls = [threading.Thread(target=pull) for _ in range(4)]
    for one in pulls:
        one.start()
    for one in pulls:
        one.join()

    assert len(folders) == 4
    assert read_folder(folders[0]) == FILES
    assert sum(step.startswith("read ") for step in reads) == 5 + 3 + 1 + 1  # the ranges of each file, once
    assert leftovers(tmp_path) == []


def test_a_pull_waits_for_another_one_that_is_at_a_file(tmp_path: Path) -> None:
    store, manifest = stored()
    blob(tmp_path, SHARD).parent.mkdir(parents=True)
    other = os.open(f"{blob(tmp_path, SHARD)}.partial", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:  # the other one dies
            os.close(other)

    progress = Counting()
    pulled = ModelCache(tmp_path, threads=2, chunk=CHUNK, pause=pause).pull(store, manifest, progress)

    assert len(pauses) == 3
    assert "Waiting for another pull" in progress.titles
    assert read_folder(pulled.folder) == FILES
