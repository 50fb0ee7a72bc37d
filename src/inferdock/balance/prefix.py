"""Prefix: prompts that begin alike go to the same endpoint, whose prefix cache then holds their beginning.

The key is a hash of the prompt's first 1, 4 or 16 blocks of a KiB, the most that it fills. So:

- questions about one document meet; the turns of a conversation meet too, but for the two in which it outgrows
  4 and 16 blocks and moves;
- conversations that share only their beginning, such as a system prompt, part once they have outgrown it;
- prompts shorter than a block have no key: recomputing so few tokens costs less than uneven load.

Nothing is remembered, so workers agree without talking, and no request goes upstream to ask what is cached.
docs/decisions/0008-balancing.md compares this with other rules.
"""

from __future__ import annotations

from collections.abc import Collection

from inferdock.balance.affinity import Affinity
from inferdock.balance.endpoint import Endpoint
from inferdock.balance.group import Group
from inferdock.balance.hashing import key_of
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.balance.wanted import Wanted

MAX_BLOCKS = 16


class Prefix:
    """Affinity by the prompt's beginning; prompts without a key go to the least loaded endpoint."""

    def __init__(self, affinity: Affinity, *, block_bytes: int = 1024) -> None:
        """``block_bytes``: size of a block, about four bytes to the token."""
        self._affinity = affinity
        self._block_bytes = block_bytes
        self._least = LeastOutstanding()
        self.prefix_bytes = MAX_BLOCKS * block_bytes

    def pick(self, group: Group, wanted: Wanted, avoid: Collection[Endpoint] = ()) -> Endpoint | None:
        """See :class:`~inferdock.balance.policy.Policy`."""
        key = self.key(wanted.prefix) if len(group.endpoints) > 1 else None
        if key is None:
            return self._least.pick(group, wanted, avoid)
        return self._affinity.pick(group, key, limit=wanted.limit, avoid=avoid)

    def key(self, prefix: bytes) -> int | None:
        """Key of a prompt's beginning; None when it is too short to matter."""
        blocks = len(prefix) // self._block_bytes
        if not blocks:
            return None
        kept = 1 if blocks < 4 else 4 if blocks < MAX_BLOCKS else MAX_BLOCKS
        return key_of(memoryview(prefix)[: kept * self._block_bytes])
