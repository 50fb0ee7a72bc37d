"""What is in the DynamoDB table, answers of it that get lost, and what others wrote into it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferdock.domain.errors import ConfigError, ConflictError, IntegrityError, RegistryError, UnreachableError
from inferdock.domain.moment import spell
from inferdock.registry import ledger
from inferdock.registry.aws.store import AwsStore
from inferdock.registry.manifest import Engine, encode, make
from tests.support.aws import (
    REGION,
    TABLE,
    Traffic,
    aws_clients,
    aws_settings,
    items_of,
    make_place,
    raw,
    running_aws,
)
from tests.support.registry_values import (
    BY,
    delete,
    manifest_of,
    next_event,
    push,
    send_all,
    versions,
    write,
)

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
NUMBERS = itertools.count()
PREFIX = "team/a/"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_aws() as address:
        yield address


@dataclass
class Bench:
    """A store in an empty bucket."""

    endpoint: str
    table: str
    store: AwsStore
    traffic: Traffic

    def items(self) -> dict[tuple[str, str], dict[str, Any]]:
        found = items_of(self.endpoint, self.table).items()
        return {(name.removeprefix(PREFIX), version): item for (name, version), item in found}

    def put(self, name: str, version: str, **attributes: dict[str, str]) -> None:
        item = {"model_name": {"S": PREFIX + name}, "version": {"S": version}, **attributes}
        raw("dynamodb", self.endpoint).put_item(TableName=self.table, Item=item)


@pytest.fixture
def bench(endpoint: str) -> Bench:
    bucket = f"table-{next(NUMBERS)}"
    make_place(endpoint, bucket, f"{TABLE}-{bucket}")
    settings = aws_settings(endpoint, bucket, prefix=PREFIX)
    clients = aws_clients(settings)
    store = AwsStore(settings, clients=clients)
    return Bench(endpoint, f"{TABLE}-{bucket}", store, Traffic(clients.dynamodb))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", FILES)


def test_a_record_says_what_a_person_looks_for(bench: Bench, folder: Path) -> None:
    manifest = manifest_of(FILES, version="1.10.0")
    push(bench.store, manifest, folder)
    record = bench.items()["demo", "1.10.0"]
    assert record["revision"] == {"S": manifest.revision}
    assert record["size_bytes"] == {"N": str(manifest.size_bytes)}
    assert record["files"] == {"N": "2"}
    assert record["created_by"] == {"S": "ada"}
    assert record["created_at"] == {"S": spell(BY.now)}
    assert record["location"]["S"] == f"{bench.store.location}/models/demo/v1.10.0/"
    assert "docker_image" not in record


def test_a_record_names_the_image(bench: Bench, folder: Path) -> None:
    image = "registry.example/vllm@sha256:" + "0" * 64
    plain = manifest_of(FILES)
    manifest = make(
        name="demo",
        version="1.0.0",
        content=msgspec.structs.replace(plain.content, engine=Engine(image=image)),
        provenance=plain.provenance,
    )
    push(bench.store, manifest, folder)
    assert bench.items()["demo", "1.0.0"]["docker_image"] == {"S": image}


def test_the_index_has_versions_in_semantic_order(bench: Bench, folder: Path) -> None:
    for version in ("1.10.0", "1.9.0", "1.10.0-rc.1"):
        push(bench.store, manifest_of(FILES, version=version), folder)
    found = raw("dynamodb", bench.endpoint).query(
        TableName=bench.table,
        IndexName="by_version_order",
        KeyConditionExpression="model_name = :n AND version_order >= :digits",
        ExpressionAttributeValues={":n": {"S": PREFIX + "demo"}, ":digits": {"S": "0"}},
    )
    assert [item["version"]["S"] for item in found["Items"]] == ["1.9.0", "1.10.0-rc.1", "1.10.0"]


def test_the_record_of_a_deleted_version_is_gone_and_its_history_stays(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(FILES), folder)
    delete(bench.store, "demo", "1.0.0")
    assert set(bench.items()) == {("demo", "history#0000000001"), ("demo", "history#0000000002")}
    assert bench.store.names() == ["demo"]


def test_a_version_is_recorded_once_when_the_answer_of_the_commit_is_lost(bench: Bench, folder: Path) -> None:
    bench.traffic.lose_answer("TransactWriteItems")
    push(bench.store, manifest_of(FILES), folder)
    assert bench.traffic.count("TransactWriteItems") == 2
    assert versions(bench.store) == ["1.0.0"]
    assert len(bench.store.events("demo")) == 1


def test_an_event_is_appended_once_when_the_answer_is_lost(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(FILES), folder)
    event = ledger.move(ledger.fold("demo", bench.store.events("demo")), "champion", "1.0.0", BY)
    assert event is not None
    bench.traffic.lose_answer("TransactWriteItems")
    assert bench.store.append(event)
    assert len(bench.store.events("demo")) == 2


def test_a_long_history_is_read_whole(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(FILES), folder)
    for number in range(40):  # of 4 KB each; a page has 1 MB at most
        state = ledger.fold("demo", bench.store.events("demo"))
        by = ledger.By(actor="ada", now=BY.now, reason="x" * 4000)
        event = ledger.move(state, f"alias-{number}", "1.0.0", by)
        assert event is not None
        assert bench.store.append(event)
    assert len(bench.store.events("demo")) == 41


@pytest.mark.parametrize(
    "attributes",
    [{}, {"event": {"N": "1"}}, {"event": {"S": "{}"}}, {"event": {"S": "[" * 60_000}}, {"event": {"S": "é"}}],
    ids=["nothing", "a number", "no event", "deep", "text"],
)
def test_an_event_that_others_wrote_is_named(bench: Bench, attributes: dict[str, dict[str, str]]) -> None:
    bench.put("demo", "history#0000000001", **attributes)
    with pytest.raises(IntegrityError, match="history#0000000001 of demo in table"):
        bench.store.events("demo")


def test_an_event_under_another_number_is_named(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(FILES), folder)
    bench.put("demo", "history#0000000007", event=bench.items()["demo", "history#0000000001"]["event"])
    with pytest.raises(IntegrityError, match="history#0000000007"):
        bench.store.events("demo")


def test_names_that_are_none_are_left_out(bench: Bench, folder: Path) -> None:
    push(bench.store, manifest_of(FILES), folder)
    bench.put("\x1b[2J", "history#0000000001", version_order={"S": "#history"})
    assert bench.store.names() == ["demo"]


def test_a_record_without_an_event_stops_a_push(bench: Bench) -> None:
    bench.put("demo", "1.0.0", version_order={"S": "x"})
    with pytest.raises(RegistryError, match="was not made by a push"):
        with bench.store.begin("demo", "1.0.0", revision="a" * 64, actor="ada"):
            pass


def test_signatures_of_an_earlier_try_do_not_count(bench: Bench, folder: Path) -> None:
    manifest = manifest_of(FILES)
    with bench.store.begin("demo", "1.0.0", revision=manifest.revision, actor="ada") as upload:
        send_all(upload, manifest, folder)
        stale = next_event(bench.store, manifest_of(FILES, name="demo"))
        push(bench.store, manifest_of(FILES, version="0.1.0"), folder)
        assert not upload.commit(stale, encode(manifest), b"signed")
        assert upload.commit(next_event(bench.store, manifest), encode(manifest), None)
    assert bench.store.manifest("demo", "1.0.0") == (encode(manifest), None)


def test_a_manifest_of_another_try_is_replaced(bench: Bench, folder: Path) -> None:
    first, second = manifest_of(FILES), manifest_of(FILES)
    second = msgspec.structs.replace(
        second, provenance=msgspec.structs.replace(second.provenance, source="another machine")
    )
    stale = next_event(bench.store, first)
    push(bench.store, manifest_of(FILES, version="0.1.0"), folder)
    with bench.store.begin("demo", "1.0.0", revision=first.revision, actor="ada") as upload:
        send_all(upload, first, folder)
        assert not upload.commit(stale, encode(first), None)
    push(bench.store, second, folder)
    assert bench.store.manifest("demo", "1.0.0")[0] == encode(second)


def test_registries_under_different_prefixes_know_nothing_of_each_other(endpoint: str, folder: Path) -> None:
    make_place(endpoint, "shared", f"{TABLE}-shared")
    whole, team, inner = (
        AwsStore(aws_settings(endpoint, "shared", prefix=prefix)) for prefix in ("", "team", "team/inner")
    )
    push(team, manifest_of(FILES), folder)
    push(inner, manifest_of(FILES, version="2.0.0"), folder)
    assert (whole.names(), team.names(), inner.names()) == ([], ["demo"], ["demo"])
    assert (versions(whole), versions(team), versions(inner)) == ([], ["1.0.0"], ["2.0.0"])


def test_a_missing_table_is_named_with_its_cure(endpoint: str) -> None:
    store = AwsStore(aws_settings(endpoint, "nobody"))
    with pytest.raises(UnreachableError, match="no table llm-model-versions-nobody") as caught:
        store.names()
    assert "terraform apply" in caught.value.cure


def test_a_table_without_the_index_is_named(endpoint: str) -> None:
    raw("dynamodb", endpoint).create_table(
        TableName=f"{TABLE}-plain",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "model_name", "KeyType": "HASH"},
            {"AttributeName": "version", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("model_name", "version")],
    )
    with pytest.raises(ConfigError, match="is not one of ours"):
        AwsStore(aws_settings(endpoint, "plain")).names()


def test_a_missing_bucket_is_named_with_its_cure(endpoint: str, folder: Path) -> None:
    make_place(endpoint, "here", f"{TABLE}-gone-bucket")
    store = AwsStore(aws_settings(endpoint, "gone-bucket"))
    with pytest.raises(UnreachableError, match="no bucket gone-bucket") as caught:
        push(store, manifest_of(FILES), folder)
    assert "registry.url" in caught.value.cure
    with pytest.raises(UnreachableError, match="no bucket gone-bucket"):
        store.manifest("demo", "1.0.0")


def test_a_store_without_conditional_writes_is_pushed_to(endpoint: str, folder: Path, tmp_path: Path) -> None:
    make_place(endpoint, "plainest", f"{TABLE}-plainest")
    store = AwsStore(aws_settings(endpoint, "plainest", conditional_writes=False))
    push(store, manifest_of(FILES), folder)
    with pytest.raises(ConflictError):
        push(store, manifest_of({"a": b"1"}), write(tmp_path / "other", {"a": b"1"}))


def test_encryption_is_asked_for_with_each_object(endpoint: str, folder: Path) -> None:
    key = f"arn:aws:kms:{REGION}:123456789012:key/1"
    make_place(endpoint, "secret", f"{TABLE}-secret")
    push(AwsStore(aws_settings(endpoint, "secret", encryption="aws:kms", kms_key_id=key)), manifest_of(FILES), folder)
    for path in (*FILES, "MANIFEST.json"):
        head = raw("s3", endpoint).head_object(Bucket="secret", Key=f"models/demo/v1.0.0/{path}")
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


def test_a_manifest_that_is_too_large_is_not_read(bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(bench.store, manifest_of(FILES), folder)
    monkeypatch.setattr("inferdock.registry.aws.store.MAX_MANIFEST_BYTES", 100)
    with pytest.raises(IntegrityError, match=r"MANIFEST\.json of demo@1\.0\.0 .* larger"):
        bench.store.manifest("demo", "1.0.0")


@pytest.mark.parametrize(("name", "version"), [("../demo", "1.0.0"), ("demo", "../1")])
def test_a_name_that_is_none_never_becomes_a_key(bench: Bench, name: str, version: str) -> None:
    with pytest.raises(ConfigError):
        bench.store.manifest(name, version)
