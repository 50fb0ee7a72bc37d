"""API keys and their limits at the gateway's door, and who gets in without."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from inferdock.app.gateway import check_keys
from inferdock.config.settings import GatewaySettings, KeysSettings, Settings
from inferdock.domain.errors import ConfigError
from inferdock.keys.store import KeyFile
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.gateway import RunningGateway, running_gateway, specs

CHAT = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "ignore_eos": True}
FAST = SimOptions(ttft_s=0, itl_s=0.001)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.jsonl")


def make(file: KeyFile, **limits: object) -> str:
    """A new key's text."""
    _, text = file.create(name="test", now=time.time(), **limits)
    return text


@contextlib.asynccontextmanager
async def guarded(file: KeyFile, options: SimOptions = FAST, **settings: object) -> AsyncIterator[RunningGateway]:
    keys = KeysSettings(file=file.path, reload_interval_s=0.05)
    async with running_sim(options) as replica, running_gateway([replica.url], keys=keys, **settings) as gateway:
        yield gateway


async def ask(http: aiohttp.ClientSession, gateway: RunningGateway, key: str | None, body: dict = CHAT):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with http.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, response.headers, await response.text()


async def test_without_a_key_nobody_gets_in_once_there_is_one(http, file):
    key = make(file)
    async with guarded(file) as gateway:
        assert (await ask(http, gateway, key))[0] == 200
        status, headers, text = await ask(http, gateway, None)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "invalid_api_key" in text
        assert (await ask(http, gateway, key[:-1] + ("a" if key[-1] != "a" else "b")))[0] == 401


@pytest.mark.parametrize(("sticky", "revisions"), [("session", 2), ("key", 1)])
async def test_a_key_may_stay_with_one_revision_while_weights_divide_requests(http, file, sticky, revisions):
    texts = [make(file) for _ in range(20)]
    keys = KeysSettings(file=file.path)
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with running_gateway([], keys=keys, sticky=sticky) as gateway:
            old, new = specs([stable.url]), specs([canary.url], revision="r2")
            gateway.server.replace_endpoints([*old, dataclasses.replace(new[0], name="canary")])
            await gateway.until_ready(2)
            gateway.server.set_traffic("sim", {"r1": 50, "r2": 50})
            seen = []
            for key in texts:
                answers = [await ask(http, gateway, key) for _ in range(6)]
                seen.append({headers["x-inferdock-revision"] for _, headers, _ in answers})
    assert {len(met) for met in seen} == {revisions}
    assert set().union(*seen) == {"r1", "r2"}


async def test_probes_need_no_key_but_the_models_do(http, file):
    make(file)
    async with guarded(file) as gateway:
        statuses = []
        for path in ("/health", "/ready", "/metrics", "/v1/models"):
            async with http.get(gateway.url + path) as response:
                statuses.append(response.status)
    assert statuses == [200, 200, 200, 401]


async def test_a_key_only_sees_its_models(http, file):
    other, mine = make(file, models=["another"]), make(file, models=["sim"])
    async with guarded(file) as gateway:
        forbidden = await ask(http, gateway, other)
        missing = await ask(http, gateway, mine, CHAT | {"model": "nothing"})
        assert (forbidden[0], missing[0]) == (404, 404)
        assert forbidden[2].replace("sim", "X") == missing[2].replace("nothing", "X")  # one answer: names do not leak
        async with http.get(f"{gateway.url}/v1/models", headers={"x-api-key": other}) as response:
            assert (await response.json())["data"] == []
        async with http.get(f"{gateway.url}/v1/models/sim", headers={"x-api-key": mine}) as response:
            assert response.status == 200


