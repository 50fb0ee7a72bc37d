"""The Terraform module of the registry: style, contract, pages; without the slow part of an apply."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.docs.pages import ROOT, tracked_files
from tests.support.terraform import Terraform, mirror_of_provider, mirrors, without_accounts
from tests.terraform.conftest import MODULE
from tests.terraform.emulator import Emulator

pytestmark = pytest.mark.timeout(300)

BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
DESCRIPTION = re.compile(r'^  description = "(.*)"$', re.MULTILINE)
DEFAULT = re.compile(r"^  default +=(.*)$", re.MULTILINE)
TYPE = re.compile(r"^  type +=(.*)$", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)
RESOURCE = re.compile(r'^resource "(\w+)" "(\w+)"', re.MULTILINE)
SLOW = "aws_s3_bucket_lifecycle_configuration.models"
"""The provider polls for 50 seconds and more until these rules are stable."""


def text_of(name: str) -> str:
    return (MODULE / name).read_text(encoding="utf-8")


def sources() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(MODULE.glob("*.tf")))


def rows_of_blocks(kind: str) -> dict[str, str]:
    """What the README's table has to say of each variable or output."""
    rows = {}
    for found, name, body in BLOCK.findall(sources()):
        if found != kind:
            continue
        cells = [DESCRIPTION.findall(body)[0]]
        if kind == "variable":
            default = DEFAULT.search(body)
            cells = [f"`{TYPE.findall(body)[0].strip()}`", f"`{default[1].strip()}`" if default else "required", *cells]
        rows[name] = " | ".join(cells)
    return rows


def rows_of_readme(heading: str) -> dict[str, str]:
    section = text_of("README.md").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {name: cells.strip() for name, cells in ROW.findall(section)}


@pytest.mark.parametrize(("kind", "heading"), [("variable", "Inputs"), ("output", "Outputs")])
def test_the_readme_describes_each(kind, heading):
    assert rows_of_readme(heading) == rows_of_blocks(kind)


def test_the_lock_file_is_of_the_wanted_provider_and_knows_packages_of_other_platforms():
    lock = text_of(".terraform.lock.hcl")
    wanted = re.findall(r'source  = "hashicorp/aws"\s+version = "(.*)"', text_of("versions.tf"))
    assert re.findall(r'constraints = "(.*)"', lock) == wanted
    assert len(re.findall(r'"zh:[0-9a-f]{64}"', lock)) > 10


def test_no_state_and_no_values_are_tracked():
    forbidden = re.compile(r"\.tfstate|\.tfvars|\.tfplan|/\.terraform/")
    assert [str(path) for path in tracked_files() if forbidden.search(str(path))] == []


def test_the_module_names_no_account_no_region_and_no_endpoint():
    assert not re.search(r'provider "|access_key|secret_key|endpoints|region +=|backend "', sources())


def test_what_could_lead_to_a_real_account_does_not_reach_terraform():
    given = {"AWS_PROFILE": "p", "AWS_SESSION_TOKEN": "t", "TF_VAR_environment": "x", "HOME": "h", "PATH": "p"}
    assert without_accounts(given) == {"HOME": "h", "PATH": "p"}


def test_a_mirror_that_is_named_comes_first(tmp_path):
    (tmp_path / "registry.terraform.io/hashicorp/aws/5.100.0/linux_amd64").mkdir(parents=True)
    environment = {"TF_PROVIDER_MIRROR": str(tmp_path), "HOME": "nowhere"}
    assert next(mirrors(environment)) == tmp_path
    assert mirror_of_provider(environment, "5.100.0") == tmp_path


def test_a_mirror_without_the_locked_version_is_none(tmp_path):
    (tmp_path / "registry.terraform.io/hashicorp/aws/5.100.0/linux_amd64").mkdir(parents=True)
    environment = {"TF_PROVIDER_MIRROR": str(tmp_path), "HOME": "nowhere"}
    assert mirror_of_provider(environment, "0.0.1") is None


def test_the_module_is_formatted(terraform: Terraform):
    terraform.run("fmt", "-check", "-recursive", "-diff")


def test_the_module_is_valid_without_a_warning(terraform: Terraform):
    found = json.loads(terraform.run("validate", "-json"))
    assert (found["valid"], found["diagnostics"]) == (True, [])


