"""Stores that only resemble S3, rights that are missing, places that are none."""

from __future__ import annotations

import contextlib
import io
import itertools
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from inferdock.domain.errors import ConfigError, InferdockError, IntegrityError, UnreachableError
from inferdock.registry.aws.client import Clients
from inferdock.registry.aws.store import AwsStore
from inferdock.registry.manifest import encode
from tests.support.aws import (
    TABLE,
    Traffic,
    aws_clients,
    aws_settings,
    make_place,
    raw,
    running_aws,
)
from tests.support.registry_values import delete, manifest_of, next_event, push, read, send_all, versions, write

PART = 5 * 1024 * 1024
FILES = {"config.json": b"{}", "model.safetensors": b"a" * PART + b"b" * 100}
OTHERS = {"config.json": b"[]", "more.json": b"1"}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_aws() as address:
        yield address


@dataclass
class Bench:
    """A store in an empty bucket whose clients a test may spoil."""

    store: AwsStore
    clients: Clients

    def answer(self, operation: str, status: int, body: bytes, *, times: int = sys.maxsize) -> None:
        """From now on this is what the server says, so many times."""
        left = itertools.count(times, -1)

        def reply(request: Any, **_: Any) -> AWSResponse | None:
            return AWSResponse(request.url, status, {}, _Raw(body)) if next(left) > 0 else None

        self.clients.s3.meta.events.register(f"before-send.s3.{operation}", reply)

    def without_checksums(self) -> None:
        """As stores do that know no SHA-256."""

        def forget(parsed: dict[str, Any], **_: Any) -> None:
            parsed.pop("ChecksumSHA256", None)

        self.clients.s3.meta.events.register("after-call.s3", forget)

    def change_what_is_sent(self, operation: str) -> None:
        """As a broken cable would, if there were no checksums."""

        def change(request: Any, **_: Any) -> None:
            request.body.seek(0)
            request.body = io.BytesIO(b"X" + request.body.read()[1:])

        self.clients.s3.meta.events.register(f"before-send.s3.{operation}", change)


