"""The table of metrics is that of the gateway's own instruments and of the names."""

import re
from pathlib import Path

from inferdock.balance.endpoints import EndpointSet
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.telemetry import names
from inferdock.telemetry.instruments import Counter, Histogram, Instrument
from inferdock.telemetry.table import ENGINE, GATEWAY, PLATFORM, TABLE


def kind(instrument: Instrument) -> str:
    if isinstance(instrument, Histogram):
        return "histogram"
    return "counter" if isinstance(instrument, Counter) else "gauge"


def test_the_table_is_that_of_the_instruments():
    gateway = GatewayMetrics(EndpointSet(LeastOutstanding()), connections=lambda: 0, draining=lambda: False)
    exported = {one.name: (kind(one), tuple(one.labels)) for one in gateway.instruments}
    assert {row.name: (row.kind, row.labels) for row in (*GATEWAY, *PLATFORM)} == exported


def test_each_name_has_one_row():
    spelt = [value for key, value in vars(names).items() if key.isupper()]
    assert sorted(row.name for row in TABLE) == sorted(spelt)


def test_names_say_unit_and_kind():
    for row in (*GATEWAY, *PLATFORM):
        assert row.name.endswith("_total") == (row.kind == "counter"), row.name
        assert row.kind != "histogram" or row.name.endswith("_seconds"), row.name


def test_nothing_else_in_the_code_spells_a_metric_of_ours():
    root = Path(names.__file__).parents[1]
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))}
    ours = re.compile(r"['\"]llm_(gateway|cache|release|autoscale|cost)_")
    spelt = {path.name for path, text in texts.items() if ours.search(text)}
    assert spelt == {"names.py"}


def test_no_name_or_alias_is_there_twice():
    every = [name for row in TABLE for name in (row.name, *(alias.name for alias in row.aliases))]
    assert len(set(every)) == len(every)
    assert all(alias.versions for row in ENGINE for alias in row.aliases)


def test_samples_of_a_histogram_are_three():
    (row,) = (row for row in ENGINE if row.name == names.ENGINE_ITL)
    assert f"{names.ENGINE_ITL}_bucket" in row.samples()
    assert "vllm:time_per_output_token_seconds_bucket" in row.every_sample()
    assert len(row.every_sample()) == 6
