"""S3 and DynamoDB on this machine: moto's server, with a bucket and the table as Terraform makes them.

moto ignores policies and accepts wrong checksums, so a test that needs those sees to it itself.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session
from moto.dynamodb.responses import DynamoHandler
from moto.server import ThreadedMotoServer

from inferdock.config.settings import RegistryS3Settings, RegistrySettings
from inferdock.registry.aws.client import Clients, connect
from inferdock.registry.aws.errors import Edge
from inferdock.registry.aws.store import AwsStore

REGION = "us-east-1"
TABLE = "llm-model-versions"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
"""Environment of a process that talks to the server; nothing of the machine's own configuration gets in."""


@contextlib.contextmanager
def running_aws() -> Iterator[str]:
    """The server's address, for a while; the environment has credentials for it meanwhile."""
    from_here = logging.getLogger("werkzeug")
    level = from_here.level
    from_here.setLevel(logging.ERROR)  # one line for each request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB"):
                patch.delenv(name, raising=False)
            for name, value in CREDENTIALS.items():
                patch.setenv(name, value)
            patch.setattr(DynamoHandler, "call_action", _one_at_a_time(DynamoHandler.call_action))
            yield f"http://{host}:{port}"
    finally:
        server.stop()
        from_here.setLevel(level)


def _one_at_a_time(action: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """DynamoDB's writes are atomic. moto's are not: threads that meet in one interleave.

    A transaction whose condition fails there even puts back the tables as they were when it began, and with that
    takes away what another one wrote meanwhile.
    """
    lock = threading.Lock()

    @functools.wraps(action)
    def alone(handler: Any) -> Any:
        with lock:
            return action(handler)

    return alone


@functools.cache
def raw(service: str, endpoint: str) -> Any:
    """A client of boto3 that is not ours; made once, which takes long."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 2}),
    )


def make_place(endpoint: str, bucket: str, table: str) -> None:
    """A bucket, and a table with its index, as ``terraform/model-registry`` makes them."""
    raw("s3", endpoint).create_bucket(Bucket=bucket)
    raw("dynamodb", endpoint).create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": "model_name", "KeyType": "HASH"},
            {"AttributeName": "version", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("model_name", "version", "version_order")
        ],
        LocalSecondaryIndexes=[
            {
                "IndexName": "by_version_order",
                "KeySchema": [
                    {"AttributeName": "model_name", "KeyType": "HASH"},
                    {"AttributeName": "version_order", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )


def aws_settings(endpoint: str, bucket: str, *, prefix: str = "", threads: int = 4, **s3: Any) -> RegistrySettings:
    """Settings of a registry there; each bucket has a table of its own."""
    return RegistrySettings(
        url=f"s3://{bucket}/{prefix}",
        threads=threads,
        s3=RegistryS3Settings(
            region=REGION, endpoint_url=endpoint, dynamodb_endpoint_url=endpoint, table=f"{TABLE}-{bucket}", **s3
        ),
    )


def aws_clients(settings: RegistrySettings, *, attempts: int = 2) -> Clients:
    """Clients for it, which give up soon."""
    bucket = (settings.url or "").split("/")[2]
    return connect(settings.s3, bucket=bucket, threads=32, attempts=attempts)


def aws_store(endpoint: str, bucket: str, *, make: bool = True, **options: Any) -> AwsStore:
    """A store in a bucket, which is made unless it is there already."""
    if make:
        make_place(endpoint, bucket, f"{TABLE}-{bucket}")
    return AwsStore(aws_settings(endpoint, bucket, **options))


def aws_place(endpoint: str, bucket: str) -> Callable[[], AwsStore]:
    """Makes a bucket and a table; opens the store in it each time it is called.

    The openings share their clients, which may be shared, and which take long to make.
    """
    make_place(endpoint, bucket, f"{TABLE}-{bucket}")
    settings = aws_settings(endpoint, bucket)
    shared = _shared_clients(endpoint)
    clients = replace(shared, edge=Edge(bucket=bucket, table=settings.s3.table))
    return lambda: AwsStore(settings, clients=clients)


@functools.cache
def _shared_clients(endpoint: str) -> Clients:
    return aws_clients(aws_settings(endpoint, "any"))


class Traffic:
    """What is asked of a client, in order; answers can get lost.

    Args:
        client: of boto3; watched from now on.
    """

    def __init__(self, client: Any) -> None:
        self.asked: list[str] = []
        self._lost: list[str] = []
        self._service = client.meta.service_model.service_name
        self._lock = threading.Lock()
        self._http = URLLib3Session()
        client.meta.events.register(f"before-send.{self._service}", self._send)

    def lose_answer(self, operation: str) -> None:
        """Let the server do the next such operation, and the client not hear of it."""
        self._lost.append(operation)

    def count(self, operation: str) -> int:
        """How often an operation was asked for, repetitions included."""
        with self._lock:
            return self.asked.count(operation)

    def _send(self, request: Any, event_name: str, **_: Any) -> None:
        operation = event_name.rpartition(".")[2]
        with self._lock:
            self.asked.append(operation)
            lost = operation in self._lost
            if lost:
                self._lost.remove(operation)
        if lost:
            self._http.send(request)
            raise ConnectionClosedError(endpoint_url=request.url)


def expire_claims(endpoint: str, table: str) -> None:
    """As if so much time had passed that nobody's claim lasts."""
    dynamodb = raw("dynamodb", endpoint)
    for item in dynamodb.scan(TableName=table)["Items"]:
        if item["version"]["S"].startswith("push#"):
            dynamodb.update_item(
                TableName=table,
                Key={"model_name": item["model_name"], "version": item["version"]},
                UpdateExpression="SET expires_at = :e",
                ExpressionAttributeValues={":e": {"N": "0"}},
            )


def items_of(endpoint: str, table: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Everything in a table, by its key."""
    found = raw("dynamodb", endpoint).scan(TableName=table, ConsistentRead=True)["Items"]
    return {(item["model_name"]["S"], item["version"]["S"]): item for item in found}
