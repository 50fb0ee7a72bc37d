"""Many writers of one version: one wins, the others are told, and the winner's bytes are there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inferdock.domain.errors import ConflictError
from inferdock.registry.store import BLOCK, Store
from tests.contract.registry.conftest import Maker
from tests.support.registry_values import manifest_of, push, read, versions, write

WRITERS = 32


def files(number: int) -> dict[str, bytes]:
    """As many bytes for everybody, but others."""
    return {f"part-{part}.bin": bytes([number, part]) * (BLOCK // 8) for part in range(3)}


def test_of_many_writers_with_different_bytes_one_wins(store: Store, again: Maker, tmp_path: Path) -> None:
    folders = [write(tmp_path / f"writer-{number}", files(number)) for number in range(WRITERS)]
    ready = threading.Barrier(WRITERS)

    def write_one(number: int) -> bool:
        mine = again()
        ready.wait()
        try:
            push(mine, manifest_of(files(number)), folders[number])
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(write_one, range(WRITERS)))
    assert won.count(True) == 1
    assert versions(store) == ["1.0.0"]
    winner = files(won.index(True))
    assert {path: read(store, path) for path in winner} == winner


def test_versions_pushed_at_once_are_all_there(store: Store, again: Maker, tmp_path: Path) -> None:
    names = [f"1.{number}.0" for number in range(8)]
    folders = {version: write(tmp_path / version, files(number)) for number, version in enumerate(names)}

    def write_one(version: str) -> None:
        push(again(), manifest_of(files(names.index(version)), version=version), folders[version])

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(write_one, names))
    assert versions(store) == names
    for number, version in enumerate(names):
        assert read(store, "part-0.bin", version=version) == files(number)["part-0.bin"]
