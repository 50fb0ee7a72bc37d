"""A Redis that dies, freezes, refuses or lies: look-ups are misses in time, and nothing is ever raised."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from inferdock.cache.codec import encode_entry
from inferdock.cache.redis_names import ENTRY_CONTEXT, Names
from inferdock.cache.redis_store import NAMESPACE
from inferdock.cache.sealer import Sealer
from inferdock.cache.store import EVERYTHING, Scope
from tests.integration.cache.parts import Gateway, until
from tests.support.cache_values import VECTOR, answer, digest, entry
from tests.support.redis_server import RedisServer, running_redis

Make = Callable[..., Gateway]
NAMES = Names(NAMESPACE)
FAR_LONGER_THAN_THE_BUDGET_S = 0.5


async def test_kill_and_restart_under_load_costs_misses_and_nothing_else(server: RedisServer, gateways: Make) -> None:
    gateway = gateways()
    await gateway.start()
    slowest, hits, stop = 0.0, 0, False

    async def load(number: int) -> None:
        nonlocal slowest, hits
        while not stop:
            stored = gateway.entry(f"{number} {time.monotonic()}")
            began = time.perf_counter()
            await gateway.store.put(stored, VECTOR)
            found = await gateway.store.get(stored.key)
            slowest = max(slowest, time.perf_counter() - began)
            assert found is None or found == stored
            hits += found is not None
            await asyncio.sleep(0.002)

    tasks = [asyncio.ensure_future(load(number)) for number in range(8)]
    await until(lambda: hits > 100)
    server.kill()
    await until(lambda: gateway.link.breaker.state == "open")
    await asyncio.sleep(0.3)
    server.start()
    await until(lambda: gateway.link.breaker.state == "closed" and gateway.sync.connected)
    before = hits
    await until(lambda: hits > before + 100)
    stop = True
    await asyncio.gather(*tasks)  # raises what they have raised
    assert slowest < FAR_LONGER_THAN_THE_BUDGET_S
    assert gateway.link.outcomes["down"] > 0
    assert gateway.link.outcomes["open"] > 0
    gateway.log.flush()
    assert gateway.lines.count(b"redis does not serve") == gateway.lines.count(b"redis is back") == 1


async def test_a_frozen_redis_costs_the_budget_and_then_nothing(server: RedisServer, gateways: Make) -> None:
    gateway = gateways()
    await gateway.start()
    stored = gateway.entry()
    assert await gateway.store.put(stored)
    server.freeze()
    try:
        began = time.perf_counter()
        for _ in range(50):
            assert await gateway.store.get(stored.key) is None
            assert not await gateway.store.put(stored)
        assert time.perf_counter() - began < 50 * 0.02  # only the first few wait
        assert gateway.link.breaker.state == "open"
        assert not gateway.store.up
    finally:
        server.thaw()
    await until(lambda: gateway.store.up)

    async def found() -> bool:
        return await gateway.store.get(stored.key) == stored

    deadline = time.monotonic() + 15
    while not await found():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_replies_that_come_late_are_never_taken_for_others(server: RedisServer, gateways: Make) -> None:
    gateway = gateways()
    await gateway.start()
    stored = [gateway.entry(str(number), answer=answer(f"answer {number}")) for number in range(40)]
    for one in stored:
        assert await gateway.store.put(one)
    for pause_s in (0.03, 0.05, 0.1) * 3:
        server.freeze()
        asks = [asyncio.ensure_future(gateway.store.get(one.key)) for one in stored]
        await asyncio.sleep(pause_s / 2)
        for ask in asks[::3]:
            ask.cancel()  # these clients leave
        await asyncio.sleep(pause_s / 2)
        server.thaw()
        answers = await asyncio.gather(*asks, return_exceptions=True)
        for one, got in zip(stored, answers, strict=True):
            assert got is None or isinstance(got, asyncio.CancelledError) or got == one
        await asyncio.sleep(0.05)
    await until(lambda: gateway.store.up)
    await asyncio.sleep(0.2)
    await gateway.store.get(stored[0].key)
    assert [await gateway.store.get(one.key) for one in stored] == stored


async def test_a_redis_that_is_not_there_is_an_empty_one(gateways: Make, server: RedisServer) -> None:
    server.kill()
    gateway = gateways()
    stored = gateway.entry()
    assert not await gateway.store.put(stored, VECTOR)
    assert await gateway.store.get(stored.key) is None
    assert not await gateway.store.remove(stored.key)
    assert not await gateway.store.flush(EVERYTHING)
    assert await gateway.store.stats() is None
    assert gateway.epochs.of("tenant-one", "m") != stored.epoch  # the flush counts here all the same


@pytest.mark.parametrize("given", [None, "wrong"], ids=["no password", "wrong password"])
async def test_without_the_right_password_redis_is_empty_and_the_log_says_why(
    tmp_path: Path, gateways: Make, given: str | None
) -> None:
    with running_redis(tmp_path / "locked", "--requirepass", "right") as locked:
        gateway = gateways(locked.url, password=given)
        for _ in range(10):
            assert await gateway.store.get(digest("zinc")) is None
        gateway.log.flush()
        assert b'"reason":"password"' in gateway.lines
        assert b"wrong" not in gateway.lines


async def test_with_the_right_password_it_works(tmp_path: Path, gateways: Make) -> None:
    with running_redis(tmp_path / "locked", "--requirepass", "right:@#") as locked:
        gateway = gateways(locked.url, password="right:@#")
        await gateway.start()
        assert await gateway.store.put(gateway.entry())
        gateway.log.flush()
        assert b"right" not in gateway.lines


async def test_a_full_redis_still_answers(tmp_path: Path, gateways: Make) -> None:
    with running_redis(tmp_path / "full", "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as full:
        gateway = gateways(full.url)
        await gateway.start()
        kept = gateway.entry("kept")
        assert await gateway.store.put(kept)
        big = [gateway.entry(str(number), answer=answer("x" * 100_000)) for number in range(60)]
        taken = [await gateway.store.put(one) for one in big]
        assert not all(taken)
        assert gateway.link.breaker.state == "closed"
        assert await gateway.store.get(kept.key) == kept


def _other(gateway: Gateway) -> bytes:
    return encode_entry(gateway.entry("another"))


POISON: dict[str, Callable[[Gateway], bytes]] = {
    "random": lambda gateway: bytes(range(256)),
    "empty": lambda gateway: b"",
    "of another entry": _other,
    "cut": lambda gateway: encode_entry(gateway.entry())[:-1],
    "of another version": lambda gateway: b"\x07" + encode_entry(gateway.entry())[1:],
    "expired": lambda gateway: encode_entry(entry(now=time.time() - 100, epoch=gateway.entry().epoch)),
    "of an old epoch": lambda gateway: encode_entry(gateway.entry(epoch="0")),
    "deep": lambda gateway: b"\x01" + b"\x91" * 100_000,
    "5 MB": lambda gateway: b"\x01" * 5_000_000,
}


@pytest.mark.parametrize("kind", POISON)
@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
async def test_a_poisoned_value_is_a_miss(gateways: Make, kind: str, sealed: bool) -> None:
    gateway = gateways(budget_s=2.0, **({"seal": Sealer([bytes(32)])} if sealed else {}))
    await gateway.start()
    value = POISON[kind](gateway)
    await gateway.link.run(lambda client: client.execute("SET", NAMES.entry(digest("zinc")), value))
    assert await gateway.store.get(digest("zinc")) is None
    assert gateway.link.breaker.state == "closed"


async def test_a_sealed_value_moved_to_another_key_is_a_miss(gateways: Make) -> None:
    sealer = Sealer([bytes(32)])
    gateway = gateways(budget_s=2.0, seal=sealer)
    await gateway.start()
    stored = gateway.entry("another")
    moved = sealer.seal(encode_entry(stored), ENTRY_CONTEXT + stored.key)
    await gateway.link.run(lambda client: client.execute("SET", NAMES.entry(digest("zinc")), moved))
    assert await gateway.store.get(digest("zinc")) is None
    assert gateway.store.counts["damaged"] == 1


async def test_a_key_of_another_type_is_a_miss(gateways: Make) -> None:
    gateway = gateways(budget_s=2.0)
    await gateway.start()
    await gateway.link.run(lambda client: client.execute("LPUSH", NAMES.entry(digest("zinc")), "x"))
    assert await gateway.store.get(digest("zinc")) is None


async def test_redis_forgets_an_entry_at_its_end(gateways: Make) -> None:
    gateway = gateways(budget_s=2.0)
    await gateway.start()
    stored = gateway.entry(ttl_s=0.3)
    assert await gateway.store.put(stored)
    assert await gateway.store.get(stored.key) == stored
    await asyncio.sleep(0.35)
    assert await gateway.store.get(stored.key) is None
    assert await gateway.link.run(lambda client: client.execute("EXISTS", NAMES.entry(stored.key))) == 0


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
async def test_what_lies_in_redis(gateways: Make, sealed: bool) -> None:
    gateway = gateways(budget_s=2.0, **({"seal": Sealer([bytes(32)])} if sealed else {}))
    await gateway.start()
    stored = gateway.entry("tungsten", tenant="acme corp", answer=answer("a very secret answer"))
    assert await gateway.store.put(stored, VECTOR)
    assert await gateway.store.flush(Scope("tenant", "somebody"))
    names = await gateway.link.run(lambda client: client.execute("KEYS", "*"))
    assert names is not None
    tags = await gateway.link.run(lambda client: client.execute("HGETALL", NAMES.epochs))
    assert b"acme" not in b"".join(names) + b"".join(tags or [])
    assert b"somebody" not in b"".join(tags or [])
    value = await gateway.link.run(lambda client: client.execute("GET", NAMES.entry(stored.key)))
    log = await gateway.link.run(lambda client: client.execute("XRANGE", NAMES.log, "-", "+"))
    everything = repr(value) + repr(log)
    for word in ("tungsten", "acme", "very secret"):
        assert (word in everything) is not sealed


async def test_a_burst_of_look_ups_is_a_few_commands(gateways: Make) -> None:
    gateway = gateways(budget_s=2.0)
    await gateway.start()
    stored = [gateway.entry(str(number)) for number in range(200)]
    assert all(await asyncio.gather(*(gateway.store.put(one) for one in stored)))
    before = gateway.link.outcomes["ok"]
    keys = [one.key for one in stored] * 2
    assert await asyncio.gather(*(gateway.store.get(key) for key in keys)) == stored * 2
    assert gateway.link.outcomes["ok"] - before == 4


async def test_tls_works(tmp_path: Path, gateways: Make) -> None:
    certificate, key = _certificate(tmp_path)
    options = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    with running_redis(tmp_path / "tls", *options, tls=True) as server:
        gateway = gateways(f"{server.url}?ssl_ca_certs={certificate}", budget_s=5.0)
        await gateway.start()
        stored = gateway.entry()
        assert await gateway.store.put(stored, VECTOR)
        assert await gateway.store.get(stored.key) == stored


async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(tmp_path: Path, gateways: Make) -> None:
    certificate, key = _certificate(tmp_path)
    options = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    with running_redis(tmp_path / "tls", *options, tls=True) as server:
        gateway = gateways(server.url, budget_s=5.0)
        assert not await gateway.store.put(gateway.entry())
        assert gateway.link.outcomes["down"] == 1


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "server.pem", folder / "server.key"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files
