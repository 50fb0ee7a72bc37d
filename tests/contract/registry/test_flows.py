"""The whole flows over every store: push of a real folder, aliases, verification, deletion, pull."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from inferdock.domain.errors import ConflictError, InferdockError, IntegrityError, ModelError, RegistryError
from inferdock.registry.manifest import Manifest, revision_of
from inferdock.registry.model_cache import ModelCache
from inferdock.registry.names import Reference
from inferdock.registry.progress import Silent
from inferdock.registry.push import Pushed, Request
from inferdock.registry.push import push as run_push
from inferdock.registry.registry import Registry
from inferdock.registry.store import Store
from inferdock.registry.verify import verify
from tests.contract.registry.conftest import Maker
from tests.support.model_folders import write_model

R = TypeVar("R")
WRITERS = 32


def registry(store: Store, actor: str = "ada") -> Registry:
    return Registry(store=store, actor=actor, clock=lambda: datetime.now(UTC), threads=4)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def push(store: Store, folder: Path, version: str = "1.0.0", **wishes: Any) -> Pushed:
    return run_push(registry(store), Request(folder=folder, name="demo", version=version, **wishes), Silent())


def at_once(works: list[Callable[[], R]]) -> list[R | InferdockError]:
    """Results, or the errors that were meant for people, of works that begin together."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], R]) -> R | InferdockError:
        barrier.wait()
        try:
            return work()
        except InferdockError as exc:
            return exc

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def test_a_folder_comes_back_byte_for_byte(store: Store, model: Path, tmp_path: Path) -> None:
    push(store, model)
    version = registry(store).version(Reference.parse("demo@1.0.0"))
    assert verify(registry(store), version, Silent()) == []
    folder = ModelCache(tmp_path / "cache", threads=4).pull(store, version.manifest, Silent()).folder
    for file in (path for path in model.rglob("*") if path.is_file()):
        assert (folder / file.relative_to(model)).read_bytes() == file.read_bytes()


def test_the_same_again_is_a_no_op_that_sends_nothing(store: Store, model: Path) -> None:
    first, second = push(store, model), push(store, model)
    assert first.event is not None
    assert (second.event, second.sent, second.manifest.revision) == (None, (0, 0), first.manifest.revision)
    assert len(store.events("demo")) == 1


def test_other_bytes_under_a_version_are_refused(store: Store, model: Path) -> None:
    revision = push(store, model).manifest.revision
    (model / "README.md").write_text("other")
    with pytest.raises(ConflictError, match="a version never changes"):
        push(store, model)
    assert registry(store).version(Reference.parse("demo@1.0.0")).manifest.revision == revision


def test_files_of_another_version_are_not_sent_again(store: Store, model: Path) -> None:
    push(store, model)
    (model / "README.md").write_text("other")
    pushed = push(store, model, "1.1.0")
    assert pushed.sent == (1, 5)
    assert pushed.copied[0] == len(pushed.manifest.content.files) - 1
    version = registry(store).version(Reference.parse("demo@1.1.0"))
    assert verify(registry(store), version, Silent()) == []


def test_of_many_pushes_of_one_version_one_wins_and_the_others_are_told(again: Maker, tmp_path: Path) -> None:
    folders = [write_model(tmp_path / f"model-{n}", seed=n, shards=1, layers=1) for n in range(WRITERS)]
    stores = [again() for _ in folders]
    found = at_once([lambda s=s, f=f: push(s, f) for s, f in zip(stores, folders, strict=True)])
    won = [result for result in found if isinstance(result, Pushed)]
    lost = [result for result in found if not isinstance(result, Pushed)]
    assert len(won) == 1
    assert all(isinstance(error, ConflictError) and "demo@1.0.0" in error.message for error in lost), lost
    version = registry(stores[0]).version(Reference.parse("demo@1.0.0"))
    assert version.manifest == won[0].manifest
    assert verify(registry(stores[0]), version, Silent()) == []


