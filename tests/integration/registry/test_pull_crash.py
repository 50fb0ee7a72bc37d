"""Pulls that are killed at every single step on the disk: nothing half is visible, and a second pull completes.

A child is forked for each step, wraps what writes to the disk, and kills itself before the Nth of these calls. The
forks are made by a process of their own, which has no threads (this file, run as a program).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inferdock.registry.manifest import Manifest
from inferdock.registry.model_cache import ModelCache
from inferdock.registry.paths import MANIFEST
from inferdock.registry.progress import Silent
from inferdock.registry.pull import pull_to, verify_folder
from inferdock.registry.store import Store
from tests.support.crash import dies
from tests.support.stored_versions import CHUNK, FILES, never, read_folder, stored

STEPS = ("open", "pwrite", "ftruncate", "fchmod", "rename", "mkdir", "symlink", "unlink", "rmdir", "write")
OLD = {"config.json": b"[]", "old.safetensors": bytes(2500), "gone/with/it.json": b"1"}
ROOT = Path(__file__).parents[3]

Pull = Callable[[Store, Manifest, Path], None]
Check = Callable[[Manifest, Path, bool], None]


def into_cache(store: Store, manifest: Manifest, place: Path) -> None:
    ModelCache(place, threads=2, chunk=CHUNK, pause=never).pull(store, manifest, Silent())


def into_folder(store: Store, manifest: Manifest, place: Path) -> None:
    pull_to(store, manifest, place, threads=2, progress=Silent(), chunk=CHUNK, pause=never)


def check_cache(manifest: Manifest, place: Path, ended: bool) -> None:
    """What is visible is whole; when the pull ended, it is visible and nothing else is left."""
    cache = ModelCache(place, threads=1)
    folder = cache.folder(manifest.revision)
    assert folder.exists() or not ended
    if folder.exists():
        assert read_folder(folder) == FILES
        assert cache.verified(manifest, Silent()) == folder
    left = {path.name for path in place.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"}
    assert not (ended and left), left


def check_folder(manifest: Manifest, place: Path, ended: bool) -> None:
    """The mark is there only with all files; when the pull ended, it is there and nothing else is left."""
    marked = (place / MANIFEST).exists()
    if ended or (marked and b'"2.0.0"' in (place / MANIFEST).read_bytes()):
        assert {path: data for path, data in read_folder(place).items() if not path.startswith(".")} == FILES
        verify_folder(manifest, place, threads=1, progress=Silent())
    assert not ended or read_folder(place) == FILES


def _arm(step: int) -> None:
    count = 0

    def counted(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)

    for name in STEPS:
        setattr(os, name, partial(counted, getattr(os, name)))


def prepared(place: Path, *, with_old: bool) -> None:
    """A folder that holds another version, or nothing."""
    if with_old:
        store, manifest = stored(OLD)
        into_folder(store, manifest, place)


def drive(pull: Pull, check: Check, *, with_old: bool) -> int:
    """Kill at every step; how many there were."""
    store, manifest = stored(version="2.0.0")
    step = 0
    died = True
    while died:
        step += 1
        place = Path(tempfile.mkdtemp(prefix="pull"))
        try:
            prepared(place, with_old=with_old)
            died = dies(partial(pull, store, manifest, place), partial(_arm, step), at=step)
            check(manifest, place, not died)
            pull(store, manifest, place)
            check(manifest, place, True)
        finally:
            shutil.rmtree(place)
    return step - 1


def drive_repair() -> int:
    """Kill a pull that replaces damaged files at every step."""
    store, manifest = stored(version="2.0.0")
    step, died = 0, True
    while died:
        step += 1
        place = Path(tempfile.mkdtemp(prefix="pull"))
        try:
            into_cache(store, manifest, place)
            for blob in (place / "blobs").rglob("*"):
                if blob.is_file() and blob.stat().st_size > CHUNK:
                    blob.chmod(0o644)
                    blob.write_bytes(bytes(blob.stat().st_size))
            died = dies(partial(into_cache, store, manifest, place), partial(_arm, step), at=step)
            into_cache(store, manifest, place)
            check_cache(manifest, place, True)
        finally:
            shutil.rmtree(place)
    return step - 1


def outlive() -> int:
    """A pull waits for one of another process, which is killed: it goes on with what that one had."""
    place = Path(tempfile.mkdtemp(prefix="pull"))
    reading, said = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            _stall_after_two_ranges(place, said)
        assert os.read(reading, 1) == b"."
        store, manifest = stored(version="2.0.0")
        naps: list[float] = []

        def pause(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)

        pulled = ModelCache(place, threads=2, chunk=CHUNK, pause=pause).pull(store, manifest, Silent())
        check_cache(manifest, place, True)
        return pulled.present_bytes
    finally:
        shutil.rmtree(place)


def _stall_after_two_ranges(place: Path, said: int) -> None:
    """The child: fetches two ranges of a file and then hangs."""
    signal.alarm(60)  # it ends, even if the test is stopped before it kills it
    reads: list[str] = []

    def hook(step: str) -> None:
        reads.append(step)
        if sum(one.startswith("read ") for one in reads) == 3:
            os.write(said, b".")
            signal.pause()

    store, manifest = stored(version="2.0.0", hook=hook)
    ModelCache(place, threads=1, chunk=CHUNK, pause=never).pull(store, manifest, Silent())
    os._exit(1)


CASES = {
    "into the cache": lambda: drive(into_cache, check_cache, with_old=False),
    "into an empty folder": lambda: drive(into_folder, check_folder, with_old=False),
    "into a folder that holds another version": lambda: drive(into_folder, check_folder, with_old=True),
    "to mend the cache": drive_repair,
}


@pytest.mark.parametrize("case", CASES)
def test_a_pull_that_is_killed_at_any_step_leaves_nothing_half_and_the_next_one_completes(case: str) -> None:
    assert in_a_process_without_threads(case) > 20  # it was killed so many times


def test_a_pull_goes_on_with_what_a_killed_one_had_fetched() -> None:
    assert in_a_process_without_threads("outlive") == 2 * CHUNK


def in_a_process_without_threads(case: str) -> int:
    """What this file says when it is run as a program."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.integration.registry.test_pull_crash", case],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    return int(run.stdout)


if __name__ == "__main__":
    print({**CASES, "outlive": outlive}[sys.argv[1]]())
