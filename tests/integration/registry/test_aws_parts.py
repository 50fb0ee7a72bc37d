"""Large files in S3: sent in parts, gone on with after a cut, copied in the same parts, replaced only on purpose."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferdock.domain.errors import IntegrityError, ModelError
from inferdock.registry.aws.store import AwsStore
from inferdock.registry.manifest import FileEntry, Manifest, encode
from inferdock.registry.store import Place
from tests.support.aws import (
    TABLE,
    Traffic,
    aws_clients,
    aws_settings,
    expire_claims,
    make_place,
    raw,
    running_aws,
)
from tests.support.registry_values import delete, manifest_of, next_event, push, read, still, versions, write

MIB = 1024 * 1024
PART = 5 * MIB
LARGE = {"model.safetensors": b"".join(bytes([number]) * PART for number in range(4)) + b"the end"}
"""Five parts."""
NUMBERS = itertools.count()


class Cut(Exception):
    """The push is cut."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_aws() as address:
        yield address


@dataclasses.dataclass
class Bench:
    """A store in an empty bucket, and what it asks for."""

    endpoint: str
    bucket: str
    store: AwsStore
    s3: Traffic
    dynamodb: Traffic

    @property
    def table(self) -> str:
        return f"{TABLE}-{self.bucket}"

    def keys(self) -> list[str]:
        found = raw("s3", self.endpoint).list_objects_v2(Bucket=self.bucket)
        return [item["Key"] for item in found.get("Contents", ())]

    def uploads(self) -> list[Any]:
        found: list[Any] = raw("s3", self.endpoint).list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return found


@pytest.fixture
def bench(endpoint: str) -> Bench:
    bucket = f"parts-{next(NUMBERS)}"
    make_place(endpoint, bucket, f"{TABLE}-{bucket}")
    settings = aws_settings(endpoint, bucket, threads=2, part_bytes=PART)
    clients = aws_clients(settings)
    store = AwsStore(settings, clients=clients, copy_limit=PART)
    return Bench(endpoint, bucket, store, Traffic(clients.s3), Traffic(clients.dynamodb))


def only_entry(manifest: Manifest) -> FileEntry:
    (entry,) = manifest.content.files
    return entry


def cut(bench: Bench, folder: Path, files: dict[str, bytes], *, after: int) -> None:
    """Begin to send a file, and stop once so many bytes have been moved."""
    manifest = manifest_of(files)
    counted = 0

    def moved(count: int) -> None:
        nonlocal counted
        counted += count
        if counted >= after:
            raise Cut

    with pytest.raises(Cut):
        with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
            upload.send(only_entry(manifest), folder / "model.safetensors", moved)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "large", LARGE)


def test_a_large_file_is_sent_in_parts_and_comes_back(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(LARGE), folder)
    assert bench.s3.count("UploadPart") == 5
    assert read(bench.store, "model.safetensors") == LARGE["model.safetensors"]


def test_a_large_file_is_not_read_back_where_the_store_tells_its_checksum(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(LARGE), folder)
    assert bench.s3.count("GetObject") == 0


def test_bytes_of_all_parts_are_counted(bench: Bench, folder: Path) -> None:
    manifest = manifest_of(LARGE)
    moved: list[int] = []
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        upload.send(only_entry(manifest), folder / "model.safetensors", moved.append)
    assert sum(moved) == manifest.size_bytes


def test_parts_that_an_earlier_try_left_are_not_sent_again(bench: Bench, folder: Path) -> None:
    cut(bench, folder, LARGE, after=2 * PART)
    before = bench.s3.count("UploadPart")
    assert 2 <= before <= 4
    push(bench.store, manifest_of(LARGE), folder)
    assert bench.s3.count("UploadPart") == 5
    assert bench.s3.count("CreateMultipartUpload") == 1
    assert read(bench.store, "model.safetensors") == LARGE["model.safetensors"]


