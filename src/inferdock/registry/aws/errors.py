"""What AWS says when it does not do something, in our words: the one place where its errors become ours.

Codes that mean a thing to the registry's own steps (a key that is missing, a condition that does not hold) are asked
for with :func:`code_of` before; the rest ends here. Messages name bucket, table and action, and never hold what signs
or opens anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from inferdock.domain.errors import ConfigError, InferdockError, ResourceError, UnreachableError

MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
TAKEN: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "OperationAborted"})
"""A condition of a write does not hold, or somebody else writes the same key right now."""
NO_UPLOAD: Final = frozenset({"NoSuchUpload"})

_TERRAFORM: Final = "run `terraform apply` in terraform/model-registry"
_LOG_IN: Final = "Check AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of this machine."
_AGAIN: Final = "Log in again (`aws sso login`, or new keys), then run the command again: it goes on from here."
_ENDPOINTS: Final = "registry.s3.endpoint_url, registry.s3.dynamodb_endpoint_url and AWS_ENDPOINT_URL"


class DeniedError(UnreachableError):
    """We may not do this, though we may talk to AWS."""


def code_of(exc: ClientError) -> str:
    """The service's word for a failure; the HTTP status where it gave none."""
    error = exc.response.get("Error", {})
    return plain(str(error.get("Code") or status_of(exc) or ""))[:100]


def status_of(exc: ClientError) -> int:
    """The HTTP status of a failure, 0 where there is none."""
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


class Edge:
    """Turns failures of the two clients into ours.

    Args:
        bucket, table: what messages name.
    """

    def __init__(self, *, bucket: str, table: str) -> None:
        self.bucket = bucket
        self.table = table

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Within, a failure of AWS is raised as ours.

        Args:
            what: ends a sentence that begins with "could not", for instance "read config.json of demo@1.0.0".
        """
        try:
            yield
        except (BotoCoreError, ClientError) as exc:
            raise self.translated(exc, what) from exc
        except (ResponseParserError, ValueError, TypeError, LookupError, AttributeError) as exc:
            raise _not_s3(exc) from exc  # the library, or who asked it, stumbled over what a stranger answered

    def translated(self, exc: BotoCoreError | ClientError, what: str) -> InferdockError:
        """Our error for one of theirs."""
        if not isinstance(exc, ClientError):
            return self._of_library(exc, what)
        code = code_of(exc)
        make = _BY_CODE.get(code) or _BY_CODE.get(code.partition(".")[0]) or _BY_STATUS.get(status_of(exc)) or _other
        return make(self, exc, what)

    def _of_library(self, exc: BotoCoreError, what: str) -> InferdockError:
        for kinds, make in _LIBRARY:
            if isinstance(exc, kinds):
                return make(exc)
        return UnreachableError(f"The registry could not {what}: {type(exc).__name__}.", cure=_LOG_IN)


_Make = Callable[[Edge, ClientError, str], InferdockError]


def _other(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    said = _said(exc)
    return UnreachableError(
        f"The registry could not {what}: {exc.operation_name} was answered with {code_of(exc)}{said and f' ({said})'}.",
        cure=f"If this is not AWS, see whether the store offers that; endpoints are {_ENDPOINTS}.",
    )


def _denied(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    said = _said(exc)
    if "kms" in said.lower():
        return _key(edge, exc, what)
    return DeniedError(
        f"We may not {what}: {exc.operation_name} was refused ({said or code_of(exc)}).",
        cure="Attach the policy push, pull or admin of terraform/model-registry to the role that runs this.",
    )


def _key(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return UnreachableError(
        f"The key that encrypts s3://{edge.bucket} cannot be used to {what} ({_said(exc) or code_of(exc)}).",
        cure="Enable the key, and let the role use it (kms:Decrypt, for a push kms:GenerateDataKey); or set "
        "registry.s3.kms_key_id.",
    )


def _bad_login(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return UnreachableError(f"AWS does not accept our credentials ({code_of(exc)}).", cure=_LOG_IN)


def _expired(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return UnreachableError("The credentials for AWS have expired.", cure=_AGAIN)


def _clock(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return UnreachableError(
        "AWS refuses our requests because this machine's clock is wrong by minutes.",
        cure="Set the clock (for instance `timedatectl set-ntp true`), then run the command again.",
    )


def _signature(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    said = _said(exc).lower()
    return (_clock if "expired" in said or "not yet current" in said else _bad_login)(edge, exc, what)


def _no_bucket(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return UnreachableError(
        f"There is no bucket {edge.bucket}.", cure=f"Make it ({_TERRAFORM}), or correct registry.url."
    )


def _not_found(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return UnreachableError(
        f"There is no table {edge.table} in this account and region.",
        cure=f"Make it ({_TERRAFORM}), or set registry.s3.table or registry.s3.region.",
    )


def _validation(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    said = _said(exc)
    if "index" in said or "key" in said.lower():
        return ConfigError(
            f"The table {edge.table} is not one of ours: {said}.",
            cure=f"Let Terraform make one ({_TERRAFORM}), or set registry.s3.table.",
        )
    return _other(edge, exc, what)


def _region(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    headers: Mapping[str, Any] = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = str(headers.get("x-amz-bucket-region") or exc.response.get("Error", {}).get("Region") or "")[:40]
    return ConfigError(
        f"The bucket {edge.bucket} is in another region{f', {plain(region)}' if region else ''}.",
        cure=f"Set registry.s3.region{f' to {plain(region)}' if region else ''}, or AWS_REGION.",
    )


def _bucket_name(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return ConfigError(f"{edge.bucket} is no name of a bucket.", cure="Correct registry.url.")


def _slow(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    service = "DynamoDB" if _is_dynamodb(exc) else "S3"
    return UnreachableError(
        f"{service} could not {what}: it asks for fewer requests ({code_of(exc)}), also after several tries.",
        cure="Run the command again later, it goes on from here; a smaller registry.threads asks less.",
    )


def _failed(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    service = "DynamoDB" if _is_dynamodb(exc) else "S3"
    return UnreachableError(
        f"{service} could not {what}: it had a failure of its own ({code_of(exc)}), also after several tries.",
        cure="Run the command again later: it goes on from here.",
    )


def _not_offered(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return ConfigError(
        f"The store cannot {what}: it does not offer what {exc.operation_name} asks for ({code_of(exc)}).",
        cure="For stores without conditional writes, set registry.s3.conditional_writes: false.",
    )


def _full(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return ResourceError(
        f"The store s3://{edge.bucket} is full ({code_of(exc)}).", cure="Make room, then run it again."
    )


def _damaged(edge: Edge, exc: ClientError, what: str) -> InferdockError:
    return UnreachableError(
        f"S3 received other bytes than were sent when it was to {what} ({code_of(exc)}).",
        cure="Run the command again; when it comes back, check this machine's memory and network.",
    )


def _said(exc: ClientError) -> str:
    """The service's own sentence, short and harmless to a terminal; none about signatures, which may quote them."""
    if "Signature" in code_of(exc) and code_of(exc) != "InvalidSignatureException":
        return ""
    return plain(str(exc.response.get("Error", {}).get("Message") or "")).rstrip(".")[:300]


