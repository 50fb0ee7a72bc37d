"""Which rule for the prefix policy's key finds most of a prompt in a replica's cache: a simulation without time.

``python -m bench.prefix_keys``. Conversations take turns at random behind a system prompt that all share; a fixed
number of requests is open at any time; caches never forget. Prints the share of prompt bytes that the chosen replica
had already seen. The table in docs/decisions/0008-balancing.md comes from here.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator
from zlib import crc32

from inferdock.balance.affinity import Affinity
from inferdock.balance.endpoints import Endpoint, EndpointSet, Lease, State, Wanted
from inferdock.balance.hashing import key_of
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.balance.policy import Policy
from inferdock.balance.prefix import Prefix
from inferdock.config.settings import BalanceSettings
from inferdock.domain.endpoint import EndpointSpec

REPLICAS = 8
OPEN = 64
CACHE_BLOCK = 64  # bytes: about vLLM's 16 tokens
TURN_BYTES = (200, 1500)
SYSTEM_BYTES = (100, 800, 3000, 10_000)


class FirstOf(Prefix):
    """The largest of some sizes that the prompt fills."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(Affinity())
        self._sizes = sizes

    def key(self, prefix: bytes) -> int | None:
        size = max((size for size in self._sizes if size <= len(prefix)), default=0)
        return key_of(prefix[:size]) if size else None


def rules() -> dict[str, tuple[Policy, bool]]:
    """Name -> (policy, whether clients send a session header)."""
    return {
        "least outstanding": (LeastOutstanding(), False),
        "first KiB": (FirstOf(1024), False),
        "first 4 KiB": (FirstOf(4096), False),
        "1, 2, 4, 8 or 16 KiB": (FirstOf(1024, 2048, 4096, 8192, 16384), False),
        "1, 4 or 16 KiB": (Prefix(Affinity()), False),
        "session header": (LeastOutstanding(), True),
    }


def cached_share(policy: Policy, *, sessions: bool, system_bytes: int, conversations: int, turns: int) -> float:
    """Run all conversations to their end; the share of prompt bytes found in the chosen replica's cache."""
    chance = random.Random(1)
    endpoints = EndpointSet(policy, settings=BalanceSettings(slow_start_s=0))
    endpoints.replace([EndpointSpec(f"replica-{n}", "127.0.0.1", 1, "m", "r") for n in range(REPLICAS)])
    for endpoint in endpoints:
        endpoint.state = State.READY
    caches: dict[Endpoint, set[int]] = defaultdict(set)
    leases: list[Lease] = []
    system = chance.randbytes(system_bytes)
    talks = dict.fromkeys(range(conversations), system)
    order = [number for number in range(conversations) for _ in range(turns)]
    chance.shuffle(order)
    found = total = 0
    for number in order:
        prompt = talks[number] = talks[number] + chance.randbytes(chance.randint(*TURN_BYTES))
        lease = endpoints.lease("m", Wanted(prefix=prompt, session=b"%d" % number if sessions else None))
        assert lease is not None
        leases.append(lease)
        if len(leases) > OPEN:
            leases.pop(chance.randrange(OPEN)).release()
        blocks = list(_blocks(prompt))
        cache = caches[lease.endpoint]
        found += CACHE_BLOCK * next((n for n, block in enumerate(blocks) if block not in cache), len(blocks))
        total += len(prompt)
        cache.update(blocks)
    return found / total


def _blocks(prompt: bytes) -> Iterator[int]:
    """A hash of everything up to each block's end, as engines keep their caches."""
    state = 0
    for start in range(0, len(prompt) - CACHE_BLOCK + 1, CACHE_BLOCK):
        state = crc32(prompt[start : start + CACHE_BLOCK], state)
        yield state << 32 | start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--turns", type=int, default=12)
    args = parser.parse_args()
    print(f"{'system prompt, bytes':24s}" + "".join(f"{size:>8d}" for size in SYSTEM_BYTES))
    for name, (policy, sessions) in rules().items():
        shares = [cached_share(policy, sessions=sessions, system_bytes=size, **vars(args)) for size in SYSTEM_BYTES]
        print(f"{name:24s}" + "".join(f"{share:8.2f}" for share in shares))


if __name__ == "__main__":
    main()
