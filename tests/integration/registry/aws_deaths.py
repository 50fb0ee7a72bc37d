"""Kills a writer of the store in S3 and DynamoDB before each of its requests in turn; run as a program.

A child is forked for each step, before anything here has threads or open connections: it uses clients that only
children use. Afterwards the parent looks at what is visible, lets the dead one's claim end, and pushes again.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferdock.registry import ledger
from inferdock.registry.aws.store import AwsStore
from inferdock.registry.manifest import Manifest
from inferdock.registry.paths import MANIFEST
from tests.support.aws import TABLE, aws_clients, aws_settings, expire_claims, items_of, make_place, raw
from tests.support.crash import dies
from tests.support.registry_values import delete, manifest_of, push, read, versions, write

PART = 5 * 1024 * 1024
FILES = {"config.json": b"{}", "model.safetensors": b"w" * PART + b"v" * 7, "empty.txt": b""}
OTHERS = {"config.json": b"[]", "model.safetensors": b"x" * PART + b"y" * 9, "more.json": b"1"}


class Bench:
    """A bucket, and the stores of children and of the parent in it."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        make_place(endpoint, bucket, f"{TABLE}-{bucket}")
        settings = aws_settings(endpoint, bucket, threads=2, part_bytes=PART)
        self.endpoint, self.bucket, self.table = endpoint, bucket, f"{TABLE}-{bucket}"
        self.childs = aws_clients(settings)
        self.child = AwsStore(settings, clients=self.childs)
        self.parent = AwsStore(settings, clients=aws_clients(settings))

    def killed_at(self, step: int, work: Callable[[], None]) -> bool:
        """Do ``work`` in a child that dies before its ``step``-th request; whether it did."""
        return dies(work, lambda: self._arm(step), at=step)

    def _arm(self, step: int) -> None:
        count = 0

        def counted(**_: Any) -> None:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        for client in (self.childs.s3, self.childs.dynamodb):
            client.meta.events.register("before-send", counted)

    def check(self, name: str, manifest: Manifest, files: dict[str, bytes], *, there: bool | None) -> None:
        """What is visible is whole, and the record is there if and only if the version is."""
        visible = "1.0.0" in versions(self.parent, name)
        assert there in (None, visible)
        items = items_of(self.endpoint, self.table)
        assert ((name, "1.0.0") in items) == visible
        if visible:
            assert {path: read(self.parent, path, name=name) for path in files} == files
            assert self.parent.manifest(name, "1.0.0")[0]

    def left(self, name: str) -> set[str]:
        """Paths of objects and keys of uploads that are there."""
        s3, prefix = raw("s3", self.endpoint), f"models/{name}/v1.0.0/"
        objects = s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        uploads = s3.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix).get("Uploads", [])
        return {item["Key"].removeprefix(prefix) for item in (*objects, *uploads)}


def drive_push(bench: Bench, folder: Path, *, over: Path | None) -> int:
    """Kill a push at each step, also one that replaces what another revision left; how often."""
    step, died = 0, True
    while died:
        step += 1
        name = f"demo-{step}"
        manifest = manifest_of(FILES, name=name)
        if over is not None:
            leave(bench, name, over)
        died = bench.killed_at(step, lambda: push(bench.child, manifest, folder) and None)  # noqa: B023
        bench.check(name, manifest, FILES, there=None if died else True)
        expire_claims(bench.endpoint, bench.table)
        if "1.0.0" not in versions(bench.parent, name):
            push(bench.parent, manifest, folder)
        bench.check(name, manifest, FILES, there=True)
        assert bench.left(name) == {*FILES, MANIFEST}
        assert (name, "push#1.0.0") not in items_of(bench.endpoint, bench.table)
    return step - 1


def leave(bench: Bench, name: str, folder: Path) -> None:
    """What a push of other content leaves that ends before its record."""
    others = manifest_of(OTHERS, name=name)
    with bench.parent.begin(name, "1.0.0", revision=others.revision, actor="bob") as upload:
        for entry in others.content.files:
            upload.send(entry, folder / entry.path, lambda count: None)


def drive_delete(bench: Bench, folder: Path) -> int:
    """Kill a deletion at each step; how often."""
    step, died = 0, True
    while died:
        step += 1
        name = f"gone-{step}"
        manifest = manifest_of(FILES, name=name)
        push(bench.parent, manifest, folder)
        died = bench.killed_at(step, lambda: delete(bench.child, name, "1.0.0"))  # noqa: B023
        bench.check(name, manifest, FILES, there=None if died else False)
        expire_claims(bench.endpoint, bench.table)
        if "1.0.0" in ledger.fold(name, bench.parent.events(name)).versions:
            delete(bench.parent, name, "1.0.0")
        else:
            bench.parent.remove(name, "1.0.0")
        assert bench.left(name) == set()
        bench.check(name, manifest, FILES, there=False)
    return step - 1


def main(scenario: str, endpoint: str) -> int:
    """Drive a scenario; how often somebody was killed."""
    bench = Bench(endpoint, f"deaths-{scenario}")
    with tempfile.TemporaryDirectory() as place:
        folder = write(Path(place) / "model", FILES)
        others = write(Path(place) / "others", OTHERS)
        if scenario == "delete":
            return drive_delete(bench, folder)
        return drive_push(bench, folder, over=others if scenario == "leftovers" else None)


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2]))
