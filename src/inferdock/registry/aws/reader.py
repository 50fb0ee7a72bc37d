"""Bytes of an object in order; where the connection breaks, it goes on from there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from inferdock.domain.errors import IntegrityError, UnreachableError
from inferdock.registry.aws.errors import MISSING, TAKEN, Edge, code_of

BREAKS: Final = 5
"""Connections in a row that may break without a byte having come."""
PAUSE_S: Final = 0.5
"""Before the second connection; twice as long before each further one."""


class ObjectReader:
    """Reads one range of one object.

    Args:
        get: asks for the object with these arguments of GetObject.
        first: the answer for the whole range, whose body has not been read.
        begin: where in the object the range begins.
        what: how messages call it.
        edge: translates.
        sleep: waits; another one in tests.
    """

    def __init__(
        self,
        get: Callable[..., Any],
        first: Any,
        *,
        begin: int,
        what: str,
        edge: Edge,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._get = get
        self._body = first["Body"]
        self._etag = str(first.get("ETag") or "")
        self._at = begin
        self.left = int(first["ContentLength"])
        """Bytes that are still to come."""
        self._end = begin + self.left
        self._what = what
        self._edge = edge
        self._sleep = sleep
        self._breaks = 0

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, none at the end.

        Raises:
            UnreachableError: it breaks again and again.
            IntegrityError: the object was replaced or removed meanwhile.
        """
        while self.left and size:
            try:
                data = bytes(self._body.read(min(size, self.left)))
            except (BotoCoreError, OSError) as exc:
                self._reopen(exc)
                continue
            if data:
                self._at, self.left, self._breaks = self._at + len(data), self.left - len(data), 0
                return data
            self._reopen(None)  # the store closed early
        return b""

    def close(self) -> None:
        """Let go of the connection."""
        self._body.close()

    def _reopen(self, cause: Exception | None) -> None:
        self.close()
        self._breaks += 1
        if self._breaks > BREAKS:
            raise UnreachableError(
                f"The connection broke again and again while {self._what} was read.",
                cure="Check the network, then run the command again: it goes on from here.",
            ) from cause
        self._sleep(PAUSE_S * 2 ** (self._breaks - 1) * random.uniform(0.5, 1))
        wanted = {"IfMatch": self._etag} if self._etag else {}
        with self._edge.doing(f"read {self._what}"):
            try:
                wanted["Range"] = f"bytes={self._at}-{self._end - 1}"
                self._body = ranged(self._get(**wanted), self._at, self._what)["Body"]
            except ClientError as exc:
                if code_of(exc) in MISSING | TAKEN:
                    raise IntegrityError(
                        f"{self._what} was replaced or removed while it was read.", cure="Run the command again."
                    ) from exc
                raise


def ranged(answer: Any, begin: int, what: str) -> Any:
    """An answer to a request for a range, which must begin where it was asked to.

    Raises:
        UnreachableError: the store has sent the whole object, as stores that know no ranges do.
    """
    if not str(answer.get("ContentRange") or "").startswith(f"bytes {begin}-"):
        answer["Body"].close()
        raise UnreachableError(
            f"The store does not serve ranges, and {what} is read in ranges.", cure="Use a store that knows them."
        )
    return answer