async def test_requests_over_the_limit_get_429_with_the_numbers(http, file):
    key = make(file, requests_per_minute=2)
    async with guarded(file) as gateway:
        answers = [await ask(http, gateway, key) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert answers[0][1]["x-ratelimit-limit-requests"] == "2"
    assert answers[0][1]["x-ratelimit-remaining-requests"] == "1"
    assert int(answers[2][1]["retry-after"]) >= 1
    assert answers[2][1]["x-ratelimit-remaining-requests"] == "0"


async def test_tokens_are_counted_as_the_engine_counts_them(http, file):
    key = make(file, tokens_per_minute=1000)
    async with guarded(file) as gateway:
        _, _, text = await ask(http, gateway, key)
        _, headers, _ = await ask(http, gateway, key, CHAT | {"max_tokens": 1})
    assert '"completion_tokens": 5' in text or '"completion_tokens":5' in text
    assert int(headers["x-ratelimit-remaining-tokens"]) > 900


async def test_streams_at_once_are_limited_and_free_again_when_they_end(http, file):
    key = make(file, concurrent_streams=1)
    slow = SimOptions(ttft_s=0, itl_s=0.05)
    body = CHAT | {"stream": True, "max_tokens": 10}
    async with guarded(file, slow) as gateway:
        first = asyncio.create_task(ask(http, gateway, key, body))
        await asyncio.sleep(0.2)
        assert (await ask(http, gateway, key, body))[0] == 429
        assert (await first)[0] == 200
        assert (await ask(http, gateway, key, body))[0] == 200


async def test_a_client_that_leaves_gives_its_stream_back(http, file):
    key = make(file, concurrent_streams=1)
    body = CHAT | {"stream": True, "max_tokens": 500}
    async with guarded(file, SimOptions(ttft_s=0, itl_s=0.05)) as gateway:
        headers = {"authorization": f"Bearer {key}"}
        async with http.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as response:
            await response.content.readany()
        async with asyncio.timeout(10):
            while (await ask(http, gateway, key, body | {"max_tokens": 1}))[0] != 200:
                await asyncio.sleep(0.05)


async def test_a_revoked_key_stops_working_while_the_gateway_runs(http, file):
    key, other = make(file), make(file)
    async with guarded(file) as gateway:
        assert (await ask(http, gateway, key))[0] == 200
        file.revoke(key.split("_")[1], now=time.time())
        async with asyncio.timeout(10):
            while (await ask(http, gateway, key))[0] != 401:
                await asyncio.sleep(0.02)
        assert (await ask(http, gateway, other))[0] == 200


async def test_a_damaged_file_changes_nothing_and_is_named(http, file):
    key = make(file)
    async with guarded(file) as gateway:
        file.path.write_text("this is no key\n")
        async with asyncio.timeout(10):
            while b"keys not read" not in bytes(gateway.log):
                await asyncio.sleep(0.02)
        assert (await ask(http, gateway, key))[0] == 200
        assert (await ask(http, gateway, None))[0] == 401


async def test_neither_log_nor_metrics_hold_a_key(http, file):
    key = make(file)
    async with guarded(file) as gateway:
        await ask(http, gateway, key)
        await ask(http, gateway, key + "x")
        async with http.get(f"{gateway.url}/metrics") as response:
            metrics = await response.text()
        await asyncio.sleep(0.3)
        secret = key.rpartition("_")[2]
        assert secret not in bytes(gateway.log).decode()
        assert secret not in metrics
        assert f'"key":"{key.split("_")[1]}"' in bytes(gateway.log).decode()


@pytest.mark.parametrize(
    ("host", "keys", "starts"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("0.0.0.0", {}, False),
        ("0.0.0.0", {"allow_unauthenticated": True}, True),
        ("0.0.0.0", {"check": "always"}, True),
        ("0.0.0.0", {"check": "never"}, False),
    ],
)
def test_an_open_address_needs_keys_or_a_word(tmp_path, host, keys, starts):
    settings = Settings(
        gateway=GatewaySettings(host=host), keys=KeysSettings(file=tmp_path / "none", **keys), state_dir=tmp_path
    )
    if starts:
        check_keys(settings)
    else:
        with pytest.raises(ConfigError, match="inferdock keys create"):
            check_keys(settings)