class _Raw:
    """A body as the library reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


@pytest.fixture
def bench(endpoint: str) -> Bench:
    bucket = f"others-{next(NUMBERS)}"
    make_place(endpoint, bucket, f"{TABLE}-{bucket}")
    settings = aws_settings(endpoint, bucket, threads=2, part_bytes=PART)
    clients = aws_clients(settings)
    return Bench(AwsStore(settings, clients=clients), clients)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", FILES)


def test_who_may_not_delete_pushes_over_what_another_push_left(bench: Bench, folder: Path, tmp_path: Path) -> None:
    others = manifest_of(OTHERS)
    with bench.store.begin("demo", "1.0.0", revision=others.revision, actor="bob") as upload:
        send_all(upload, others, write(tmp_path / "others", OTHERS))
    bench.answer("DeleteObjects", 403, b"<Error><Code>AccessDenied</Code></Error>")
    push(bench.store, manifest_of(FILES), folder)
    assert {path: read(bench.store, path) for path in FILES} == FILES


def test_who_may_not_delete_one_of_many_is_told(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(FILES), folder)
    body = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    bench.answer("DeleteObjects", 200, body)
    with pytest.raises(UnreachableError, match="DeleteObjects was refused"):
        delete(bench.store, "demo", "1.0.0")
    assert versions(bench.store) == []


def test_a_store_that_removes_one_by_one_only_is_emptied(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(FILES), folder)
    bench.answer("DeleteObjects", 501, b"<Error><Code>NotImplemented</Code></Error>")
    delete(bench.store, "demo", "1.0.0")
    with pytest.raises(IntegrityError):
        read(bench.store, "config.json")


def test_more_files_than_one_answer_holds_are_all_removed(bench: Bench, endpoint: str) -> None:
    s3, bucket = raw("s3", endpoint), bench.store.location.removeprefix("s3://")

    def left() -> int:
        return len(s3.list_objects_v2(Bucket=bucket).get("Contents", ()))

    def put(number: int) -> None:
        s3.put_object(Bucket=bucket, Key=f"models/demo/v1.0.0/{number}", Body=b"")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(1005)))
    assert left() == 1000
    bench.store.remove("demo", "1.0.0")
    assert left() == 0


def test_a_store_without_conditions_says_what_to_set(bench: Bench, folder: Path) -> None:
    bench.answer("PutObject", 501, b"<Error><Code>NotImplemented</Code><Message>A header</Message></Error>")
    with pytest.raises(ConfigError) as caught:
        push(bench.store, manifest_of(FILES), folder)
    assert "registry.s3.conditional_writes: false" in caught.value.cure


def test_a_store_without_checksums_is_read_back(bench: Bench, folder: Path) -> None:
    bench.without_checksums()
    traffic = Traffic(bench.clients.s3)
    push(bench.store, manifest_of(FILES), folder)
    assert traffic.count("GetObject") == 3  # two files and the manifest
    assert {path: read(bench.store, path) for path in FILES} == FILES


@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
def test_other_bytes_that_arrive_are_noticed(bench: Bench, folder: Path, operation: str) -> None:
    bench.without_checksums()
    bench.change_what_is_sent(operation)
    with pytest.raises(IntegrityError, match="Other bytes of"):
        push(bench.store, manifest_of(FILES), folder)
    assert versions(bench.store) == []


def test_other_bytes_in_a_part_are_noticed_by_the_checksum_of_checksums(bench: Bench, folder: Path) -> None:
    bench.change_what_is_sent("UploadPart")
    with pytest.raises(IntegrityError, match="Other bytes of"):
        push(bench.store, manifest_of(FILES), folder)


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_an_upload_that_somebody_gave_up_meanwhile_is_begun_anew(bench: Bench, folder: Path, operation: str) -> None:
    bench.answer(operation, 404, b"<Error><Code>NoSuchUpload</Code></Error>", times=1)
    traffic = Traffic(bench.clients.s3)
    manifest = manifest_of(FILES)
    moved: list[int] = []
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        for entry in manifest.content.files:
            upload.send(entry, folder / entry.path, moved.append)
        assert upload.commit(next_event(bench.store, manifest), encode(manifest), None)
    assert traffic.count("CreateMultipartUpload") == 2
    assert sum(moved) == manifest.size_bytes
    assert {path: read(bench.store, path) for path in FILES} == FILES


@pytest.mark.parametrize("code", ["SlowDown", "InternalError"])
def test_a_store_that_is_busy_for_a_while_is_asked_again(bench: Bench, folder: Path, code: str) -> None:
    for operation in ("HeadObject", "PutObject", "UploadPart", "CompleteMultipartUpload"):
        bench.answer(operation, 503, f"<Error><Code>{code}</Code></Error>".encode(), times=1)
    push(bench.store, manifest_of(FILES), folder)
    assert {path: read(bench.store, path) for path in FILES} == FILES


@pytest.mark.usefixtures("endpoint")
def test_a_place_where_nothing_answers_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        settings = aws_settings(f"http://127.0.0.1:{taken.getsockname()[1]}", "nowhere")
        store = AwsStore(settings, clients=aws_clients(settings))
        with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:\d+ does not answer"):
            store.names()


CALLS: dict[str, Callable[[AwsStore], object]] = {
    "names": lambda store: store.names(),
    "events": lambda store: store.events("demo"),
    "manifest": lambda store: store.manifest("demo", "1.0.0"),
    "remove": lambda store: store.remove("demo", "1.0.0"),
}
BODIES = {"page": b"<html>Welcome to nginx</html>", "none": b"", "half": b"{", "list": b"[]", "bytes": b"\x00\xff"}


@contextlib.contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server that says the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_server_that_is_something_else_raises_only_what_the_command_line_tells(
    call: Callable[[AwsStore], object], body: bytes
) -> None:
    with answering(body) as address, contextlib.suppress(InferdockError):
        settings = aws_settings(address, "elsewhere")
        call(AwsStore(settings, clients=aws_clients(settings)))


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("body", [BODIES["page"], BODIES["list"], BODIES["bytes"]], ids=["page", "list", "bytes"])
def test_a_server_that_is_something_else_is_told_apart(body: bytes) -> None:
    with answering(body) as address:
        settings = aws_settings(address, "elsewhere")
        with pytest.raises(UnreachableError, match="not that of S3 or DynamoDB"):
            AwsStore(settings, clients=aws_clients(settings)).names()


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nothing_set")
def test_a_machine_without_credentials_is_told(endpoint: str) -> None:
    with pytest.raises(UnreachableError, match="no credentials"):
        AwsStore(aws_settings(endpoint, "models")).names()


@pytest.mark.usefixtures("nothing_set")
def test_a_machine_without_a_region_is_told() -> None:
    settings = aws_settings("http://unused", "models")
    plain = settings.s3.model_copy(update={"region": None, "endpoint_url": None, "dynamodb_endpoint_url": None})
    with pytest.raises(ConfigError, match="No AWS region"):
        AwsStore(settings.model_copy(update={"s3": plain}))


def test_a_profile_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="no such AWS profile"):
        AwsStore(aws_settings(endpoint, "models"))


@pytest.mark.parametrize("url", ["no address", "http://", "ftp://x y"])
def test_an_endpoint_that_is_no_address_is_told(url: str) -> None:
    with pytest.raises(ConfigError):
        AwsStore(aws_settings(url, "models")).names()


def test_buckets_are_named_in_the_path_of_stores_that_are_not_aws(endpoint: str) -> None:
    clients = aws_clients(aws_settings("http://minio.example:9000", "models"))
    url = clients.s3.generate_presigned_url("get_object", Params={"Bucket": "models", "Key": "k"})
    assert url.startswith("http://minio.example:9000/models/k")