def test_a_push_that_was_killed_is_gone_on_with_when_its_claim_has_ended(bench: Bench, folder: Path) -> None:
    cut(bench, folder, LARGE, after=2 * PART)
    expire_claims(bench.endpoint, bench.table)
    push(bench.store, manifest_of(LARGE), folder)
    assert bench.s3.count("UploadPart") == 5


def test_parts_with_other_bytes_are_sent_again(bench: Bench, folder: Path) -> None:
    cut(bench, folder, LARGE, after=2 * PART)
    (upload,) = bench.uploads()
    raw("s3", bench.endpoint).upload_part(
        Bucket=bench.bucket, Key=upload["Key"], UploadId=upload["UploadId"], PartNumber=1, Body=b"x" * PART
    )
    push(bench.store, manifest_of(LARGE), folder)
    assert read(bench.store, "model.safetensors") == LARGE["model.safetensors"]


def test_parts_of_another_revision_are_given_up(bench: Bench, folder: Path, tmp_path: Path) -> None:
    others = {"model.safetensors": LARGE["model.safetensors"][:-1] + b"D"}
    cut(bench, write(tmp_path / "others", others), others, after=2 * PART)
    push(bench.store, manifest_of(LARGE), folder)
    assert bench.uploads() == []
    assert read(bench.store, "model.safetensors") == LARGE["model.safetensors"]
    head = raw("s3", bench.endpoint).head_object(Bucket=bench.bucket, Key="models/demo/v1.0.0/model.safetensors")
    assert head["Metadata"]["sha256"] == only_entry(manifest_of(LARGE)).sha256


def test_a_whole_large_file_of_an_earlier_try_is_kept(bench: Bench, folder: Path) -> None:
    manifest = manifest_of(LARGE)
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        upload.send(only_entry(manifest), folder / "model.safetensors", still)
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        assert upload.has(only_entry(manifest))
    assert bench.s3.count("UploadPart") == 5


@pytest.mark.parametrize("left", [b"small", LARGE["model.safetensors"][::-1]], ids=["small", "as large"])
def test_what_lies_at_a_large_files_key_is_replaced(bench: Bench, folder: Path, left: bytes) -> None:
    manifest = manifest_of(LARGE)
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        raw("s3", bench.endpoint).put_object(
            Bucket=bench.bucket, Key="models/demo/v1.0.0/model.safetensors", Body=left, Metadata={"sha256": "0" * 64}
        )
        upload.send(only_entry(manifest), folder / "model.safetensors", still)
        assert upload.commit(next_event(bench.store, manifest), encode(manifest), None)
    assert read(bench.store, "model.safetensors") == LARGE["model.safetensors"]


def test_a_damaged_file_that_says_it_is_right_is_not_taken_for_it(bench: Bench, folder: Path) -> None:
    manifest = manifest_of(LARGE)
    entry = only_entry(manifest)
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        raw("s3", bench.endpoint).put_object(
            Bucket=bench.bucket,
            Key="models/demo/v1.0.0/model.safetensors",
            Body=LARGE["model.safetensors"][::-1],
            Metadata={"sha256": entry.sha256},
        )
        assert not upload.has(entry)


def test_a_file_that_is_replaced_after_it_was_sent_is_not_recorded(bench: Bench, folder: Path) -> None:
    manifest = manifest_of(LARGE)
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        upload.send(only_entry(manifest), folder / "model.safetensors", still)
        raw("s3", bench.endpoint).put_object(
            Bucket=bench.bucket,
            Key="models/demo/v1.0.0/model.safetensors",
            Body=LARGE["model.safetensors"][::-1],
        )
        with pytest.raises(IntegrityError, match="no longer what was sent"):
            upload.commit(next_event(bench.store, manifest), encode(manifest), None)
    assert versions(bench.store) == []