def plain(text: str) -> str:
    """A text of others without what a terminal would obey."""
    return "".join(c for c in text if c.isprintable())


def _is_dynamodb(exc: ClientError) -> bool:
    return exc.operation_name in (
        "Query",
        "Scan",
        "GetItem",
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "TransactWriteItems",
    )


def _codes(make: _Make, *codes: str) -> dict[str, _Make]:
    return dict.fromkeys(codes, make)


_BY_CODE: Final[Mapping[str, _Make]] = {
    **_codes(_denied, "AccessDenied", "AccessDeniedException", "403", "Forbidden", "AllAccessDisabled"),
    **_codes(_expired, "ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
    **_codes(_bad_login, "InvalidAccessKeyId", "SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidToken"),
    **_codes(_bad_login, "InvalidClientTokenId", "MissingAuthenticationToken", "MissingAuthenticationTokenException"),
    **_codes(_bad_login, "IncompleteSignature", "IncompleteSignatureException", "NotSignedUp"),
    **_codes(_signature, "InvalidSignatureException"),
    **_codes(_clock, "RequestTimeTooSkewed"),
    **_codes(_no_bucket, "NoSuchBucket"),
    **_codes(_not_found, "ResourceNotFoundException"),
    **_codes(_validation, "ValidationException", "ValidationError"),
    **_codes(_region, "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"),
    **_codes(_region, "IllegalLocationConstraintException"),
    **_codes(_bucket_name, "InvalidBucketName"),
    **_codes(_slow, "SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded"),
    **_codes(_slow, "ProvisionedThroughputExceededException", "TooManyRequestsException", "RequestThrottled"),
    **_codes(_slow, "BandwidthLimitExceeded", "RequestThrottledException", "ThrottlingError", "429"),
    **_codes(_failed, "InternalError", "InternalServerError", "InternalFailure", "ServiceUnavailable"),
    **_codes(_not_offered, "NotImplemented", "MethodNotAllowed", "UnknownOperationException", "XNotImplemented"),
    **_codes(_full, "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "ItemCollectionSizeLimitExceeded"),
    **_codes(_full, "ItemCollectionSizeLimitExceededException"),
    **_codes(_key, "KMS", "KMSAccessDeniedException", "KMSDisabledException", "KMSInvalidStateException"),
    **_codes(_damaged, "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest"),
}
_BY_STATUS: Final[Mapping[int, _Make]] = {
    301: _region,
    307: _region,
    403: _denied,
    429: _slow,
    501: _not_offered,
    500: _failed,
    502: _failed,
    503: _slow,
    504: _failed,
    507: _full,
}


def _no_login(exc: BotoCoreError) -> InferdockError:
    return UnreachableError("There are no credentials for AWS on this machine.", cure=_LOG_IN)


def _part_login(exc: BotoCoreError) -> InferdockError:
    return UnreachableError("The credentials for AWS are not complete.", cure=_LOG_IN)


def _stale_login(exc: BotoCoreError) -> InferdockError:
    return UnreachableError("The login for AWS has expired or cannot be read.", cure=_AGAIN)


def _no_profile(exc: BotoCoreError) -> InferdockError:
    return ConfigError(
        "There is no such AWS profile on this machine.", cure="Correct AWS_PROFILE; see `aws configure list-profiles`."
    )


def _no_region(exc: BotoCoreError) -> InferdockError:
    return ConfigError("No AWS region is set, or it is none.", cure="Set registry.s3.region, or AWS_REGION.")


def _config_file(exc: BotoCoreError) -> InferdockError:
    return ConfigError(
        "The AWS configuration of this machine cannot be used.", cure="Correct ~/.aws/config or AWS_CONFIG_FILE."
    )


def _no_tls(exc: BotoCoreError) -> InferdockError:
    return UnreachableError(
        f"{_host(exc)} has a certificate that we do not trust, or speaks no TLS.",
        cure=f"Set AWS_CA_BUNDLE to its authority's certificate, or correct {_ENDPOINTS}.",
    )


def _silent(exc: BotoCoreError) -> InferdockError:
    return UnreachableError(
        f"{_host(exc)} does not answer.", cure=f"Check network and proxy, and {_ENDPOINTS}; then run the command again."
    )


def _not_s3(exc: Exception) -> InferdockError:
    return UnreachableError(
        "The registry's store answers in a way that is not that of S3 or DynamoDB.", cure=f"Check {_ENDPOINTS}."
    )


def _malformed(exc: BotoCoreError) -> InferdockError:
    return ConfigError(
        "AWS's library refuses a name in the configuration.", cure="Correct registry.url and registry.s3."
    )


def _host(exc: BotoCoreError) -> str:
    """The host that was asked, without path and query: those may hold what signs the request."""
    url = str(exc.kwargs.get("endpoint_url") or "")
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    return plain(f"{scheme}://{host}")[:200] if host else "The registry's store"


_LIBRARY: Final[tuple[tuple[tuple[type[BotoCoreError], ...], Callable[[BotoCoreError], InferdockError]], ...]] = (
    ((boto.NoCredentialsError, boto.NoAuthTokenError), _no_login),
    ((boto.PartialCredentialsError,), _part_login),
    ((boto.ProfileNotFound,), _no_profile),
    (
        (boto.SSOError, boto.CredentialRetrievalError, boto.TokenRetrievalError, boto.MetadataRetrievalError),
        _stale_login,
    ),
    ((boto.LoginError, boto.RefreshWithMFAUnsupportedError), _stale_login),
    ((boto.NoRegionError, boto.InvalidRegionError, boto.UnknownRegionError), _no_region),
    ((boto.ConfigParseError, boto.ConfigNotFound, boto.InvalidConfigError, boto.InfiniteLoopConfigError), _config_file),
    (
        (boto.InvalidRetryModeError, boto.InvalidMaxRetryAttemptsError, boto.InvalidRetryConfigurationError),
        _config_file,
    ),
    ((boto.InvalidS3AddressingStyleError, boto.InvalidChecksumConfigError, boto.UnknownCredentialError), _config_file),
    ((boto.SSLError,), _no_tls),
    ((boto.ParamValidationError, boto.InvalidDNSNameError, boto.EndpointProviderError), _malformed),
    ((boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError), _silent),
    ((boto.ChecksumError, boto.FlexibleChecksumError), _not_s3),
)
