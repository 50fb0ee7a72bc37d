"""The unmodified module, applied in full on an emulator of AWS, used, and destroyed.

Slow by nature: one apply takes the provider about a minute (lifecycle rules). Tests of Inferdock on what Terraform made
belong here too: ``applied_registry.environment`` is all that they need.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from inferdock.config.load import load
from tests.docs.pages import ROOT
from tests.support.terraform import skip_or_fail, without_accounts
from tests.terraform.conftest import FOR_TRIALS, AppliedRegistry

pytestmark = pytest.mark.timeout(400)

INFERDOCK = (sys.executable, "-m", "inferdock.cli.main")
FILE = "models/tiny/v1.0.0/config.json"


def aws(registry: AppliedRegistry, *words: str) -> str:
    """Run the AWS command line; its standard output. Skips where the program is missing."""
    if shutil.which("aws") is None:
        skip_or_fail("needs the AWS command line (Debian: apt-get install awscli)")
    # The option, because command lines before 2.13 know no AWS_ENDPOINT_URL.
    done = subprocess.run(
        ["aws", "--endpoint-url", registry.emulator.url, *words],
        env=without_accounts(os.environ) | registry.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_second_plan_finds_nothing_to_change(applied_registry: AppliedRegistry):
    words = ["plan", "-detailed-exitcode", "-input=false", "-no-color", "-var=environment=prod", *FOR_TRIALS]
    applied_registry.terraform.run(*words, expect=[0])


def test_names_are_those_of_the_plan(applied_registry: AppliedRegistry):
    assert (applied_registry.bucket, applied_registry.table) == ("llm-model-registry-prod", "llm-model-versions")


def test_inferdock_takes_the_names_from_the_outputs(applied_registry: AppliedRegistry, tmp_path):
    file = tmp_path / "inferdock.yaml"
    file.write_text(applied_registry.outputs["inferdock_config"], encoding="utf-8")
    environment = applied_registry.outputs["inferdock_environment"]
    loaded = [load(file=file, env={}, flags={}), load(file=None, env=environment, flags={})]
    found = [(settings.registry.url, settings.registry.s3.table) for settings in (each.settings for each in loaded)]
    assert found == [("s3://llm-model-registry-prod", "llm-model-versions")] * 2


def test_the_bucket_keeps_old_versions_encrypts_and_is_not_public(applied_registry: AppliedRegistry):
    s3, bucket = applied_registry.emulator.client("s3"), applied_registry.bucket
    encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    ownership = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert ownership == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}


def test_incomplete_uploads_and_old_versions_expire(applied_registry: AppliedRegistry):
    s3 = applied_registry.emulator.client("s3")
    found = s3.get_bucket_lifecycle_configuration(Bucket=applied_registry.bucket)["Rules"]
    rules = {rule["ID"]: rule for rule in found}
    assert {rule["Status"] for rule in found} == {"Enabled"}
    assert rules["incomplete-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rules["old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert rules["old-versions"]["Expiration"] == {"ExpiredObjectDeleteMarker": True}


def test_the_table_is_billed_by_request_sorted_and_can_be_set_back(applied_registry: AppliedRegistry):
    dynamodb, name = applied_registry.emulator.client("dynamodb"), applied_registry.table
    table = dynamodb.describe_table(TableName=name)["Table"]
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    index = table["LocalSecondaryIndexes"][0]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert [(key["AttributeName"], key["KeyType"]) for key in table["KeySchema"]] == [
        ("model_name", "HASH"),
        ("version", "RANGE"),
    ]
    assert (index["IndexName"], index["Projection"]) == ("by_version_order", {"ProjectionType": "ALL"})
    assert index["KeySchema"][1]["AttributeName"] == "version_order"
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_dynamodb_deletes_nothing_by_itself(applied_registry: AppliedRegistry):
    dynamodb = applied_registry.emulator.client("dynamodb")
    found = dynamodb.describe_time_to_live(TableName=applied_registry.table)["TimeToLiveDescription"]
    assert found["TimeToLiveStatus"] == "DISABLED"


def test_versions_come_back_in_the_order_of_their_numbers(applied_registry: AppliedRegistry):
    dynamodb, table = applied_registry.emulator.client("dynamodb"), applied_registry.table
    items = [("1.10.0", "00001.00010"), ("1.9.0", "00001.00009"), ("history#0000000001", None), ("push#2.0.0", None)]
    for version, order in items:
        item = {"model_name": {"S": "ordered"}, "version": {"S": version}}
        dynamodb.put_item(TableName=table, Item=item | ({"version_order": {"S": order}} if order else {}))
    found = dynamodb.query(
        TableName=table,
        IndexName="by_version_order",
        KeyConditionExpression="model_name = :name",
        ExpressionAttributeValues={":name": {"S": "ordered"}},
    )
    assert [item["version"]["S"] for item in found["Items"]] == ["1.9.0", "1.10.0"]


def test_the_plans_commands_show_what_is_there(applied_registry: AppliedRegistry):
    applied_registry.emulator.client("s3").put_object(Bucket=applied_registry.bucket, Key=FILE, Body=b"{}")
    item = {"model_name": {"S": "tiny"}, "version": {"S": "1.0.0"}}
    applied_registry.emulator.client("dynamodb").put_item(TableName=applied_registry.table, Item=item)
    assert "PRE models/" in aws(applied_registry, "s3", "ls", "s3://llm-model-registry-prod/")
    assert "config.json" in aws(applied_registry, "s3", "ls", "s3://llm-model-registry-prod/models/tiny/v1.0.0/")
    scanned = aws(applied_registry, "dynamodb", "scan", "--table-name", "llm-model-versions", "--output", "json")
    assert item in json.loads(scanned)["Items"]


def refused(call: Callable[..., Any], **arguments: Any) -> bool:
    """Whether the emulator refuses the call for want of rights; any other error is raised."""
    try:
        call(**arguments)
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return True
    return False


@contextlib.contextmanager
def client_of(registry: AppliedRegistry, user: str) -> Iterator[Any]:
    """S3 for a user who has one of the policies and nothing else."""
    iam, policy = registry.emulator.client("iam"), registry.outputs["policy_arns"][user]
    iam.create_user(UserName=user)
    iam.attach_user_policy(UserName=user, PolicyArn=policy)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    try:
        with registry.emulator.checking_rights():
            yield registry.emulator.client("s3", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    finally:
        iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])
        iam.detach_user_policy(UserName=user, PolicyArn=policy)
        iam.delete_user(UserName=user)


@pytest.mark.parametrize(
    ("user", "can"),
    [
        ("pull", ["read", "list"]),
        ("push", ["read", "list", "write", "copy"]),
        ("admin", ["read", "list", "write", "copy", "delete"]),
    ],
)
def test_a_user_with_the_policy_can_do_no_more_than_it_says(applied_registry: AppliedRegistry, user, can):
    bucket = applied_registry.bucket
    where = {"Bucket": bucket, "Key": f"models/{user}/v1.0.0/config.json"}
    applied_registry.emulator.client("s3").put_object(**where, Body=b"{}")
    with client_of(applied_registry, user) as s3:
        calls = {
            "read": (s3.get_object, where),
            "list": (s3.list_objects_v2, {"Bucket": bucket, "Prefix": "models/"}),
            "write": (s3.put_object, {**where, "Body": b"[]"}),
            "copy": (s3.copy_object, {**where, "Key": "models/copy", "CopySource": where}),
            "write elsewhere": (s3.put_object, {"Bucket": bucket, "Key": "elsewhere"}),
            "delete": (s3.delete_object, where),
            "open": (s3.delete_public_access_block, {"Bucket": bucket}),
        }
        assert [name for name, (call, words) in calls.items() if not refused(call, **words)] == can


def inferdock(registry: AppliedRegistry, *words: str, script: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `inferdock model ...`, or scripts/upload_model.py, as somebody who has only the module's outputs."""
    command = [sys.executable, str(ROOT / "scripts" / "upload_model.py")] if script else [*INFERDOCK, "model"]
    return subprocess.run(
        [*command, *words],
        env=without_accounts(os.environ) | registry.environment | {"AWS_ENDPOINT_URL": registry.emulator.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_models_are_pushed_listed_verified_and_pulled_on_what_terraform_made(applied_registry, tmp_path):
    demo = ROOT / "models" / "demo"
    words = ("--model-path", str(demo), "--version", "1.0.0", "--model-name", "test")
    uploaded = inferdock(applied_registry, *words, script=True)
    assert uploaded.returncode == 0, uploaded.stderr
    words = ("push", str(demo), "--name", "test", "--version", "1.10.0", "--alias", "champion")
    again = inferdock(applied_registry, *words)
    assert again.returncode == 0, again.stderr
    assert "0 files sent" in again.stderr
    listed = json.loads(inferdock(applied_registry, "list", "test", "-o", "json").stdout)
    assert [row["version"] for row in listed] == ["1.0.0", "1.10.0"]
    verified = inferdock(applied_registry, "verify", "--all", "test")
    assert verified.returncode == 0, verified.stderr
    pulled = inferdock(applied_registry, "pull", "test", "--to", str(tmp_path / "model"))
    assert pulled.returncode == 0, pulled.stderr
    for file in demo.iterdir():
        assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes()


def test_the_plans_definition_of_done_holds_for_an_upload(applied_registry: AppliedRegistry):
    folder = "s3://llm-model-registry-prod/models/test/v1.0.0/"
    shown = aws(applied_registry, "s3", "ls", folder)
    demo = ROOT / "models" / "demo"
    there = {line.split()[-1] for line in shown.splitlines()}
    assert there == {file.name for file in demo.iterdir()} | {"MANIFEST.json"}
    manifest = json.loads(aws(applied_registry, "s3", "cp", f"{folder}MANIFEST.json", "-"))
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in demo.iterdir()}
    assert {entry["path"]: entry["sha256"] for entry in manifest["content"]["files"]} == digests
    scanned = json.loads(
        aws(applied_registry, "dynamodb", "scan", "--table-name", "llm-model-versions", "--output", "json")
    )
    records = [item for item in scanned["Items"] if item["version"] == {"S": "1.0.0"} and "revision" in item]
    assert [record["revision"]["S"] for record in records] == [manifest["revision"]]