@pytest.mark.parametrize("now", [b"", LARGE["model.safetensors"][:-9], LARGE["model.safetensors"] + b"!"], ids=len)
def test_a_large_file_that_changes_under_us_never_becomes_an_object(bench: Bench, folder: Path, now: bytes) -> None:
    manifest = manifest_of(LARGE)
    (folder / "model.safetensors").write_bytes(now)
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        with pytest.raises(ModelError, match="changed while"):
            upload.send(only_entry(manifest), folder / "model.safetensors", still)
    assert bench.keys() == []


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload", "CreateMultipartUpload"])
def test_an_answer_that_is_lost_while_parts_are_sent_does_no_harm(bench: Bench, folder: Path, operation: str) -> None:
    manifest = manifest_of(LARGE)
    bench.s3.lose_answer(operation)
    moved: list[int] = []
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        upload.send(only_entry(manifest), folder / "model.safetensors", moved.append)
        assert upload.commit(next_event(bench.store, manifest), encode(manifest), None)
    assert read(bench.store, "model.safetensors") == LARGE["model.safetensors"]
    assert sum(moved) == manifest.size_bytes
    assert bench.uploads() == []


def test_an_answer_that_is_lost_while_a_small_file_is_sent_does_no_harm(bench: Bench, tmp_path: Path) -> None:
    files = {"config.json": b"{}"}
    bench.s3.lose_answer("PutObject")
    push(bench.store, manifest_of(files), write(tmp_path / "small", files))
    assert read(bench.store, "config.json") == b"{}"


def test_a_large_file_is_copied_in_its_parts_and_not_read_back(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(LARGE), folder)
    manifest = manifest_of(LARGE, version="1.1.0")
    entry = only_entry(manifest)
    with bench.store.begin("demo", "1.1.0", revision=manifest.revision, actor="ada") as upload:
        assert upload.copy(entry, Place("demo", "1.0.0", entry.path), still)
        assert upload.commit(next_event(bench.store, manifest), encode(manifest), None)
    assert bench.s3.count("UploadPartCopy") == 5
    assert bench.s3.count("GetObject") == 0
    assert read(bench.store, entry.path, version="1.1.0") == LARGE[entry.path]


def test_a_large_file_that_was_replaced_in_parts_does_not_spread(bench: Bench, folder: Path, tmp_path: Path) -> None:
    push(bench.store, manifest_of(LARGE), folder)
    others = {"model.safetensors": LARGE["model.safetensors"][::-1]}
    push(bench.store, manifest_of(others, name="other"), write(tmp_path / "others", others))
    entry = only_entry(manifest_of(LARGE))
    with bench.store.begin("demo", "1.1.0", revision="a" * 64, actor="ada") as upload:
        assert not upload.copy(entry, Place("other", "1.0.0", entry.path), still)


def test_a_large_file_that_is_damaged_does_not_spread(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(LARGE), folder)
    manifest = manifest_of(LARGE, version="1.1.0")
    entry = only_entry(manifest)
    raw("s3", bench.endpoint).put_object(
        Bucket=bench.bucket,
        Key="models/demo/v1.0.0/model.safetensors",
        Body=LARGE[entry.path][::-1],
        Metadata={"sha256": entry.sha256},
    )
    with bench.store.begin("demo", "1.1.0", revision=manifest.revision, actor="ada") as upload:
        assert not upload.copy(entry, Place("demo", "1.0.0", entry.path), still)
        upload.send(entry, folder / entry.path, still)
        assert upload.commit(next_event(bench.store, manifest), encode(manifest), None)
    assert read(bench.store, entry.path, version="1.1.0") == LARGE[entry.path]


def test_a_deleted_version_leaves_neither_objects_nor_uploads(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(LARGE), folder)
    raw("s3", bench.endpoint).create_multipart_upload(Bucket=bench.bucket, Key="models/demo/v1.0.0/other")
    delete(bench.store, "demo", "1.0.0")
    assert (bench.keys(), bench.uploads()) == ([], [])
