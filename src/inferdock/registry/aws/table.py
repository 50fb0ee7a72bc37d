"""The DynamoDB table: records of versions, events of histories, claims of pushes that are under way.

Items of a model, by their sort key ``version``:

=====================  ==================================================================================
``1.10.0``             the record of a version; written with its ``push`` event and removed with ``delete``
``history#0000000042`` an event: ``event`` is its canonical JSON, ``writer`` says which try wrote it
``push#1.10.0``        the claim of a push: ``token``, ``revision``, ``owner``, ``since``, ``expires_at``
=====================  ==================================================================================

The index ``by_version_order`` holds the records in semantic order, and the first event of each history (before every
version), so that all models are found without reading the table. Times are the database's own, taken from the ``Date``
of its answers.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from inferdock.domain.errors import ConfigError, IntegrityError, UnreachableError
from inferdock.registry.aws.claim import lost
from inferdock.registry.aws.client import Clients
from inferdock.registry.aws.errors import code_of
from inferdock.registry.event import Delete, Event, Push, decode, encode
from inferdock.registry.names import Version, check_name

INDEX: Final = "by_version_order"
HISTORY: Final = "history#"
CLAIM: Final = "push#"
BEFORE_VERSIONS: Final = "#history"
"""``version_order`` of a history's first event; ``#`` comes before all digits."""
CONFLICTS: Final = 8
"""Tries of a transaction that meets another one."""
MEETINGS: Final = frozenset(
    {
        *("TransactionConflict", "TransactionConflictException", "TransactionInProgressException"),
        *("ThrottlingError", "ProvisionedThroughputExceeded"),
    }
)
"""Failures of a transaction that the library does not try again by itself."""
_FAILED: Final = "ConditionalCheckFailed"

Item = Mapping[str, Mapping[str, Any]]


