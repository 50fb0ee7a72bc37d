"""Questions to a Prometheus, and answers of all kinds."""

import json
import math

import pytest

from inferdock.cost.prometheus_api import HEARTBEAT, assemble, question, read_matrix
from inferdock.cost.series import Series, growth
from inferdock.domain.errors import UnreachableError
from inferdock.telemetry import names

G1, G2 = {"instance": "g1"}, {"instance": "g2"}


def answer(*series: tuple[dict, list], kind: str = "matrix") -> bytes:
    result = [{"metric": labels, "values": values} for labels, values in series]
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


def test_questions_are_for_raw_samples():
    assert question("x_total", window_s=60) == "x_total[60s]"
    assert question("x_total", window_s=60, selector='job="g"') == 'x_total{job="g"}[60s]'


def test_samples_are_read_as_they_are():
    (one,) = read_matrix(answer(({"model": "m"}, [[1.5, "2"], [2.5, "NaN"], [3.5, "rubbish"]])), "x_total")
    assert (one.name, one.labels, one.points[0]) == ("x_total", {"model": "m"}, (1.5, 2.0))
    assert [math.isnan(value) for _, value in one.points] == [False, True, True]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"<html>", "no Prometheus"),
        (b"[" * 100_000, "no Prometheus"),
        (b'{"status": "success"}', "does not answer"),
        (b'{"status": "error", "error": "parse error"}', "parse error"),
        (answer(kind="vector"), "with a vector"),
        (
            b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1]]}]}}',
            "no P",
        ),
    ],
    ids=["html", "deep", "empty", "error", "vector", "short-pair"],
)
def test_what_is_no_answer_is_refused(raw, words):
    with pytest.raises(UnreachableError, match=words):
        read_matrix(raw, "x_total")


def tokens(points: list, **labels: str) -> Series:
    return Series(names.TENANT_TOKENS, {"model": "m", "tenant": "a", "kind": "prompt", **labels}, points)


def test_a_counter_that_begins_between_two_looks_counts_from_zero():
    window = assemble(
        {
            HEARTBEAT: [Series(HEARTBEAT, G1, [(10.0, 1), (20.0, 1), (30.0, 1)])],
            names.TENANT_TOKENS: [
                tokens([(10.0, 100), (30.0, 105)], **G1),
                tokens([(20.0, 7), (30.0, 9)], **G1, revision="2"),
            ],
        }
    )
    assert [growth(one).amount for one in window.gateway] == [5, 9]
    assert window.elapsed == 20


def test_what_was_counted_before_anybody_looked_is_not_part_of_the_window():
    window = assemble(
        {
            HEARTBEAT: [Series(HEARTBEAT, G1, [(25.0, 1), (30.0, 1)])],
            names.TENANT_TOKENS: [tokens([(25.0, 9), (30.0, 10)], **G1)],
        }
    )
    assert ([growth(one).amount for one in window.gateway], window.elapsed) == ([1], 5)


def test_each_gateway_has_its_own_first_look():
    beats = [Series(HEARTBEAT, G1, [(0.0, 1), (60.0, 1)]), Series(HEARTBEAT, G2, [(30.0, 1), (60.0, 1)])]
    window = assemble({HEARTBEAT: beats, names.TENANT_TOKENS: [tokens([(30.0, 500), (60.0, 501)], **G2)]})
    assert ([growth(one).amount for one in window.gateway], window.elapsed) == ([1], 60)


def test_nobody_looked():
    assert assemble({}).elapsed == 0
