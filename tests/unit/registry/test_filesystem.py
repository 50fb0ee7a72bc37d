"""The directory store where it differs from others: its files, links, locks, and what somebody may have put there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from inferdock.domain.errors import (
    ConflictError,
    InferdockError,
    IntegrityError,
    RegistryError,
    ResourceError,
    UnreachableError,
)
from inferdock.registry.event import encode as encode_event
from inferdock.registry.filesystem import FilesystemStore
from inferdock.registry.filesystem_disk import told
from inferdock.registry.filesystem_history import DRAFT_LIFE_S
from inferdock.registry.manifest import encode
from inferdock.registry.store import Place
from tests.support.registry_values import (
    delete,
    entry_of,
    manifest_of,
    next_event,
    push,
    read,
    send_all,
    still,
    versions,
    write,
)

FILES = {"config.json": b"{}", "sub/model.safetensors": b"w" * 5000}
MANIFEST = manifest_of(FILES)
HOME = "models/demo/v1.0.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", FILES)


@pytest.fixture
def store(root: Path) -> FilesystemStore:
    return FilesystemStore(root)


@pytest.fixture
def filled(store: FilesystemStore, folder: Path) -> FilesystemStore:
    push(store, MANIFEST, folder)
    return store


def files_in(folder: Path) -> set[str]:
    """Files, without the locks, which stay."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return {path for path in found if not path.startswith("locks/")}


