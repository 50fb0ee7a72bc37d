"""Claims of pushes as the table keeps them: taken, renewed, released, each on the condition that they are ours."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from inferdock.domain.errors import ConflictError
from inferdock.registry.aws.claim import LEASE_S, lost
from inferdock.registry.aws.errors import code_of, plain
from inferdock.registry.aws.table import CLAIM, CONFLICTS, MEETINGS, Item, Table, text_of

GRACE_S: Final = 15
"""A claim is taken over only so many seconds after its end: for answers that took their time."""
_FAILED: Final = "ConditionalCheckFailedException"


class Claims:
    """The claims in a table.

    Args:
        table: it.
        lease_s: how long a claim lasts without being renewed.
        grace_s: how long after that it is not taken over.
    """

    def __init__(self, table: Table, *, lease_s: float = LEASE_S, grace_s: float = GRACE_S) -> None:
        self._table = table
        self.lease_s = lease_s
        self._grace_s = grace_s

    def end(self) -> float:
        """When a claim ends that is renewed now: seconds since 1970 by the database's clock."""
        return self._table.now() + self.lease_s

    def take(self, name: str, version: str, *, actor: str) -> Held:
        """Take the claim of a version. It goes on to say whose files are there, until :meth:`own`.

        Raises:
            ConflictError: somebody else has it.
        """
        with self._table.edge.doing(f"begin the push of {name}@{version}"):
            before = self._table.get(name, CLAIM + version)
            now = self._table.now()
            if before is not None and _number(before, "expires_at") + self._grace_s > now:
                raise _busy(name, version, before)
            token = uuid.uuid4().hex
            left = text_of(before, "revision") if before is not None else ""
            item = {
                **self._table.key(name, CLAIM + version),
                "token": {"S": token},
                "revision": {"S": left},
                "owner": {"S": actor},
                "since": {"S": _spell(now)},
                "expires_at": {"N": str(int(now + self.lease_s))},
            }
            try:
                self._table.dynamodb.put_item(TableName=self._table.name, Item=item, **_still(before))
            except ClientError as exc:
                if code_of(exc) not in {_FAILED, *MEETINGS}:
                    raise
                there = self._table.get(name, CLAIM + version)
                if there is None or text_of(there, "token") != token:  # else it was ours, and the first answer was lost
                    raise _busy(name, version, there or {}) from exc
        return Held(claims=self, name=name, version=version, token=token, left=left)

    def own(self, held: Held, revision: str) -> None:
        """Say that from now on the files there are of this revision.

        Raises:
            ConflictError: the claim is not ours any more.
        """
        if not self._set(held, "revision", {"S": revision}):
            raise lost(f"{held.name}@{held.version}")

    def extend(self, held: Held, until: float) -> bool:
        """Set when a claim ends, 0 for now; False when it is not ours any more."""
        return self._set(held, "expires_at", {"N": str(int(until))})

    def _set(self, held: Held, attribute: str, value: dict[str, str]) -> bool:
        with self._table.edge.doing(f"hold the push of {held.name}@{held.version}"):
            for attempt in range(CONFLICTS):
                try:
                    self._table.note(
                        self._table.dynamodb.update_item(
                            TableName=self._table.name,
                            Key=self._table.key(held.name, CLAIM + held.version),
                            UpdateExpression="SET #a = :a",
                            ConditionExpression="#t = :t",
                            ExpressionAttributeNames={"#a": attribute, "#t": "token"},
                            ExpressionAttributeValues={":a": value, ":t": {"S": held.token}},
                        )
                    )
                    return True
                except ClientError as exc:
                    if code_of(exc) == _FAILED:
                        return False
                    if code_of(exc) not in MEETINGS or attempt == CONFLICTS - 1:
                        raise
                    self._table.sleep(random.uniform(0.02, 0.1) * 2**attempt)
        return False

    def drop(self, held: Held) -> None:
        """Remove a claim of ours without a trace.

        In a transaction, though it is one item: who may push may delete items in no other way.
        """
        delete = {
            "TableName": self._table.name,
            "Key": self._table.key(held.name, CLAIM + held.version),
            "ConditionExpression": "#t = :t",
            "ExpressionAttributeNames": {"#t": "token"},
            "ExpressionAttributeValues": {":t": {"S": held.token}},
        }
        with self._table.edge.doing(f"end the claim of {held.name}@{held.version}"):
            self._table.transact([{"Delete": delete}])


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A claim that we took.

    Attributes:
        token: tells it from those of others.
        left: revision of the push that held it before and did not end, "" where none did.
    """

    claims: Claims
    name: str
    version: str
    token: str
    left: str

    def renew(self) -> bool:
        """Let it last longer; False when it is not ours any more."""
        return self.claims.extend(self, self.claims.end())

    def release(self) -> None:
        """End it. It stays in the table, so that the next push knows whose files were left."""
        self.claims.extend(self, 0)


def _still(before: Item | None) -> dict[str, Any]:
    """The condition that a claim is as we saw it."""
    if before is None:
        return {
            "ConditionExpression": "attribute_not_exists(#v)",
            "ExpressionAttributeNames": {"#v": "version"},
        }
    return {
        "ConditionExpression": "#t = :t AND #e = :e",
        "ExpressionAttributeNames": {"#t": "token", "#e": "expires_at"},
        "ExpressionAttributeValues": {
            ":t": {"S": text_of(before, "token")},
            ":e": {"N": str(_number(before, "expires_at"))},
        },
    }


def _busy(name: str, version: str, claim: Item) -> ConflictError:
    owner, since = plain(text_of(claim, "owner"))[:200] or "somebody", plain(text_of(claim, "since"))[:40]
    return ConflictError(
        f"{name}@{version} is being pushed right now by {owner}{since and f' (since {since})'}.",
        cure=f"Wait until that ends; when it died, its claim ends within {int(LEASE_S) + GRACE_S} s.",
    )


def _number(item: Item, attribute: str) -> int:
    try:
        return int(item.get(attribute, {}).get("N", 0))
    except (ValueError, TypeError):
        return 0


def _spell(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