def test_of_many_who_move_an_alias_from_one_place_one_wins(again: Maker, model: Path) -> None:
    for number in range(3):
        push(again(), model, f"1.{number}.0", labels={"n": str(number)})
    registry(again()).move_alias("demo", "champion", "1.0.0")
    stores = [again() for _ in range(WRITERS)]
    wishes = [(store, f"1.{1 + n % 2}.0") for n, store in enumerate(stores)]
    found = at_once(
        [lambda s=s, v=v: registry(s, "bob").move_alias("demo", "champion", v, expect="1.0.0") for s, v in wishes]
    )
    moved = [result for result in found if not isinstance(result, InferdockError)]
    assert len(moved) == 1
    assert all(isinstance(result, ConflictError) for result in found if isinstance(result, InferdockError))
    state = registry(stores[0]).state("demo")
    assert state.aliases["previous"] == "1.0.0"
    assert state.seq == 5


def test_a_flipped_byte_is_named_by_verification_and_pull(again: Maker, model: Path, tmp_path: Path) -> None:
    store = again()
    push(store, model)
    version = registry(store).version(Reference.parse("demo@1.0.0"))
    entry = max(version.manifest.content.files, key=lambda entry: entry.size)
    wrong = replace_sha(version.manifest, entry.path)
    # A store that gives other bytes than were pushed is one whose manifest asks for other bytes.
    assert [fault.path for fault in verify(registry(store), replace(version, manifest=wrong), Silent())] == [entry.path]
    with pytest.raises(IntegrityError, match=entry.path):
        ModelCache(tmp_path / "cache", threads=2, pause=lambda _: None).pull(store, wrong, Silent())


def replace_sha(manifest: Manifest, path: str) -> Manifest:
    """The manifest with another digest for one file."""
    structs = msgspec.structs
    files = tuple(
        structs.replace(entry, sha256="0" * 64) if entry.path == path else entry for entry in manifest.content.files
    )
    content = structs.replace(manifest.content, files=files)
    return structs.replace(manifest, content=content, revision=revision_of(content))


def test_a_deleted_version_is_gone_for_all_and_its_number_stays(store: Store, model: Path) -> None:
    push(store, model)
    registry(store).delete("demo", "1.0.0", reason="licence")
    with pytest.raises(RegistryError, match="It was deleted"):
        registry(store).version(Reference.parse("demo@1.0.0"))
    with pytest.raises(IntegrityError):
        store.manifest("demo", "1.0.0")
    (model / "README.md").write_text("other")
    with pytest.raises(ConflictError, match="deleted since"):
        push(store, model)


def test_a_version_whose_manifest_was_swapped_is_refused(store: Store, model: Path, tmp_path: Path) -> None:
    push(store, model)
    other = write_model(tmp_path / "other", seed=9)
    push(store, other, "2.0.0")

    class Swapped:
        """Gives the manifest of another version."""

        location = "a store that was tampered with"
        names, events = store.names, store.events

        def manifest(self, name: str, version: str) -> tuple[bytes, bytes | None]:
            return store.manifest(name, "2.0.0")

    with pytest.raises(IntegrityError, match="not the one that was pushed"):
        registry(Swapped()).version(Reference.parse("demo@1.0.0"))  # type: ignore[arg-type]


def test_a_folder_that_changes_while_it_is_pushed_makes_no_version(store: Store, model: Path) -> None:
    class Meddler(Silent):
        """Changes a file once all are hashed."""

        def begin(self, title: str, total_bytes: int, total_files: int) -> None:
            if title == "Sending":
                (model / "README.md").write_text("meddled")

    (model / "README.md").write_text("whatever")
    with pytest.raises(ModelError, match=r"README\.md"):
        run_push(registry(store), Request(folder=model, name="demo", version="1.0.0"), Meddler())
    assert store.events("demo") == []
    shutil.rmtree(model)
    assert push(store, write_model(model)).event is not None
