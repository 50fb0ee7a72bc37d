"""Makes the two clients of AWS, once for each store. Everything that AWS itself configures (credentials, profile,
region, endpoint, certificates) comes from where every AWS program takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from inferdock import __version__
from inferdock.config.settings import RegistryS3Settings
from inferdock.domain.errors import ConfigError
from inferdock.registry.aws.errors import Edge

ATTEMPTS: Final = 6
"""Tries of one request, with growing pauses: about 15 s in all where nothing answers."""
CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 60
_NO_REGION: Final = "us-east-1"
"""For endpoints that are not AWS and have no regions; the signature needs some name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Clients may be used by several threads at once; the session that made them may not.

    Attributes:
        s3, dynamodb: clients of boto3, which has no types.
        edge: turns their failures into ours.
    """

    s3: Any
    dynamodb: Any
    edge: Edge


def connect(settings: RegistryS3Settings, *, bucket: str, threads: int, attempts: int = ATTEMPTS) -> Clients:
    """The clients; nothing is sent yet.

    Args:
        settings: of the registry.
        bucket: what messages name.
        threads: files or parts that are moved at once; each has a connection of its own.
        attempts: tries of one request.

    Raises:
        ConfigError: profile, region or an endpoint are wrong.
    """
    edge = Edge(bucket=bucket, table=settings.table)
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=2 * threads + 4,
        tcp_keepalive=True,
        user_agent_extra=f"inferdock/{__version__}",
        # Our own SHA-256 goes with every object. Others cost time, and stores that only resemble S3 refuse them.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.session.Session()
        region = settings.region or session.region_name or (_NO_REGION if settings.endpoint_url else None)
        s3 = session.client("s3", region_name=region, endpoint_url=settings.endpoint_url, config=config)
        if not _is_aws(s3.meta.endpoint_url):
            # A bucket's name before the host is something that only AWS's own names and certificates allow for sure.
            config = config.merge(Config(s3={"addressing_style": "path"}))
            s3 = session.client("s3", region_name=region, endpoint_url=settings.endpoint_url, config=config)
        dynamodb = session.client(
            "dynamodb", region_name=region, endpoint_url=settings.dynamodb_endpoint_url, config=config
        )
    except BotoCoreError as exc:
        raise edge.translated(exc, "be set up") from exc
    except ValueError as exc:  # the one way in which it refuses an endpoint
        raise ConfigError(
            "An endpoint of the registry is no address.",
            cure="Correct registry.s3.endpoint_url, registry.s3.dynamodb_endpoint_url or AWS_ENDPOINT_URL.",
        ) from exc
    return Clients(s3=s3, dynamodb=dynamodb, edge=edge)


def _is_aws(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
