"""Rows from small books: what the platform shows is made by hand, right and wrong."""

from __future__ import annotations

import pytest
from bench.agreement.checks import held_between, of_metrics
from bench.agreement.shown import Exposition
from bench.agreement.traffic import Record

from inferdock.telemetry import names as n
from inferdock.telemetry.samples import Sample

CHAT = "/v1/chat/completions"


def record(**given: object) -> Record:
    one = Record("chat body", "red", True, False, 8, sent=1.0, first=1.2, ended=1.2, status=200, revision="r1")
    for name, value in given.items():
        setattr(one, name, value)
    return one


def requests(value: float, revision: str = "r1", status: str = "200", route: str = CHAT) -> Sample:
    return Sample(n.REQUESTS, {"revision": revision, "status": status, "route": route}, value)


def wrong(samples: list[Sample], records: list[Record]) -> list[str]:
    rows = of_metrics(Exposition(samples), records)
    return [row.number for row in rows if row.number.startswith("requests ") and not row.agrees]


def test_requests_agree_by_revision_route_and_status() -> None:
    records = [record(), record(), record(kind="wrong key", revision="", status=401)]
    shown = [requests(2), requests(1, "", "401", "refused"), requests(7, "", "200", "own")]
    assert wrong(shown, records) == []


@pytest.mark.parametrize(
    ("shown", "number"),
    [
        ([requests(3)], f"requests r1 {CHAT} 200"),
        ([], f"requests r1 {CHAT} 200"),
        ([requests(2), requests(1, status="503")], f"requests r1 {CHAT} 503"),
    ],
    ids=["one too many", "none", "one that nobody sent"],
)
def test_a_count_that_differs_is_found(shown: list[Sample], number: str) -> None:
    assert wrong(shown, [record(), record()]) == [number]


def test_of_a_stream_that_was_left_only_bounds_are_known() -> None:
    left = record(stream=True, left=True, pieces=3)
    assert (left.output_range, left.prompt_range, left.tpot) == ((3, 8), (0, 0), None)


def test_of_a_whole_answer_tokens_are_exact() -> None:
    whole = record(stream=True, prompt=5, output=4, ended=1.5)
    assert (whole.output_range, whole.prompt_range) == ((4, 4), (5, 5))
    assert whole.tpot == pytest.approx(0.1)


def test_time_of_replicas_is_that_between_the_looks() -> None:
    history = [(0.0, 0.0), (1.0, 2.0), (2.0, 4.0), (3.0, 4.0)]
    assert (held_between(history, 0.0, 3.0), held_between(history, 1.5, 3.0)) == (4.0, 2.0)
