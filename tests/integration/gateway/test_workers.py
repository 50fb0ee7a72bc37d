"""A gateway of several processes: one port, one view of load and health, one set of figures, one drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time

import aiohttp
import pytest

from inferdock.gateway.workers import crew
from inferdock.gateway.workers.worker import REPORT_S
from inferdock.keys.store import KeyFile
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.workers import (
    GatewayProcess,
    ask,
    fetch_metrics,
    gateway_process,
    open_streams,
    running_workers,
    status_of,
)

SLOW = SimOptions(itl_s=0.02, ttft_s=0.0)


async def test_the_workers_share_the_connections_and_the_replicas_get_equal_shares():
    async with running_sim(SLOW) as one, running_sim(SLOW) as two:
        async with running_workers([one.url, two.url]) as gateway:
            streams = await open_streams(gateway.url, 24, tokens=60)
            status = gateway.parent.status()
            assert (status["in_flight"], status["connections"]) == (24, 24)
            assert all(worker["connections"] > 0 for worker in status["workers"])
            assert sorted(e["in_flight"] for e in status["endpoints"]) in ([12, 12], [11, 13])
            assert all([await stream.whole() for stream in streams])


async def test_merged_metrics_are_what_the_clients_sent_wherever_they_are_asked_for():
    async with running_sim() as one:
        async with running_workers([one.url]) as gateway:
            answers = await asyncio.gather(*(ask(gateway.url, tokens=4) for _ in range(40)))
            assert [status for status, _ in answers] == [200] * 40
            for url in (gateway.url, gateway.admin_url):
                sums = await fetch_metrics(url)
                assert sums["llm_gateway_output_tokens_total"] == 160
                assert sums["llm_gateway_request_duration_seconds_count"] == 40
                assert sums["llm_gateway_workers"] == 2


async def test_a_killed_worker_costs_its_own_streams_only_and_is_replaced():
    async with running_sim(SLOW) as one, running_sim(SLOW) as two:
        async with running_workers([one.url, two.url]) as gateway:
            await asyncio.gather(*(ask(gateway.url) for _ in range(20)))
            before = await fetch_metrics(gateway.url)
            streams = await open_streams(gateway.url, 20, tokens=100)
            await asyncio.sleep(2 * REPORT_S)  # what a worker counts after its last snapshot is lost with it
            (held,) = [worker["in_flight"] for worker in gateway.workers() if worker["worker"] == 0]
            gateway.kill(0)
            answers = await asyncio.gather(*(ask(gateway.url) for _ in range(20)))
            assert [status for status, _ in answers] == [200] * 20
            whole = [await stream.whole() for stream in streams]
            assert (whole.count(False), 0 < held < 20) == (held, True)
            await gateway.until_whole()
            after = await fetch_metrics(gateway.url)
            assert after["llm_gateway_requests_lost_total"] == after["llm_gateway_connections_lost_total"] == held
            assert after["llm_gateway_worker_deaths_total"] == 1
            assert after["llm_gateway_requests_total"] == before["llm_gateway_requests_total"] + 1 + 40 - held
            assert {e["in_flight"] for e in gateway.parent.status()["endpoints"]} == {0}


async def test_no_counter_falls_while_workers_die():
    async with running_sim() as one:
        async with running_workers([one.url]) as gateway:
            seen: dict[str, float] = {}
            for turn in range(4):
                await asyncio.gather(*(ask(gateway.url) for _ in range(8)))
                now = await fetch_metrics(gateway.admin_url)
                assert all(now[name] >= value for name, value in seen.items())
                seen = {name: value for name, value in now.items() if name.endswith(("_total", "_count", "_bucket"))}
                await asyncio.sleep(2 * REPORT_S)
                gateway.kill(turn % 2)
                await gateway.until(lambda status, turn=turn: sum(w["deaths"] for w in status["workers"]) > turn)
                await gateway.until_whole()
            assert seen["llm_gateway_request_duration_seconds_count"] == 32


async def test_a_worker_that_hangs_is_replaced(monkeypatch):
    monkeypatch.setattr(crew, "SILENT_S", 1.0)
    async with running_sim() as one:
        async with running_workers([one.url]) as gateway:
            pid = gateway.workers()[0]["pid"]
            gateway.parent.signal_worker(0, signal.SIGSTOP)
            await gateway.until(lambda status: pid not in [w["pid"] for w in status["workers"]])
            await gateway.until_whole()
            assert (await ask(gateway.url))[0] == 200


async def test_a_worker_that_is_told_to_end_finishes_its_streams_while_others_take_its_connections():
    async with running_sim(SLOW) as one:
        async with running_workers([one.url]) as gateway:
            streams = await open_streams(gateway.url, 12, tokens=50)
            pid = gateway.workers()[0]["pid"]
            gateway.parent.signal_worker(0, signal.SIGTERM)
            await gateway.until(lambda status: status["workers"][0]["state"] == "draining")
            answers = await asyncio.gather(*(ask(gateway.url) for _ in range(12)))
            assert [status for status, _ in answers] == [200] * 12
            assert all([await stream.whole() for stream in streams])
            await gateway.until(lambda status: pid not in [w["pid"] for w in status["workers"]])
            await gateway.until_whole()
            assert (await fetch_metrics(gateway.url))["llm_gateway_worker_deaths_total"] == 0


async def test_all_workers_learn_of_a_replica_that_is_gone_and_of_a_new_set():
    async with running_sim() as one:
        async with running_sim() as two:
            async with running_workers([one.url, two.url]) as gateway:
                await two.stop()
                await gateway.until(lambda status: {e["state"] for e in status["endpoints"]} == {"ready", "unready"})
                answers = await asyncio.gather(*(ask(gateway.url) for _ in range(16)))
                assert [status for status, _ in answers] == [200] * 16
                gateway.parent.replace_endpoints([])
                await asyncio.sleep(0.1)
                assert {await status_of(f"{gateway.url}/ready") for _ in range(8)} == {503}


async def test_a_worker_that_cannot_ask_its_parent_answers_503(monkeypatch):
    async with running_sim() as one:
        async with running_workers([one.url]) as gateway:
            monkeypatch.setattr(gateway.parent, "when_fresh", lambda ready: None)
            assert await status_of(f"{gateway.url}/metrics") == 503


async def test_sigterm_drains_all_workers(tmp_path):
    async with running_sim(SLOW) as one:
        with gateway_process(tmp_path, [one.url], "--workers", "2") as gateway:
            await gateway.until_ready()
            streams = await open_streams(gateway.url, 12, tokens=80)
            gateway.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            assert {await status_of(f"{gateway.url}/ready") for _ in range(12)} == {503}
            assert all([await stream.whole() for stream in streams])
            assert await gateway.ended() == 0
            assert await status_of(f"{gateway.url}/health") == 0


async def test_the_announce_file_names_the_workers_that_run_now(tmp_path):
    async with running_sim() as one:
        with gateway_process(tmp_path, [one.url], "--workers", "2") as gateway:
            await gateway.until_ready()
            before = set(gateway.announced["workers"])
            os.kill(min(before), signal.SIGKILL)
            async with asyncio.timeout(20):
                while len(set(gateway.announced["workers"]) - before) != 1:
                    await asyncio.sleep(0.02)
            assert gateway.announced["pid"] == gateway.process.pid


async def test_the_drain_ends_at_its_deadline(tmp_path):
    async with running_sim(SLOW) as one:
        with gateway_process(tmp_path, [one.url], "--workers", "2", "--drain-timeout", "0.5") as gateway:
            await gateway.until_ready()
            streams = await open_streams(gateway.url, 4, tokens=2000)
            gateway.process.send_signal(signal.SIGTERM)
            assert await gateway.ended(within_s=10) == 0
            assert not any([await stream.whole() for stream in streams])
            assert '"all workers drained","unfinished":4' in gateway.log


async def test_without_their_parent_workers_finish_what_is_open_and_free_the_port_at_once(tmp_path):
    async with running_sim(SLOW) as one:
        with gateway_process(tmp_path, [one.url], "--workers", "2") as gateway:
            await gateway.until_ready()
            port = gateway.announced["port"]
            streams = await open_streams(gateway.url, 8, tokens=100)
            gateway.process.kill()
            await gateway.ended()
            await asyncio.sleep(0.3)
            second = GatewayProcess(tmp_path, [one.url], "--workers", "2", "--port", str(port))
            try:
                await second.until_ready()
                assert (await ask(second.url))[0] == 200
            finally:
                second.process.terminate()
                await second.ended()
            assert all([await stream.whole() for stream in streams])


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_gateway_on_the_port_is_refused(tmp_path, workers):
    async with running_sim() as one:
        async with running_workers([one.url]) as gateway:
            second = GatewayProcess(tmp_path, [], "--workers", workers, "--port", str(gateway.parent.port))
            assert await second.ended() == 5
            assert "is in use" in second.log


async def test_a_foreign_listener_that_would_share_the_port_is_refused(tmp_path):
    with socket.socket() as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        second = GatewayProcess(tmp_path, [], "--workers", "2", "--port", str(foreign.getsockname()[1]))
        assert await second.ended() == 5


async def test_admin_status_has_totals_and_a_row_per_worker():
    async with running_sim() as one:
        async with running_workers([one.url], workers=3) as gateway:
            await asyncio.gather(*(ask(gateway.url) for _ in range(9)))
            async with aiohttp.ClientSession() as http:
                async with http.get(f"{gateway.admin_url}/admin/status") as response:
                    status = await response.json()
            assert status["requests_total"] == 9
            assert [row["worker"] for row in status["workers"]] == [0, 1, 2]
            assert sorted(row["pid"] for row in status["workers"]) == sorted(gateway.parent.pids)


async def test_a_key_and_its_limit_count_in_all_workers_together(tmp_path):
    file = KeyFile(tmp_path / "keys.jsonl")
    _, key = file.create(name="test", now=time.time(), requests_per_minute=10)
    async with running_sim() as one:
        with gateway_process(tmp_path, [one.url], "--workers", "2", config=f"keys: {{file: {file.path}}}") as gateway:
            await gateway.until_ready()
            answers = [await ask(gateway.url, key=key) for _ in range(24)]
            assert [status for status, _ in answers] == [200] * 10 + [429] * 14
            assert (await ask(gateway.url))[0] == 401


async def test_the_limit_on_requests_in_flight_is_that_of_the_whole_gateway():
    async with running_sim(SLOW) as one:
        async with running_workers([one.url], max_in_flight=6) as gateway:
            held = await open_streams(gateway.url, 6, tokens=100)
            answers = await asyncio.gather(*(ask(gateway.url) for _ in range(8)))
            assert [status for status, _ in answers] == [503] * 8
            assert all([await stream.whole() for stream in held])
