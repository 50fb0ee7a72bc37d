"""Figures, commands and records of the console."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from inferdock.app.console.commands import Commands, read, still_meant
from inferdock.app.console.figures import Totals, quantiles, recent, still_true, total
from inferdock.app.console.records import ENCODE, keys
from inferdock.app.console.releases import releases
from inferdock.domain.errors import RequestError
from inferdock.keys.store import KeyFile
from inferdock.release.records.file_journal import FileJournals
from inferdock.telemetry import names
from inferdock.telemetry.samples import Sample


def requests(value: float, route: str = "chat", status: str = "200") -> Sample:
    return Sample(names.REQUESTS, {"route": route, "status": status}, value)


def test_totals_add_up_over_labels_and_leave_out_what_is_no_work() -> None:
    gateway = [
        requests(5),
        requests(2, status="503"),
        requests(9, route="own"),
        requests(1, route="refused", status="401"),
        Sample(names.OUTPUT_TOKENS, {"model": "a"}, 30.0),
        Sample(names.OUTPUT_TOKENS, {"model": "b"}, 12.0),
    ]
    engines = [Sample(names.ENGINE_PREFIX_HITS, {}, 3.0), Sample(names.ENGINE_PREFIX_QUERIES, {}, 4.0)]
    found = total(1.0, gateway, engines)
    assert (found.sums["requests"], found.sums["failed"], found.sums["output_tokens"]) == (7, 2, 42)
    assert recent([found], found)["prefix_cache_ratio"] == 0.75


def test_rates_are_of_the_last_ten_seconds() -> None:
    past = [total(float(second), [requests(10.0 * second)], []) for second in range(30)]
    assert recent(past, past[-1])["requests_per_s"] == pytest.approx(10)
    assert recent(past[:1], past[0])["requests_per_s"] is None


def test_looks_from_before_a_pause_or_a_restart_do_not_count() -> None:
    past = [total(float(second), [requests(10.0)], []) for second in range(3)]
    assert still_true(past, total(61.5, [requests(12)], [])) == past[2:]
    assert still_true(past, total(600.0, [requests(500)], [])) == []
    assert still_true(past, total(3.0, [requests(2)], [])) == []


def test_nothing_seen_is_no_figure_and_not_zero() -> None:
    now = total(5.0, [], [])
    figures = recent([now], now)
    assert figures["prefix_cache_ratio"] is None
    assert set(figures["ttft_s"].values()) == {None}


def test_quantiles_are_of_what_came_since() -> None:
    before, now = {0.1: 100.0, 0.2: 100.0, math.inf: 100.0}, {0.1: 100.0, 0.2: 110.0, math.inf: 110.0}
    assert quantiles(before, now)["p50"] == pytest.approx(0.15)
    assert quantiles(now, now)["p50"] is None
    assert quantiles({}, {}) == {"p50": None, "p95": None, "p99": None}


def test_a_gateway_that_began_anew_gives_no_negative_quantiles() -> None:
    assert quantiles({0.1: 50.0, math.inf: 50.0}, {0.1: 3.0, math.inf: 3.0})["p95"] is None


def test_totals_begin_at_zero() -> None:
    assert Totals(0.0).sums == {}


def asked(action: str, **more: object) -> bytes:
    return ENCODE({"action": action, "confirmed": action, "release": "r1", "over": False, **more})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_request"),
        (b"[" * 5000, "bad_request"),
        (b'{"action": "delete", "confirmed": "delete"}', "bad_request"),
        (asked("rollback")[:-1] + b', "confirmed": "pause"}', "not_confirmed"),
        (b'{"action": "rollback", "release": null, "over": true}', "bad_request"),
        (b'{"action": "pause", "confirmed": "pause"}', "bad_request"),
        (asked("pause")[:-1] + b', "to": "x"}', "bad_request"),
        (asked("pause", reason="x" * 301), "bad_request"),
        (b"\xff", "bad_request"),
    ],
    ids=["empty", "deep", "unknown", "another", "unconfirmed", "of-nothing", "more", "long", "bytes"],
)
def test_commands_that_make_no_sense_are_refused(body: bytes, code: str) -> None:
    with pytest.raises(RequestError) as error:
        read(body)
    assert (error.value.status, error.value.code) == (400, code)


MEANWHILE: dict[str, tuple[dict[str, object] | None, str]] = {
    "it has ended": ({"id": "r1", "over": True, "state": "aborted"}, "the release has meanwhile become aborted"),
    "another one has begun": ({"id": "r2", "over": False, "state": "running"}, "release r2 is shown by now"),
    "its journal is gone": (None, "no release is shown any more"),
}


@pytest.mark.parametrize(("now", "why"), MEANWHILE.values(), ids=MEANWHILE)
def test_a_command_is_only_for_the_release_that_was_confirmed(now: dict[str, object] | None, why: str) -> None:
    with pytest.raises(RequestError, match=f"Nothing was done, since {why}") as error:
        still_meant(read(asked("rollback")), now)
    assert (error.value.status, error.value.code) == (409, "not_that_release")


def test_a_release_that_has_only_gone_on_is_still_the_one_that_was_confirmed() -> None:
    still_meant(read(asked("abort")), {"id": "r1", "over": False, "state": "baking"})
    still_meant(read(asked("rollback", release=None, over=True)), None)


async def test_a_command_without_a_platform_says_why_it_ended(tmp_path: Path) -> None:
    commands = Commands(["--state-dir", str(tmp_path)], {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, tmp_path)
    command = commands.begin(read(asked("pause", reason="a\n\x1b[31mb")), "abcd2345")
    assert command.reason == "a[31mb (console, key abcd2345)"
    for task in list(commands._tasks):
        await task
    assert command.code
    assert "No platform is running" in command.said


async def test_commands_that_are_at_work_end_with_the_platform(tmp_path: Path) -> None:
    commands = Commands([], {}, tmp_path)
    command = commands.begin(read(asked("pause")), "")
    await commands.close()
    assert commands._tasks == set() or all(task.done() for task in commands._tasks)
    assert command.reason == "(console)"


def test_keys_are_shown_without_anything_secret(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.jsonl")
    key, text = file.create(name="alice", now=0.0, requests_per_minute=5, admin=True)
    said = ENCODE(keys(file.read(), "auto")).decode()
    assert text not in said
    assert key.digest.hex() not in said
    assert (keys(file.read(), "auto")["keys"][0]["name"], keys(file.read(), "auto")["keys"][0]["admin"]) == (
        "alice",
        True,
    )


async def test_a_damaged_journal_hides_no_other(tmp_path: Path) -> None:
    journals = FileJournals(tmp_path)
    assert await releases(journals) == {"current": None, "releases": []}
    journals.path("20260101-000000-1-1-0").write_bytes(b"nonsense\n")
    found = await releases(journals)
    assert (found["current"], found["releases"][0]["state"]) == (None, "damaged")
