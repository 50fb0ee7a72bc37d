"""Parts of a gateway with workers: frames, slot numbers, settings on their way, rounds, sums, listeners, boards."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.app.workers import pack
from inferdock.balance.board import Board
from inferdock.balance.endpoints import EndpointSet, State
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.config.load import flatten
from inferdock.config.settings import GatewaySettings, ModelRouteSettings, Settings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import ResourceError
from inferdock.gateway.listening import open_listeners
from inferdock.gateway.reload import pin
from inferdock.gateway.workers import frames
from inferdock.gateway.workers.boards import BOARDS, forget_row, shared_boards
from inferdock.gateway.workers.fresh import FreshRounds
from inferdock.gateway.workers.packed import unpack
from inferdock.gateway.workers.slots import Slots, SlotsExhaustedError
from inferdock.telemetry.instruments import Counter, Gauge, Histogram, SnapshotSum, show, snapshot_of

# -- Frames ----------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=5), st.data())
def test_any_cutting_of_the_stream_gives_the_same_frames(texts, data):
    stream = b"".join(frames.frame_bytes(frames.Text(text)) for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = frames.FrameReader(frames.ToWorker)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert [frame.text for frame in found] == texts


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\x91\xa1", b"\x00\x00\x00\x01\xc0"])
def test_what_is_no_frame_is_an_error(data):
    with pytest.raises(ValueError, match="frame"):
        frames.FrameReader(frames.ToWorker).feed(data)


# -- Slots -----------------------------------------------------------------------------------------------------


def spec(name: str, port: int = 1) -> EndpointSpec:
    return EndpointSpec(name, "127.0.0.1", port, "sim", "")


def test_the_number_of_an_endpoint_that_left_waits_for_its_requests_and_for_every_worker():
    held = {0}
    slots = Slots(3, in_use=lambda slot: slot in held)
    assert slots.assign([spec("a")], version=1, known_version=0) == {"a": 0}
    assert slots.assign([spec("b")], version=2, known_version=1) == {"b": 1}
    assert slots.assign([spec("b"), spec("c")], version=3, known_version=2) == {"b": 1, "c": 2}  # 0 is held
    held.clear()
    assert slots.assign([spec("c")], version=4, known_version=3)["c"] == 2
    with pytest.raises(SlotsExhaustedError):  # a worker may still send to b, whose number is 1
        slots.assign([spec("c"), spec("d"), spec("e")], version=5, known_version=3)
    assert slots.assign([spec("c"), spec("d"), spec("e")], version=5, known_version=4) == {"c": 2, "d": 0, "e": 1}


def test_another_address_under_an_old_name_gets_another_number():
    slots = Slots(4, in_use=lambda slot: False)
    slots.assign([spec("a", 1)], version=1, known_version=0)
    assert slots.assign([spec("a", 2)], version=2, known_version=1) == {"a": 1}


@given(st.lists(st.sets(st.integers(0, 5)), max_size=20))
def test_no_two_endpoints_ever_share_a_number(history):
    slots = Slots(64, in_use=lambda slot: slot % 2 == 0)
    for version, ports in enumerate(history, start=1):
        given_out = slots.assign([spec(str(p), p) for p in ports], version=version, known_version=version - 1)
        assert len(set(given_out.values())) == len(given_out) == len(ports)


# -- Load over processes -----------------------------------------------------------------------------------------


def test_the_least_outstanding_endpoint_is_found_with_what_other_workers_hold():
    mine = Board.shared(rows=2, columns=8, row=0)
    other = Board.attach(mine.fd, rows=2, columns=8, row=1)
    clock = iter(range(1000))
    endpoints = EndpointSet(LeastOutstanding(), board=mine, clock=lambda: float(next(clock)))
    endpoints.replace([spec("a", 1), spec("b", 2)], slots={"a": 0, "b": 1})
    for endpoint in endpoints:
        endpoint.state = State.READY
    other.add(0, 6)
    assert [endpoints.lease("sim").endpoint.spec.name for _ in range(6)] == ["b"] * 6


def test_a_row_is_forgotten_on_every_board():
    boards = shared_boards(2)
    for board in boards.values():
        dead = Board.attach(board.fd, rows=3, columns=board.columns, row=1)
        dead.add(3, 5)
        board.add(3, 1)
    forget_row(boards, 1)
    assert [boards[name].total(3) for name in BOARDS] == [1] * len(BOARDS)


# -- Settings ----------------------------------------------------------------------------------------------------

SETTINGS = Settings(
    gateway=GatewaySettings(port=5, models={"m": ModelRouteSettings(resume=False)}), state_dir=Path("/some/where")
)


def plain(value):
    """Groups as mappings: a worker has no settings' classes."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {name: plain(item) for name, item in vars(value).items()} if hasattr(value, "__dict__") else value


