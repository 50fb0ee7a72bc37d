"""Instruments and logs."""

import json
import os
import select

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferdock.telemetry.exposition import Exposition
from inferdock.telemetry.instruments import Counter, Gauge, Histogram, quantile
from inferdock.telemetry.logs import EventLog, write_lines_to_fd


def families(*instruments) -> dict:
    text = Exposition(instruments).text().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_a_counter_is_exposed_with_its_labels_escaped():
    counter = Counter("x_requests_total", "Text.", ("model",))
    counter.cell('odd"name\\\n').value += 2
    (sample,) = families(counter)["x_requests"].samples
    assert (sample.name, sample.labels, sample.value) == ("x_requests_total", {"model": 'odd"name\\\n'}, 2.0)


def test_a_histogram_is_cumulative_and_its_bounds_are_inclusive():
    histogram = Histogram("x_seconds", "Text.", (), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        histogram.cell().observe(value)
    samples = {(s.name, s.labels.get("le")): s.value for s in families(histogram)["x_seconds"].samples}
    assert samples[("x_seconds_bucket", "0.1")] == 2
    assert samples[("x_seconds_bucket", "1.0")] == 3
    assert samples[("x_seconds_bucket", "+Inf")] == samples[("x_seconds_count", None)] == 4
    assert samples[("x_seconds_sum", None)] == pytest.approx(7.65)


def test_a_gauge_is_read_when_scraped():
    values = {"a": 1.0}
    gauge = Gauge("x_now", "Text.", ("name",), lambda: [((k,), v) for k, v in values.items()])
    values["a"] = 5.0
    assert families(gauge)["x_now"].samples[0].value == 5.0


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [([0, 0, 0], 0.5, None), ([10, 0, 0], 0.5, 0.5), ([5, 5, 0], 0.75, 1.5), ([0, 0, 3], 0.5, 2.0)],
)
def test_quantiles_are_those_of_promql(counts, q, expected):
    assert quantile(counts, (1.0, 2.0), q) == expected


def test_a_log_line_is_one_json_object_whatever_it_holds():
    out = bytearray()
    log = EventLog(out.extend, wall_clock=lambda: 1.0)
    log.event("info", "odd", text='line\nbreak "quoted" \x1b', number=1)
    assert json.loads(out)["text"] == 'line\nbreak "quoted" \x1b'
    assert out.count(b"\n") == 1


def test_lower_levels_are_left_out():
    out = bytearray()
    EventLog(out.extend, level="warning").event("info", "quiet")
    assert not out


def test_a_text_line_stays_one_line():
    out = bytearray()
    EventLog(out.extend, form="text", wall_clock=lambda: 1.0).event("info", "odd", text="two\nlines")
    assert out.count(b"\n") == 1


def test_lines_of_several_processes_stay_whole_in_a_pipe():
    read, write = os.pipe2(os.O_DIRECT)  # keeps each write apart
    write_lines_to_fd(write)((b"x" * 999 + b"\n") * 12)
    pieces = [len(os.read(read, select.PIPE_BUF)) for _ in range(3)]
    os.close(read)
    os.close(write)
    assert pieces == [4000, 4000, 4000]


def test_a_full_disk_costs_lines_and_nothing_else():
    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    log = EventLog(full)
    log.event("info", "one")
    assert log.lost == 1