def test_the_contract_of_the_module_holds(terraform: Terraform):
    assert re.search(r"Success! \d+ passed, 0 failed", terraform.run("test", "-no-color"))


@pytest.fixture(scope="module")
def encrypted(terraform: Terraform, emulator: Emulator, tmp_path_factory) -> tuple[Terraform, str]:
    """The module with a KMS key, all but the lifecycle rules; and the key's ARN."""
    arn = emulator.client("kms").create_key()["KeyMetadata"]["Arn"]
    here = terraform.of_copy(tmp_path_factory.mktemp("encrypted") / "module", **emulator.environment)
    targets = [f"-target={kind}.{name}" for kind, name in RESOURCE.findall(sources()) if f"{kind}.{name}" != SLOW]
    here.apply("-var=environment=kms", f"-var=kms_key_arn={arn}", "-var=table_name=kms-versions", *targets)
    return here, arn


def test_a_key_encrypts_bucket_and_table(encrypted: tuple[Terraform, str], emulator: Emulator):
    outputs, arn = encrypted[0].outputs(), encrypted[1]
    s3, dynamodb = emulator.client("s3"), emulator.client("dynamodb")
    found = s3.get_bucket_encryption(Bucket=outputs["bucket"])["ServerSideEncryptionConfiguration"]["Rules"]
    assert found[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": arn}
    assert found[0]["BucketKeyEnabled"]
    table = dynamodb.describe_table(TableName=outputs["table"])["Table"]
    assert table["SSEDescription"]["KMSMasterKeyArn"] == arn
    assert table["DeletionProtectionEnabled"]


def test_the_bucket_refuses_plain_http_and_other_keys(encrypted: tuple[Terraform, str], emulator: Emulator):
    outputs, arn = encrypted[0].outputs(), encrypted[1]
    policy = json.loads(emulator.client("s3").get_bucket_policy(Bucket=outputs["bucket"])["Policy"])
    conditions = {statement["Sid"]: statement["Condition"] for statement in policy["Statement"]}
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Deny"}
    assert conditions["OnlyTls"] == {"Bool": {"aws:SecureTransport": "false"}}
    named = "s3:x-amz-server-side-encryption-aws-kms-key-id"
    assert conditions["OnlyThisKey"] == {"Null": {named: "false"}, "StringNotEquals": {named: arn}}


def allowed(policy: dict[str, Any], action: str, resource: str, context: dict[str, str]) -> bool:
    """Whether the policy, which has Allow statements only, allows an action in a context."""
    return any(
        action in statement["Action"]
        and any(re.fullmatch(re.escape(arn).replace(r"\*", ".*"), resource) for arn in statement["Resource"])
        and all(
            context.get(key) in values
            for wanted in statement.get("Condition", {}).values()
            for key, values in wanted.items()
        )
        for statement in policy["Statement"]
    )


FILE, OTHER_FILE, BUCKET = "bucket_arn/models/m/v1.0.0/config.json", "bucket_arn/logs/1", "bucket_arn"
TABLE, INDEX = "table_arn", "table_arn/index/by_version_order"
RIGHTS = [
    # action, resource, who may
    ("s3:GetObject", FILE, {"push", "pull", "admin"}),
    ("s3:GetObject", OTHER_FILE, set()),
    ("s3:PutObject", FILE, {"push", "admin"}),
    ("s3:PutObject", OTHER_FILE, set()),
    ("s3:ListBucket", BUCKET, {"push", "pull", "admin"}),
    ("s3:AbortMultipartUpload", FILE, {"push", "admin"}),
    ("s3:ListMultipartUploadParts", FILE, {"push", "admin"}),
    ("s3:ListBucketMultipartUploads", BUCKET, {"push", "admin"}),
    ("s3:DeleteObject", FILE, {"admin"}),
    ("s3:DeleteObjectVersion", FILE, {"admin"}),
    ("s3:DeleteBucket", BUCKET, set()),
    ("s3:PutBucketPolicy", BUCKET, set()),
    ("s3:PutBucketVersioning", BUCKET, set()),
    ("dynamodb:GetItem", TABLE, {"push", "pull", "admin"}),
    ("dynamodb:Query", TABLE, {"push", "pull", "admin"}),
    ("dynamodb:Query", INDEX, {"push", "pull", "admin"}),
    ("dynamodb:Scan", INDEX, {"push", "pull", "admin"}),
    ("dynamodb:Scan", TABLE, {"admin"}),
    ("dynamodb:PutItem", TABLE, {"push", "admin"}),
    ("dynamodb:UpdateItem", TABLE, {"push", "admin"}),
    ("dynamodb:DeleteItem", TABLE, {"admin"}),
    ("dynamodb:DeleteItem in TransactWriteItems", TABLE, {"push", "admin"}),
    ("dynamodb:DeleteTable", TABLE, set()),
    ("dynamodb:UpdateTable", TABLE, set()),
]


@pytest.mark.parametrize(("action", "resource", "who"), RIGHTS, ids=[f"{row[0]} {row[1]}" for row in RIGHTS])
def test_only_those_who_need_it_have_the_right(policies: dict[str, Any], action, resource, who):
    place, _, rest = resource.partition("/")
    arn = f"{policies[place]}/{rest}" if rest else policies[place]
    action, _, around = action.partition(" in ")
    context = {"dynamodb:EnclosingOperation": around}
    assert {name for name in ("push", "pull", "admin") if allowed(policies[name], action, arn, context)} == who


@pytest.fixture(scope="module")
def policies(encrypted: tuple[Terraform, str], emulator: Emulator) -> dict[str, Any]:
    """Documents of the policies as IAM has them, by their name, with the ARNs of bucket and table."""
    iam, outputs = emulator.client("iam"), encrypted[0].outputs()
    documents = {}
    for name, arn in outputs["policy_arns"].items():
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        documents[name] = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    assert documents == {name: json.loads(text) for name, text in outputs["policy_documents"].items()}
    return {**documents, "bucket_arn": outputs["bucket_arn"], "table_arn": outputs["table_arn"]}


ACTIONS_OF_CALL = {
    "head_object": {"s3:GetObject"},
    "get_object": {"s3:GetObject"},
    "put_object": {"s3:PutObject"},
    "copy_object": {"s3:GetObject", "s3:PutObject"},
    "create_multipart_upload": {"s3:PutObject"},
    "upload_part": {"s3:PutObject"},
    "upload_part_copy": {"s3:GetObject", "s3:PutObject"},
    "complete_multipart_upload": {"s3:PutObject"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "list_parts": {"s3:ListMultipartUploadParts"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "list_objects_v2": {"s3:ListBucket"},
    "delete_object": {"s3:DeleteObject"},
    "delete_objects": {"s3:DeleteObject"},
    "get_item": {"dynamodb:GetItem"},
    "put_item": {"dynamodb:PutItem"},
    "update_item": {"dynamodb:UpdateItem"},
    "delete_item": {"dynamodb:DeleteItem"},
    "query": {"dynamodb:Query"},
    "scan": {"dynamodb:Scan"},
    "transact_write_items": {"dynamodb:PutItem", "dynamodb:DeleteItem"},
}
FOR_PEOPLE = {"s3:DeleteObjectVersion", "s3:GetObjectVersion", "s3:ListBucketVersions", "dynamodb:DescribeTable"}
"""What an administrator does with other tools: bringing deleted models back."""


def calls_of_aws(emulator: Emulator) -> set[str]:
    """Operations of S3 and DynamoDB that our code names, as methods or as pages."""
    folder = ROOT / "src" / "inferdock" / "registry" / "aws"
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))
    named = set(re.findall(r"\.(\w+)\(", text)) | set(re.findall(r'get_paginator\("(\w+)"', text))
    known = set().union(*(emulator.client(name).meta.method_to_api_mapping for name in ("s3", "dynamodb")))
    return (named & known) - {"get_paginator"}


def test_the_policies_allow_what_our_code_calls_and_no_more(policies: dict[str, Any], emulator: Emulator):
    needed = set().union(*(ACTIONS_OF_CALL[call] for call in calls_of_aws(emulator)))
    given = {action for statement in policies["admin"]["Statement"] for action in statement["Action"]}
    assert {action for action in given if not action.startswith("kms:")} == needed | FOR_PEOPLE
