"""What AWS answers, in our words: the right kind of error, what it names, and what it never repeats."""

from __future__ import annotations

import re
from typing import Any

import botocore.exceptions as boto
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from inferdock.domain.errors import ConfigError, InferdockError, ResourceError, UnreachableError
from inferdock.registry.aws.errors import DeniedError, Edge

EDGE = Edge(bucket="models-prod", table="llm-model-versions")
SECRET = "wJalrXUtnFEMI"


def refused(
    code: str, message: str = "", *, status: int = 400, operation: str = "PutObject", **headers: str
) -> ClientError:
    response: dict[str, Any] = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return ClientError(response, operation)


ANSWERS = {
    "denied": (
        refused("AccessDenied", "User: arn:aws:iam::1:user/ada is not authorized to perform: s3:PutObject"),
        DeniedError,
        r"may not write it: PutObject was refused \(User.*s3:PutObject",
        "policy push",
    ),
    "denied without words": (refused("403", status=403, operation="HeadObject"), DeniedError, "HeadObject", "policy"),
    "denied by the key": (
        refused("AccessDenied", "not authorized to perform: kms:GenerateDataKey on resource"),
        UnreachableError,
        "key that encrypts s3://models-prod",
        "kms:GenerateDataKey",
    ),
    "key switched off": (refused("KMS.DisabledException", "off"), UnreachableError, "key that encrypts", "Enable"),
    "no bucket": (refused("NoSuchBucket", status=404), UnreachableError, "no bucket models-prod", "terraform apply"),
    "no table": (
        refused("ResourceNotFoundException", operation="Query"),
        UnreachableError,
        "no table llm-model-versions",
        "registry.s3.table",
    ),
    "no index": (
        refused("ValidationException", "The table does not have the specified index: by_version_order"),
        ConfigError,
        "not one of ours",
        "Terraform",
    ),
    "expired": (refused("ExpiredToken"), UnreachableError, "have expired", "aws sso login"),
    "expired, of the table": (refused("ExpiredTokenException"), UnreachableError, "have expired", "aws sso login"),
    "unknown key": (refused("InvalidAccessKeyId"), UnreachableError, "does not accept our credentials", "AWS_PROFILE"),
    "wrong secret": (
        refused("SignatureDoesNotMatch", f"we calculated {SECRET}"),
        UnreachableError,
        "does not accept our credentials",
        "AWS_PROFILE",
    ),
    "unknown client": (refused("UnrecognizedClientException"), UnreachableError, "does not accept", "AWS_PROFILE"),
    "clock": (refused("RequestTimeTooSkewed", status=403), UnreachableError, "clock is wrong", "timedatectl"),
    "clock, of the table": (
        refused("InvalidSignatureException", "Signature expired: 2020 is now earlier than 2026"),
        UnreachableError,
        "clock is wrong",
        "timedatectl",
    ),
    "wrong secret, of the table": (
        refused("InvalidSignatureException", f"The request signature we calculated, {SECRET}, does not match"),
        UnreachableError,
        "does not accept",
        "AWS_PROFILE",
    ),
    "region": (
        refused("PermanentRedirect", status=301, **{"x-amz-bucket-region": "eu-central-1"}),
        ConfigError,
        "another region, eu-central-1",
        "registry.s3.region to eu-central-1",
    ),
    "region without a name": (refused("301", status=301), ConfigError, r"another region\.", "registry.s3.region"),
    "slow down": (refused("SlowDown", status=503), UnreachableError, "S3 could not .* fewer requests", "threads"),
    "throttled": (
        refused("ProvisionedThroughputExceededException", operation="Query"),
        UnreachableError,
        "DynamoDB could not .* fewer requests",
        "threads",
    ),
    "failure": (refused("InternalError", status=500), UnreachableError, "failure of its own", "again"),
    "bad gateway": (refused("502", status=502), UnreachableError, "failure of its own", "again"),
    "no conditions": (
        refused("NotImplemented", "A header you provided implies functionality", status=501),
        ConfigError,
        "does not offer what PutObject asks for",
        "conditional_writes: false",
    ),
    "name": (refused("InvalidBucketName"), ConfigError, "no name of a bucket", "registry.url"),
    "full": (refused("XMinioStorageFull", status=507), ResourceError, "is full", "room"),
    "damaged": (refused("BadDigest"), UnreachableError, "other bytes than were sent", "again"),
    "anything": (
        refused("Weird\x1b", "odd\x1b[2Jwords" * 100),
        UnreachableError,
        r"could not write it: PutObject was answered with Weird",
        "endpoint_url",
    ),
}


@pytest.mark.parametrize(("answer", "kind", "says", "cure"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_becomes_a_sentence_and_a_cure(
    answer: ClientError, kind: type[InferdockError], says: str, cure: str
) -> None:
    error = EDGE.translated(answer, "write it")
    assert type(error) is kind
    assert re.search(says, error.message)
    assert cure in error.cure
    assert SECRET not in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 800


SIGNED = "https://ada:pass@models-prod.s3.amazonaws.com/key?X-Amz-Signature=wJalrXUtnFEMI"
FAILURES: dict[str, tuple[BotoCoreError, type[InferdockError], str, str]] = {
    "no credentials": (boto.NoCredentialsError(), UnreachableError, "no credentials", "AWS_PROFILE"),
    "half of them": (
        boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        UnreachableError,
        "not complete",
        "AWS_SECRET_ACCESS_KEY",
    ),
    "sso": (boto.UnauthorizedSSOTokenError(), UnreachableError, "login", "aws sso login"),
    "token": (boto.TokenRetrievalError(provider="sso", error_msg=SECRET), UnreachableError, "login", "aws sso login"),
    "profile": (boto.ProfileNotFound(profile="nobody"), ConfigError, "no such AWS profile", "AWS_PROFILE"),
    "region": (boto.NoRegionError(), ConfigError, "No AWS region", "registry.s3.region"),
    "unreachable": (
        boto.EndpointConnectionError(endpoint_url=SIGNED),
        UnreachableError,
        r"https://models-prod\.s3\.amazonaws\.com does not answer",
        "endpoint_url",
    ),
    "silent": (
        boto.ReadTimeoutError(endpoint_url=SIGNED),
        UnreachableError,
        r"https://models-prod\.s3\.amazonaws\.com does not answer",
        "endpoint_url",
    ),
    "certificate": (
        boto.SSLError(endpoint_url=SIGNED, error="self-signed"),
        UnreachableError,
        "certificate",
        "AWS_CA_BUNDLE",
    ),
    "name": (boto.ParamValidationError(report="Invalid bucket name"), ConfigError, "refuses a name", "registry.url"),
    "anything": (boto.UnknownKeyError(value="x", param="y", choices="z"), UnreachableError, "UnknownKeyError", "AWS"),
}


@pytest.mark.parametrize(("failure", "kind", "says", "cure"), FAILURES.values(), ids=FAILURES)
def test_a_failure_of_the_library_becomes_a_sentence_and_a_cure(
    failure: BotoCoreError, kind: type[InferdockError], says: str, cure: str
) -> None:
    error = EDGE.translated(failure, "write it")
    assert type(error) is kind
    assert re.search(says, error.message)
    assert cure in error.cure
    assert SECRET not in str(error)
    assert "pass" not in str(error)


def test_the_cause_stays_with_the_error() -> None:
    cause = refused("SlowDown")
    with pytest.raises(UnreachableError) as caught, EDGE.doing("write it"):
        raise cause
    assert caught.value.__cause__ is cause