class Table:
    """The table of one registry.

    Args:
        clients: of the store.
        name: of the table.
        scope: stands before the names of models in the table: registries under different prefixes of a bucket share it.
        wall: seconds since 1970, by this machine's clock.
        sleep: waits.
    """

    def __init__(
        self,
        clients: Clients,
        name: str,
        *,
        scope: str = "",
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.dynamodb = clients.dynamodb
        self.edge = clients.edge
        self.name = name
        self._scope = scope
        self._wall = wall
        self.sleep = sleep
        self._ahead = 0.0

    def key(self, name: str, version: str) -> dict[str, dict[str, str]]:
        """Key of an item."""
        return {"model_name": {"S": self._scope + name}, "version": {"S": version}}

    # -- histories -----------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Models that have a history, in order."""
        found: set[str] = set()
        with self.edge.doing(f"list the models in table {self.name}"):
            pages = self.dynamodb.get_paginator("scan").paginate(
                TableName=self.name,
                IndexName=INDEX,
                ConsistentRead=True,
                FilterExpression="#v = :first",
                ProjectionExpression="#n",
                ExpressionAttributeNames={"#v": "version", "#n": "model_name"},
                ExpressionAttributeValues={":first": {"S": seq_key(1)}},
            )
            for page in pages:  # a server that is no DynamoDB answers without items, which must not pass for none
                found.update(text_of(item, "model_name") for item in page["Items"])
        mine = (name.removeprefix(self._scope) for name in found if name.startswith(self._scope))
        return sorted(name for name in mine if _is_name(name))

    def events(self, name: str) -> list[Event]:
        """A model's history.

        Raises:
            IntegrityError: an event cannot be read.
        """
        with self.edge.doing(f"read the history of {name}"):
            pages = self.dynamodb.get_paginator("query").paginate(
                TableName=self.name,
                ConsistentRead=True,
                KeyConditionExpression="#n = :n AND begins_with(#v, :h)",
                ExpressionAttributeNames={"#v": "version", "#n": "model_name"},
                ExpressionAttributeValues={":n": {"S": self._scope + name}, ":h": {"S": HISTORY}},
            )
            items = [item for page in pages for item in page["Items"]]
        return [self._event(name, item) for item in items]

    def _event(self, name: str, item: Item) -> Event:
        key = text_of(item, "version")
        what = f"{key} of {name} in table {self.name}"
        event = decode(text_of(item, "event").encode(errors="replace"), what=what)
        if seq_key(event.seq) != key:
            raise IntegrityError(f"{what} is event {event.seq}.", cure="Restore the table from a backup.")
        return event

    def append(self, event: Event) -> bool:
        """Add an event, with what it means for the records; False when its number is taken."""
        others: list[dict[str, Any]] = []
        if isinstance(event.change, Delete):
            others = [{"Delete": {"TableName": self.name, "Key": self.key(event.name, event.change.version)}}]
        elif isinstance(event.change, Push):
            others = [{"Put": {"TableName": self.name, "Item": self._record_of(event)}}]
        return self._write(event, uuid.uuid4().hex, others) is None

    def commit(self, event: Event, token: str, more: Item) -> bool:
        """Make a version exist: claim away, record and event there, all or nothing.

        Args:
            event: its change is a ``Push``.
            token: of our claim.
            more: further attributes of the record.

        Returns:
            False when the event's number is taken, or the record is there.

        Raises:
            ConflictError: the claim is not ours any more.
        """
        assert isinstance(event.change, Push)
        version = event.change.version
        claim = {
            "TableName": self.name,
            "Key": self.key(event.name, CLAIM + version),
            "ConditionExpression": "#t = :t",
            "ExpressionAttributeNames": {"#t": "token"},
            "ExpressionAttributeValues": {":t": {"S": token}},
        }
        record = {
            "TableName": self.name,
            "Item": {**more, **self._record_of(event)},
            "ConditionExpression": "attribute_not_exists(#v)",
            "ExpressionAttributeNames": {"#v": "version"},
        }
        failed = self._write(event, token, [{"Delete": claim}, {"Put": record}])
        if failed == 1:
            raise lost(f"{event.name}@{version}")
        return failed is None

    def _record_of(self, event: Event) -> dict[str, Any]:
        """The record of a version, as its ``push`` event says."""
        push = event.change
        assert isinstance(push, Push)
        record: dict[str, Any] = {
            **self.key(event.name, push.version),
            "version_order": {"S": Version.parse(push.version).order},
            "revision": {"S": push.revision},
            "manifest_sha256": {"S": push.manifest_sha256},
            "size_bytes": {"N": str(push.size_bytes)},
            "files": {"N": str(push.files)},
            "created_at": {"S": event.time},
            "created_by": {"S": event.actor},
            "event": {"N": str(event.seq)},
        }
        if push.signed_by:
            record["signed_by"] = {"L": [{"S": key} for key in push.signed_by]}
        return record

    def _write(self, event: Event, writer: str, others: list[dict[str, Any]]) -> int | None:
        """Put an event and do what goes with it; None when done, else the place of what did not hold (0: the event)."""
        item: dict[str, Any] = {
            **self.key(event.name, seq_key(event.seq)),
            "event": {"S": encode(event).decode()},
            "writer": {"S": writer},
        }
        if event.seq == 1:
            item["version_order"] = {"S": BEFORE_VERSIONS}
        put = {
            "TableName": self.name,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(#v)",
            "ExpressionAttributeNames": {"#v": "version"},
        }
        with self.edge.doing(f"write to the history of {event.name}"):
            failed = self.transact([{"Put": put}, *others])
            if failed is None:
                return None
            there = self.get(event.name, seq_key(event.seq))
        # An answer that was lost on the way is asked for again, and then says that the number is taken: by us.
        if there is not None:
            return None if text_of(there, "writer") == writer else 0
        return failed

    def transact(self, items: list[dict[str, Any]]) -> int | None:
        """Do all or nothing; None when done, else the place of the first condition that does not hold."""
        for attempt in range(CONFLICTS):
            if attempt:
                self.sleep(random.uniform(0.02, 0.1) * 2**attempt)
            try:
                self.note(self.dynamodb.transact_write_items(TransactItems=items))
                return None
            except ClientError as exc:
                codes = _reasons(exc)
                if _FAILED in codes:
                    return codes.index(_FAILED)
                if not MEETINGS & {code_of(exc), *codes}:
                    raise _of_reasons(exc, codes) from exc
        raise UnreachableError(
            f"Table {self.name} is written by too many at once.", cure="Run the command again: it goes on from here."
        )

    def get(self, name: str, version: str) -> Item | None:
        """An item as it is now; the library's errors are the caller's."""
        response = self.dynamodb.get_item(TableName=self.name, Key=self.key(name, version), ConsistentRead=True)
        self.note(response)
        item: Item | None = response.get("Item")
        return item

    def record(self, name: str, version: str) -> Item | None:
        """The record of a version, None when there is none."""
        with self.edge.doing(f"read the record of {name}@{version}"):
            return self.get(name, version)

    # -- time ----------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since 1970 by the database's clock, as of its last answer."""
        return self._wall() + self._ahead

    def note(self, response: Any) -> None:
        """Look at the clock of an answer."""
        date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        try:
            self._ahead = parsedate_to_datetime(str(date)).timestamp() - self._wall()
        except (ValueError, TypeError, OverflowError):
            return  # a database that tells no time: then this machine's


def _reasons(exc: ClientError) -> list[str]:
    return [str(reason.get("Code")) for reason in exc.response.get("CancellationReasons") or ()]


def _of_reasons(exc: ClientError, codes: list[str]) -> ClientError:
    """A cancelled transaction as the failure that cancelled it."""
    for code, reason in zip(codes, exc.response.get("CancellationReasons") or (), strict=False):
        if code != "None":
            said = {"Code": code, "Message": str(reason.get("Message") or "")}
            return ClientError({**exc.response, "Error": said}, exc.operation_name)
    return exc


def seq_key(seq: int) -> str:
    """Sort key of an event."""
    return f"{HISTORY}{seq:010d}"


def text_of(item: Item, attribute: str) -> str:
    """An attribute that is text, "" where it is not."""
    value = item.get(attribute, {}).get("S")
    return value if isinstance(value, str) else ""


def _is_name(name: str) -> bool:
    try:
        return check_name(name) == name
    except ConfigError:
        return False
