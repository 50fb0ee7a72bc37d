"""What a large cache costs in Redis: its memory, and how long a gateway that starts takes to load the vectors.

    python -m bench.cache.redis_million --entries 100000

A redis-server of its own on a free port, without persistence, is filled with made-up entries (a thousand tenants,
texts of 10 words, answers of about 300 bytes, random vectors of 384 bytes), through the commands that the
store uses. Then a fresh process reads the log through ``RedisSync``. Takes 2 KB of memory an entry; ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvloop

from inferdock.cache.assembly import build_cache
from inferdock.cache.codec import Plain, Seal
from inferdock.cache.entry import Entry, StoredAnswer
from inferdock.cache.epochs import Epochs
from inferdock.cache.redis_address import redis_address
from inferdock.cache.redis_client import Command
from inferdock.cache.redis_link import RedisLink
from inferdock.cache.redis_store import RedisStore
from inferdock.cache.redis_sync import RedisSync
from inferdock.cache.sealer import Sealer
from inferdock.cache.store import EVERYTHING, Insert
from inferdock.config.settings import CacheRedisSettings, CacheSettings
from inferdock.telemetry.logs import EventLog

STUCK_S = 30.0
BATCH = 500
TTL_S = 6 * 3600.0
_SOUNDS = ["ba", "na", "lo", "ci", "ta", "re", "mi", "no", "su", "pe", "la", "ki", "do", "ru", "ve"]
WORDS = [one + two for one in _SOUNDS for two in _SOUNDS]


class Counting:
    """A listener that only counts."""

    def __init__(self) -> None:
        self.inserts = 0

    def inserted(self, insert: Insert) -> None:
        self.inserts += 1

    def removed(self, key: bytes) -> None:
        """Does not happen here."""

    def flushed(self, tag: str) -> None:
        """The first number of all."""

    def reset(self) -> None:
        """Does not happen here."""


def made_up(count: int, epoch: Callable[[str], str], now: float) -> Iterator[tuple[Entry, bytes]]:
    """Entries and their vectors."""
    chance, vectors = random.Random(1), np.random.default_rng(1)
    for number in range(count):
        tenant = f"tenant-{number % 1000}"
        text = " ".join(chance.choices(WORDS, k=10)) + f" {number}"
        answer = StoredAnswer(
            kind="chat",
            model="inferdock-demo",
            text=" ".join(chance.choices(WORDS, k=60)),
            finish_reason="stop",
            prompt_tokens=30,
            output_tokens=80,
        )
        entry = Entry(
            key=hashlib.sha256(b"%d" % number).digest(),
            partition=hashlib.sha256(tenant.encode()).digest(),
            text=text,
            answer=answer,
            tenant=tenant,
            model="inferdock-demo",
            revision="sha256:" + "0" * 64,
            epoch=epoch(tenant),
            created_at=now,
            expires_at=now + TTL_S * (0.95 + 0.05 * chance.random()),
            duration_s=1.0,
        )
        row = vectors.standard_normal(384)
        yield entry, (row * (127 / np.abs(row).max())).round().astype(np.int8).tobytes()


async def fill(url: str, count: int, seal: Seal) -> dict[str, float]:
    """Put the entries into an empty Redis."""
    address, log = redis_address(url), EventLog(lambda data: None)
    link, epochs = RedisLink(address, log=log, budget_s=5.0), Epochs(time.time)
    store = RedisStore(link, epochs=epochs, clock=time.time, origin="bench", seal=seal, max_log=max(count, 1000))
    client = address.client(connections=1, timeout_s=60)
    await store.flush(EVERYTHING)
    began, commands, empty = time.perf_counter(), list[Command](), await store.stats()
    for entry, vector in made_up(count, lambda tenant: epochs.of(tenant, "inferdock-demo"), time.time()):
        commands += store.commands(entry, vector)
        if len(commands) >= 2 * BATCH:
            await client.execute_all(commands)
            commands.clear()
    if commands:
        await client.execute_all(commands)
    seconds = time.perf_counter() - began
    stats = await store.stats()
    log_bytes = int(await client.execute("MEMORY", "USAGE", "inferdock:cache:1:log", "SAMPLES", 0))
    await client.close()
    await link.close()
    assert stats is not None
    assert empty is not None
    used = stats.used_memory_bytes - empty.used_memory_bytes
    return {
        "fill_s": round(seconds, 1),
        "redis_used_memory_mb": round(stats.used_memory_bytes / 1e6, 1),
        "redis_bytes_per_entry": round(used / count),
        "of_which_log_bytes_per_entry": round(log_bytes / count),
        "log_entries": stats.log_entries,
    }


async def load(url: str, seal: Seal) -> dict[str, float]:
    """What a gateway that starts does."""
    listener, lines = Counting(), EventLog(lambda data: None)
    epochs = Epochs(time.time)
    sync = RedisSync(
        redis_address(url), epochs=epochs, listener=listener, clock=time.time, log=lines, origin="new", seal=seal
    )
    before_mb = _rss_mb()
    began, processor = time.perf_counter(), time.process_time()
    task = asyncio.ensure_future(sync.run())
    longest, last = 0.0, began
    while not sync.synced:
        await asyncio.sleep(0.001)  # what else the gateway does
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    seconds = time.perf_counter() - began
    task.cancel()
    await asyncio.wait((task,))
    return {
        "inserts": listener.inserts,
        "load_s": round(seconds, 2),
        "load_cpu_s": round(time.process_time() - processor, 2),
        "longest_pause_ms": round(longest * 1000, 1),
        "rss_before_mb": round(before_mb, 1),
        "rss_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
    }


async def keep(url: str, entries: int) -> dict[str, float]:
    """The same with all that a gateway keeps of it: the whole cache, with texts, vectors and index."""
    settings = CacheSettings(enabled=True, max_entries=entries, redis=CacheRedisSettings(url=url))
    cache = build_cache(settings, EventLog(lambda data: None), semantic=True)
    tier = cache.tier
    assert tier is not None
    before_mb = _rss_mb()
    began, processor = time.perf_counter(), time.process_time()
    cache.start()
    longest, last, grown = 0.0, began, began
    count = 0
    while count < entries and last - grown < STUCK_S:
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
        if len(tier) > count:
            count, grown = len(tier), last
    seconds = time.perf_counter() - began
    result = {
        "kept_entries": count,
        "keep_s": round(seconds, 1),
        "keep_cpu_s": round(time.process_time() - processor, 1),
        "keep_longest_pause_ms": round(longest * 1000, 1),
        "keep_rss_before_mb": round(before_mb, 1),
        "keep_rss_mb": round(_rss_mb(), 1),
    }
    await cache.close()
    return result


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


@contextmanager
def own_redis() -> Iterator[str]:
    """The address of a server that is there for this run only."""
    folder = Path(tempfile.mkdtemp(prefix="redis-million-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([*words, "--daemonize", "no"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """See the module's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--sealed", action="store_true", help="encrypt values and events")
    parser.add_argument("--keep", metavar="URL", help="load and keep all, from this Redis (used by a fresh process)")
    parser.add_argument("--load", metavar="URL", help="only load, from this Redis (used by the fresh process)")
    options = parser.parse_args()
    seal: Seal = Sealer([bytes(32)]) if options.sealed else Plain()
    if options.load:
        print(json.dumps(uvloop.run(load(options.load, seal))))
        return
    if options.keep:
        print(json.dumps(uvloop.run(keep(options.keep, options.entries))))
        return
    with own_redis() as url:
        result: dict[str, float] = {"entries": options.entries, **uvloop.run(fill(url, options.entries, seal))}
        words = [sys.executable, "-m", "bench.cache.redis_million", "--load", url]
        fresh = subprocess.run(
            [*words, *(["--sealed"] if options.sealed else [])], check=True, capture_output=True, text=True
        )
        result |= json.loads(fresh.stdout)
        if not options.sealed:
            words = [
                sys.executable,
                "-m",
                "bench.cache.redis_million",
                "--entries",
                str(options.entries),
                "--keep",
                url,
            ]
            result |= json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    for name, value in result.items():
        print(f"{name:32} {value:,}")


if __name__ == "__main__":
    main()