def test_a_worker_reads_the_same_settings():
    worker = unpack(
        frames.FrameReader(frames.ToWorker).feed(frames.frame_bytes(frames.Configure(pack(SETTINGS))))[0].settings
    )
    assert worker.gateway.models["m"].resume is False
    for key, value in flatten(SETTINGS):
        if "models" not in key:
            found = worker
            for name in key.split("."):
                found = getattr(found, name)
            assert plain(found) == plain(value), key


def test_settings_have_only_fields_as_a_worker_sees_nothing_else():
    for group in (Settings, *(field.annotation for field in Settings.model_fields.values())):
        if hasattr(group, "model_fields"):
            own = {name for name in vars(group) if not name.startswith(("_", "model_"))}
            assert own <= set(group.model_fields), group


def test_what_needs_a_restart_keeps_its_value():
    new = Settings(gateway=GatewaySettings(port=6, max_in_flight=9), drain_timeout_s=1)
    pinned = pin(new, SETTINGS)
    assert (pinned.gateway.port, pinned.gateway.max_in_flight, pinned.drain_timeout_s) == (5, 9, 1)


# -- Figures -----------------------------------------------------------------------------------------------------


def instruments() -> tuple[Counter, Histogram, Gauge, Counter]:
    counter = Counter("x_total", "", ("a",))
    histogram = Histogram("x_seconds", "", (), (1.0, 2.0))
    gauge = Gauge("x_now", "", (), lambda: [((), counter.total())])
    return counter, histogram, gauge, Counter("own_total", "", (), merged=False)


def test_sums_are_those_of_all_workers_and_keep_what_the_dead_had_counted():
    total = SnapshotSum()
    for worker in (1, 2, 3):
        counter, histogram, gauge, own = instruments()
        counter.cell("p").value += worker
        histogram.cell().observe(1.5)
        own.cell().value += 100
        total.update(worker, snapshot_of([counter, histogram, gauge, own]))
    total.gone(1)
    counter, histogram, gauge, own = shown = instruments()
    own.cell().value = 7
    show(shown, total.total())
    assert (counter.cell("p").value, histogram.cell().counts, own.total()) == (6, [0, 3, 0], 7)
    assert gauge.samples() == [((), [5.0])]  # what worker 1 held has gone with it


async def test_questions_during_a_round_wait_for_one_that_begins_later():
    asked: list[int] = []
    answers: list[str] = []

    def ask(round_: int) -> set[int]:
        asked.append(round_)
        return {1, 2}

    rounds = FreshRounds(ask, asyncio.get_running_loop())
    rounds.ask(lambda: answers.append("first"))
    rounds.came(1, 1)
    rounds.ask(lambda: answers.append("second"))
    rounds.ask(lambda: answers.append("third"))
    assert (asked, answers) == ([1], [])
    rounds.gone(2)
    assert (asked, answers) == ([1, 2], ["first"])
    rounds.came(1, 2)
    rounds.came(2, 1)  # late, of the first round
    assert answers == ["first"]
    rounds.came(2, 2)
    assert answers == ["first", "second", "third"]


async def test_a_silent_worker_delays_an_answer_for_a_moment_only():
    done = asyncio.Event()
    FreshRounds(lambda _: {1}, asyncio.get_running_loop()).ask(done.set)
    async with asyncio.timeout(5):
        await done.wait()


# -- Listening ---------------------------------------------------------------------------------------------------


def test_the_kernel_spreads_connections_over_the_groups():
    groups = open_listeners("127.0.0.1", 0, 2)
    address = groups[0][0].getsockname()
    clients = [socket.create_connection(address) for _ in range(40)]
    accepted = []
    for (listener,) in groups:
        count = 0
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
        accepted.append(count)
    for sock in [*clients, *(sock for group in groups for sock in group)]:
        sock.close()
    assert (sum(accepted), min(accepted) > 0) == (40, True)


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_listens_on_is_refused(shared):
    with socket.socket() as holder:
        if shared:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(ResourceError, match="is in use"):
            open_listeners("127.0.0.1", holder.getsockname()[1], 2)


def test_an_address_of_elsewhere_is_refused_in_words():
    with pytest.raises(ResourceError, match="Cannot listen on"):
        open_listeners("203.0.113.1", 0, 2)


# -- What a worker loads -------------------------------------------------------------------------------------------


def test_a_worker_does_without_the_large_libraries():
    """They cost a worker memory and the time until it serves; what it needs of them its parent does."""
    program = "import sys, inferdock.app.worker; print([m for m in sys.argv[1:] if m in sys.modules])"
    unwanted = ["pydantic", "prometheus_client", "click", "rich", "yaml", "aiohttp"]
    result = subprocess.run([sys.executable, "-c", program, *unwanted], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