def dies_before_the_record(store: FilesystemStore, folder: Path, signatures: bytes | None = None) -> None:
    """Push, and end between the moment when the files are in place and the event."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._history, "append", lambda event: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            push(store, MANIFEST, folder, signatures)


def test_the_layout_is_the_documented_one(filled: FilesystemStore, root: Path) -> None:
    assert files_in(root) == {
        "history/demo/0000000001.json",
        f"{HOME}/MANIFEST.json",
        f"{HOME}/config.json",
        f"{HOME}/sub/model.safetensors",
    }


def test_files_of_a_version_are_read_only(filled: FilesystemStore, root: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in root.glob("models/**/*") if path.is_file()}
    assert all(not mode & 0o222 for mode in modes)


def test_reading_makes_no_folder(store: FilesystemStore, root: Path) -> None:
    assert (store.names(), store.events("demo")) == ([], [])
    assert not root.exists()


def test_a_copied_file_takes_no_space(filled: FilesystemStore, root: Path) -> None:
    manifest = manifest_of(FILES, version="1.1.0")
    with filled.begin("demo", "1.1.0", revision=manifest.revision, actor="ada") as upload:
        for entry in manifest.content.files:
            assert upload.copy(entry, Place("demo", "1.0.0", entry.path), still)
        assert upload.commit(next_event(filled, manifest), encode(manifest), None)
    assert (root / HOME / "config.json").samefile(root / "models/demo/v1.1.0/config.json")


def test_a_file_is_copied_by_bytes_where_links_cannot_be(
    filled: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    moved: list[int] = []
    with filled.begin("demo", "1.1.0", revision="a" * 64, actor="ada") as upload:
        entry = entry_of("config.json", FILES["config.json"])
        assert upload.copy(entry, Place("demo", "1.0.0", "config.json"), moved.append)
        assert upload.has(entry)
    assert sum(moved) == entry.size


@pytest.mark.parametrize("links", [True, False])
def test_a_damaged_file_does_not_spread(
    filled: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EXDEV))
    spoil(root / HOME / "config.json")
    with filled.begin("demo", "1.1.0", revision="a" * 64, actor="ada") as upload:
        entry = entry_of("config.json", FILES["config.json"])
        assert not upload.copy(entry, Place("demo", "1.0.0", "config.json"), still)
        assert not upload.has(entry)


def refusing(number: int) -> Callable[..., None]:
    def call(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def spoil(path: Path) -> None:
    """Change the first byte, leave the size."""
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def test_a_push_that_ended_before_its_record_goes_on_with_the_same_bytes(
    store: FilesystemStore, root: Path, folder: Path
) -> None:
    dies_before_the_record(store, folder)
    assert (root / HOME).is_dir()
    assert versions(store) == []
    assert push(store, MANIFEST, folder) == []  # nothing had to be sent
    assert read(store, "config.json") == FILES["config.json"]


def test_a_push_that_ended_before_its_record_is_replaced_by_other_bytes(
    store: FilesystemStore, root: Path, folder: Path, tmp_path: Path
) -> None:
    dies_before_the_record(store, folder)
    other = {"config.json": b"[]"}
    push(store, manifest_of(other), write(tmp_path / "other", other))
    assert files_in(root / HOME) == {"config.json", "MANIFEST.json"}
    assert read(store, "config.json") == b"[]"


def test_signatures_of_a_push_that_ended_do_not_stay(store: FilesystemStore, folder: Path) -> None:
    dies_before_the_record(store, folder, b"signed")
    push(store, MANIFEST, folder)
    assert store.manifest("demo", "1.0.0")[1] is None


@pytest.mark.parametrize("spoiled", ["config.json", "sub/model.safetensors"])
def test_what_was_damaged_while_it_waited_is_sent_again(
    store: FilesystemStore, root: Path, folder: Path, spoiled: str
) -> None:
    with store.begin("demo", "1.0.0", revision=MANIFEST.revision, actor="ada") as upload:
        send_all(upload, MANIFEST, folder)
    spoil(root / f"staging/demo/v1.0.0/{MANIFEST.revision}/{spoiled}")
    assert push(store, MANIFEST, folder) == [spoiled]
    assert read(store, spoiled) == FILES[spoiled]


def test_strange_files_do_not_become_part_of_a_version(store: FilesystemStore, root: Path, folder: Path) -> None:
    staging = root / f"staging/demo/v1.0.0/{MANIFEST.revision}"
    write(staging, {"stranger.safetensors": b"1", "sub/stranger": b"2"})
    (staging / "link").symlink_to("/etc")
    os.mkfifo(staging / "pipe")
    push(store, MANIFEST, folder)
    assert files_in(root / HOME) == {*FILES, "MANIFEST.json"}


def test_a_version_that_was_pushed_again_is_not_removed(filled: FilesystemStore) -> None:
    filled.remove("demo", "1.0.0")
    assert read(filled, "config.json") == FILES["config.json"]


def test_a_version_that_is_being_pushed_is_not_removed(filled: FilesystemStore) -> None:
    with filled.begin("demo", "1.0.0", revision=MANIFEST.revision, actor="ada"):
        with pytest.raises(ConflictError, match="pushed right now by ada"):
            filled.remove("demo", "1.0.0")


def test_folders_without_write_permission_are_deleted_too(filled: FilesystemStore, root: Path) -> None:
    (root / HOME / "sub").chmod(0o555)
    delete(filled, "demo", "1.0.0")
    assert files_in(root) == {"history/demo/0000000001.json", "history/demo/0000000002.json"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"", "changed by somebody else"),
        (b"pushed right now by \x1b[31mada\n\xff", r"pushed right now by \?\[31mada\?"),
        (b"a" * 10_000, "a{500} "),
    ],
    ids=["empty", "hostile", "long"],
)
def test_whatever_a_lock_says_the_error_can_be_shown(
    store: FilesystemStore, root: Path, text: bytes, shown: str
) -> None:
    with store.begin("demo", "1.0.0", revision="a" * 64, actor="ada"):
        (root / "locks/demo@1.0.0").write_bytes(text)
        with pytest.raises(ConflictError, match=f"^demo@1.0.0 is being {shown}"):
            store.remove("demo", "1.0.0")


def test_a_file_system_without_locks_is_refused(store: FilesystemStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", refusing(errno.ENOLCK))
    with pytest.raises(ResourceError, match="no locks"), store.begin("demo", "1.0.0", revision="a" * 64, actor="ada"):
        pass


def test_events_are_appended_by_one_of_many_where_links_cannot_be(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EOPNOTSUPP))
    event = next_event(store, MANIFEST)
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(lambda _: store.append(event), range(32))).count(True) == 1
    assert store.events("demo") == [event]
    assert files_in(root) == {"history/demo/0000000001.json"}


def test_an_event_whose_link_was_made_though_the_answer_was_lost_counts(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def asked_twice(*args: object, **kwargs: object) -> None:
        link(*args, **kwargs)  # type: ignore[arg-type]
        link(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", asked_twice)
    assert store.append(next_event(store, MANIFEST))


def test_drafts_of_dead_writers_go_and_those_of_living_ones_stay(store: FilesystemStore, root: Path) -> None:
    drafts = write(root / "staging/.drafts", {"dead": b"half an ev", "living": b"half an ev"})
    now = (drafts / "living").stat().st_mtime
    os.utime(drafts / "dead", (now - DRAFT_LIFE_S - 60,) * 2)
    assert store.append(next_event(store, MANIFEST))
    assert files_in(drafts) == {"living"}


def test_a_writer_that_lost_its_draft_writes_it_again(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, asleep = os.link, [True]

    def sleepy(source: str, *args: object, **kwargs: object) -> None:
        if asleep.pop() if asleep else False:
            (root / "staging/.drafts" / source).unlink()
        link(source, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", sleepy)
    assert store.append(next_event(store, MANIFEST))
    assert len(store.events("demo")) == 1


def test_an_event_that_could_not_be_read_again_is_not_written(store: FilesystemStore, root: Path) -> None:
    event = msgspec.structs.replace(next_event(store, MANIFEST), reason="x" * 5000)
    with pytest.raises(RegistryError, match="cannot be recorded"):
        store.append(event)
    assert store.events("demo") == []


def long_history(store: FilesystemStore, count: int = 4) -> None:
    for number in range(count):
        assert store.append(next_event(store, manifest_of(FILES, version=f"1.{number}.0")))


def test_a_lost_event_is_named(store: FilesystemStore, root: Path) -> None:
    long_history(store)
    (root / "history/demo/0000000003.json").unlink()
    with pytest.raises(IntegrityError, match=r"0000000003\.json is missing"):
        store.events("demo")


def test_an_event_that_comes_in_while_we_read_is_not_taken_for_a_lost_one(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_history(store)
    real, unseen = os.open, ["0000000003.json"]

    def too_early(path: object, *args: object, **kwargs: object) -> int:
        if path in unseen:
            unseen.clear()
            raise FileNotFoundError(errno.ENOENT, "not yet")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", too_early)
    assert [event.seq for event in store.events("demo")] == [1, 2, 3, 4]


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"{}"),
        lambda path: path.write_bytes(b"\xff" * 100_000),
        lambda path: path.write_bytes(b"[" * 60_000),
        lambda path: path.mkdir(),
        os.mkfifo,
        a_link,
    ],
    ids=["empty", "other json", "long", "deep", "folder", "pipe", "link"],
)
def test_what_is_no_event_is_named(store: FilesystemStore, root: Path, put: Callable[[Path], object]) -> None:
    long_history(store, 1)
    put(root / "history/demo/0000000002.json")
    with pytest.raises(IntegrityError, match=r"0000000002\.json"):
        store.events("demo")


def test_an_event_is_only_one_in_its_one_spelling(store: FilesystemStore, root: Path) -> None:
    write(root / "history/demo", {"0000000001.json": encode_event(next_event(store, MANIFEST)) + b"\n"})
    with pytest.raises(IntegrityError, match=r"0000000001\.json"):
        store.events("demo")


def test_only_what_has_events_is_a_model(filled: FilesystemStore, root: Path) -> None:
    write(root / "history", {"README": b"x", ".hidden/0000000001.json": b"", "no@name/0000000001.json": b""})
    (root / "history/empty").mkdir()
    (root / "history/link").symlink_to(root / "history/demo")
    assert filled.names() == ["demo"]


@pytest.mark.parametrize("planted", ["history", "staging/demo", "models", "models/demo", "locks"])
def test_nothing_is_written_through_a_planted_link(
    store: FilesystemStore, root: Path, folder: Path, tmp_path: Path, planted: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / planted).parent.mkdir(parents=True, exist_ok=True)
    (root / planted).symlink_to(outside)
    with pytest.raises(ResourceError, match="links are not followed"):
        push(store, MANIFEST, folder)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", "sub"])
def test_no_file_is_read_through_a_planted_link(filled: FilesystemStore, root: Path, tmp_path: Path, name: str) -> None:
    (root / HOME / name).rename(tmp_path / "moved")
    (root / HOME / name).symlink_to(tmp_path / "moved")
    for path in FILES:
        if path.startswith(name):
            with pytest.raises(IntegrityError, match="is not a file"):
                read(filled, path)


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.mkdir()], ids=["pipe", "folder"])
def test_what_is_no_file_is_not_read(filled: FilesystemStore, root: Path, put: Callable[[Path], object]) -> None:
    (root / HOME / "config.json").unlink()
    put(root / HOME / "config.json")
    with pytest.raises(IntegrityError, match="is not a file"):
        read(filled, "config.json")


def test_a_planted_link_is_removed_and_not_what_it_leads_to(
    filled: FilesystemStore, root: Path, tmp_path: Path
) -> None:
    kept = write(tmp_path / "kept", {"file": b"1"})
    (root / HOME / "link").symlink_to(kept)
    delete(filled, "demo", "1.0.0")
    assert not (root / HOME).exists()
    assert files_in(kept) == {"file"}


@pytest.mark.parametrize("path", ["../escaped", "/etc/passwd", "sub/../../escaped", "a\0b", "MANIFEST.json"])
def test_a_path_that_leaves_the_version_is_refused(filled: FilesystemStore, folder: Path, path: str) -> None:
    entry = entry_of(path, b"{}")
    source = folder / "config.json"
    with filled.begin("demo", "1.1.0", revision="a" * 64, actor="ada") as upload:
        for attempt in (
            lambda: upload.has(entry),
            lambda: upload.send(entry, source, still),
            lambda: upload.copy(entry, Place("demo", "1.0.0", "config.json"), still),
            lambda: upload.copy(entry_of("config.json", b"{}"), Place("demo", "1.0.0", path), still),
            lambda: filled.open(Place("demo", "1.0.0", path)).__enter__(),
        ):
            with pytest.raises(InferdockError):
                attempt()


@pytest.mark.parametrize("name", ["..", "a/b", "", "-x"])
def test_a_name_that_is_none_is_refused(filled: FilesystemStore, name: str) -> None:
    for attempt in (
        lambda: filled.events(name),
        lambda: filled.manifest(name, "1.0.0"),
        lambda: filled.remove(name, "1.0.0"),
        lambda: filled.begin(name, "1.0.0", revision="a" * 64, actor="ada").__enter__(),
    ):
        with pytest.raises(InferdockError):
            attempt()


@pytest.mark.parametrize(("name", "limit"), [("MANIFEST.json", 64), ("MANIFEST.sig", 1)])
def test_a_manifest_without_end_is_not_read_to_its_end(
    filled: FilesystemStore, root: Path, name: str, limit: int
) -> None:
    path = root / HOME / name
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, 2**40)  # sparse
    with pytest.raises(IntegrityError, match=f"{name} is larger than {limit} MiB"):
        filled.manifest("demo", "1.0.0")


def test_a_store_that_is_a_file_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").touch()
    store = FilesystemStore(tmp_path / "file")
    for attempt in (store.names, lambda: store.events("demo"), lambda: push(store, MANIFEST, folder)):
        with pytest.raises(ResourceError, match="is not what a store has there") as caught:
            attempt()
        assert "--registry" in caught.value.cure


def test_a_full_disk_is_told_and_nothing_is_left(
    store: FilesystemStore, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferdock.registry.hashing._write", refusing(errno.ENOSPC))
    with pytest.raises(ResourceError, match=f"The store {root} is full"):
        push(store, MANIFEST, folder)
    assert files_in(root) == set()


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, ResourceError, "is full"),
        (errno.EDQUOT, ResourceError, "is full"),
        (errno.EACCES, ResourceError, "cannot be used"),
        (errno.EROFS, ResourceError, "cannot be used"),
        (errno.ENOTDIR, ResourceError, "not what a store has"),
        (errno.EIO, UnreachableError, "failed"),
        (errno.ESTALE, UnreachableError, "failed"),
        (errno.ETIMEDOUT, UnreachableError, "failed"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else None,
)
def test_an_error_of_the_system_says_what_to_do(number: int, error: type[InferdockError], words: str) -> None:
    with pytest.raises(error, match=f"/srv/store.*{words}") as caught, told(Path("/srv/store"), "models/demo"):
        raise OSError(number, os.strerror(number))
    assert caught.value.cure
