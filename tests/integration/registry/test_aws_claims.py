"""Claims of pushes in DynamoDB: one holder at a time, taken over from the dead, and of no use to one that wakes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ConnectionClosedError

from inferdock.domain.errors import ConflictError
from inferdock.registry.aws.store import AwsStore
from inferdock.registry.manifest import Manifest, encode
from tests.support.aws import (
    TABLE,
    Traffic,
    aws_clients,
    aws_settings,
    expire_claims,
    items_of,
    make_place,
    raw,
    running_aws,
)
from tests.support.registry_values import (
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

FILES = {"config.json": b"{}", "model.safetensors": b"weights of ada"}
OTHERS = {"config.json": b"[]", "model.safetensors": b"weights of bob"}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_aws() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str) -> str:
    name = f"claims-{next(NUMBERS)}"
    make_place(endpoint, name, f"{TABLE}-{name}")
    return name


Opener = Callable[..., AwsStore]


@pytest.fixture
def opened(endpoint: str, bucket: str) -> Opener:
    """Opens the store; with a lease that nobody has to wait for, if asked."""
    settings = aws_settings(endpoint, bucket, threads=2)
    clients = aws_clients(settings)

    def open_store(*, lease_s: float = 60, grace_s: float = 15) -> AwsStore:
        return AwsStore(settings, clients=clients, lease_s=lease_s, grace_s=grace_s)

    return open_store


@pytest.fixture
def manifest() -> Manifest:
    return manifest_of(FILES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "ada", FILES)


def test_the_one_who_pushes_is_named_with_the_time(opened: Opener) -> None:
    with opened().begin("demo", "1.0.0", revision="a" * 64, actor="ada@laptop"):
        with pytest.raises(ConflictError, match=r"being pushed right now by ada@laptop \(since 20\d\d-"):
            with opened().begin("demo", "1.0.0", revision="a" * 64, actor="bob"):
                pass


def test_a_claim_lasts_as_long_as_it_is_renewed(opened: Opener) -> None:
    with opened(lease_s=3, grace_s=0).begin("demo", "1.0.0", revision="a" * 64, actor="ada"):
        for _ in range(10):
            with (
                pytest.raises(ConflictError),
                opened(lease_s=3, grace_s=0).begin("demo", "1.0.0", revision="a" * 64, actor="bob"),
            ):
                pass
            time.sleep(0.5)


def test_a_claim_that_is_not_renewed_ends(endpoint: str, bucket: str, opened: Opener) -> None:
    settings = aws_settings(endpoint, bucket)
    cut_off = aws_clients(settings)
    with AwsStore(settings, clients=cut_off, lease_s=2, grace_s=0).begin(
        "demo", "1.0.0", revision="a" * 64, actor="ada"
    ):
        cut_off.dynamodb.meta.events.register("before-send.dynamodb.UpdateItem", _no_network)
        deadline = time.monotonic() + 60
        while True:
            try:
                with opened(grace_s=0).begin("demo", "1.0.0", revision="b" * 64, actor="bob"):
                    return
            except ConflictError:
                assert time.monotonic() < deadline
                time.sleep(0.3)


def _no_network(**_: object) -> None:
    raise ConnectionClosedError(endpoint_url="http://nowhere")


@pytest.fixture
def woken(endpoint: str, bucket: str, opened: Opener, tmp_path: Path) -> Iterator[tuple[AwsStore, object]]:
    """A push that slept while bob pushed the same version with other bytes, and woke after."""
    sleeper = opened(lease_s=0.2)
    manifest = manifest_of(FILES)
    with sleeper.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        upload.claim._end.set()  # type: ignore[attr-defined]
        expire_claims(endpoint, f"{TABLE}-{bucket}")
        push(opened(), manifest_of(OTHERS), write(tmp_path / "bob", OTHERS))
        time.sleep(0.3)
        yield opened(), upload


def test_a_push_that_wakes_too_late_sends_nothing(woken: tuple[AwsStore, object], folder: Path) -> None:
    store, upload = woken
    with pytest.raises(ConflictError):
        send_all(upload, manifest_of(FILES), folder)  # type: ignore[arg-type]
    assert {path: read(store, path) for path in OTHERS} == OTHERS


@pytest.mark.parametrize("left", [None, b"left by somebody"], ids=["over nothing", "over what was left"])
def test_a_push_that_falls_asleep_before_a_write_does_not_write_over_the_next_one(
    endpoint: str, bucket: str, opened: Opener, folder: Path, tmp_path: Path, left: bytes | None
) -> None:
    manifest = manifest_of(FILES)
    with opened(lease_s=0.2).begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        if left is not None:
            raw("s3", endpoint).put_object(Bucket=bucket, Key="models/demo/v1.0.0/config.json", Body=left)
        put = upload.objects.put  # type: ignore[attr-defined]

        def asleep(key: str, data: bytes, sha256: str, over: object) -> object:
            if (over is None) == (left is None):
                upload.objects.put = put  # type: ignore[attr-defined]
                upload.claim._end.set()  # type: ignore[attr-defined]
                expire_claims(endpoint, f"{TABLE}-{bucket}")
                push(opened(), manifest_of(OTHERS), write(tmp_path / "bob", OTHERS))
                time.sleep(0.3)
            return put(key, data, sha256, over)

        upload.objects.put = asleep  # type: ignore[attr-defined]
        with pytest.raises(ConflictError, match="took over"):
            upload.send(entry_of("config.json", FILES["config.json"]), folder / "config.json", still)
    assert {path: read(opened(), path) for path in OTHERS} == OTHERS


def test_a_push_that_wakes_too_late_records_nothing(endpoint: str, bucket: str, opened: Opener, folder: Path) -> None:
    manifest = manifest_of(FILES)
    with opened().begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        send_all(upload, manifest, folder)
        event = next_event(opened(), manifest)
        expire_claims(endpoint, f"{TABLE}-{bucket}")
        with opened().begin("demo", "1.0.0", revision=manifest.revision, actor="bob"):
            upload.claim.check = lambda: None  # type: ignore[attr-defined]
            with pytest.raises(ConflictError, match="took over"):
                upload.commit(event, encode(manifest), None)
        assert versions(opened()) == []


def test_a_push_that_slept_goes_on_if_nobody_took_over(opened: Opener, folder: Path, manifest: Manifest) -> None:
    with opened(lease_s=0.3).begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        upload.claim._end.set()  # type: ignore[attr-defined]
        time.sleep(0.5)
        send_all(upload, manifest, folder)
        assert upload.commit(next_event(opened(), manifest), encode(manifest), None)


def test_nothing_is_left_of_the_claim_of_a_push_that_ended(
    endpoint: str, bucket: str, opened: Opener, folder: Path, manifest: Manifest
) -> None:
    push(opened(), manifest, folder)
    keys = {version for _, version in items_of(endpoint, f"{TABLE}-{bucket}")}
    assert keys == {"1.0.0", "history#0000000001"}


def test_a_claim_answered_into_the_void_is_ours_all_the_same(
    endpoint: str, bucket: str, folder: Path, manifest: Manifest
) -> None:
    settings = aws_settings(endpoint, bucket)
    clients = aws_clients(settings)
    Traffic(clients.dynamodb).lose_answer("PutItem")
    push(AwsStore(settings, clients=clients), manifest, folder)


def test_a_machine_whose_clock_is_wrong_takes_nothing_over(opened: Opener) -> None:
    hours_ahead = opened()
    hours_ahead._table._wall = lambda: time.time() + 7200  # as its clock says
    with opened().begin("demo", "1.0.0", revision="a" * 64, actor="ada"):
        with pytest.raises(ConflictError), hours_ahead.begin("demo", "1.0.0", revision="a" * 64, actor="bob"):
            pass


def test_a_push_over_a_version_that_came_to_be_meanwhile_writes_nothing(
    opened: Opener, folder: Path, tmp_path: Path, manifest: Manifest
) -> None:
    push(opened(), manifest, folder)
    others = manifest_of(OTHERS)
    with opened().begin("demo", "1.0.0", revision=others.revision, actor="bob") as upload:
        upload.send(entry_of("config.json", OTHERS["config.json"]), tmp_path / "nowhere", still)
        with pytest.raises(ConflictError, match="another revision"):
            next_event(opened(), others)
    assert {path: read(opened(), path) for path in FILES} == FILES
