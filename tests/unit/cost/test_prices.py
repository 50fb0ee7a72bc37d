"""The catalogue that ships, and price files of people."""

import json

import pytest

from inferdock.cost.prices import Price, Source, read_catalogue, shipped, write_catalogue
from inferdock.domain.errors import ConfigError, ResourceError

SOURCES = {"quote": {"text": "our contract", "date": "2026-11-01"}}
ROW = {"instance_type": "x1", "gpu": "NVIDIA L4", "gpus": 2, "region": "home"}
PRICED = {**ROW, "on_demand": 1.5, "on_demand_source": "quote"}


def file(tmp_path, prices, sources=SOURCES, **more):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"sources": sources, "prices": prices, **more}), encoding="utf-8")
    return path


def test_every_price_that_ships_has_a_source_and_a_date_or_says_that_it_is_approximate():
    known = shipped()
    for price in known.prices.values():
        for amount, name in ((price.on_demand, price.on_demand_source), (price.spot, price.spot_source)):
            source = known.source(name)
            assert (amount is None) == (source is None), price
            assert source is None or source.date is not None or source.approximate, price


def test_prices_that_ship_are_sane():
    for price in shipped().prices.values():
        assert price.on_demand is not None
        assert 0.1 < price.on_demand / price.gpus < 10, price
        assert price.spot is None or 0.1 < price.spot / price.on_demand < 1, price


def test_a_file_adds_and_replaces(tmp_path):
    mine = {**PRICED, "instance_type": "g5.xlarge", "region": "us-east-1"}
    known = shipped().joined(read_catalogue(file(tmp_path, [PRICED, mine])))
    assert known.find("x1", "home").gpus == 2
    assert known.find("g5.xlarge", "us-east-1").on_demand == 1.5
    assert known.source("quote") == Source(text="our contract", date=known.sources["quote"].date)


@pytest.mark.parametrize(
    ("prices", "more", "words"),
    [
        ([ROW], {}, "no price for x1"),
        ([PRICED, PRICED], {}, "twice"),
        ([{**PRICED, "on_demand_source": "rumour"}], {}, "where the price"),
        ([{**PRICED, "on_demand_source": None}], {}, "where the price"),
        ([{**PRICED, "on_demand": -1}], {}, "is wrong"),
        ([{**PRICED, "on_demand": 0}], {}, "is wrong"),
        ([{**PRICED, "gpus": 0}], {}, "is wrong"),
        ([{**PRICED, "price": 1}], {}, "is wrong"),
        ([PRICED], {"currency": "EUR"}, "only USD"),
    ],
    ids=["unpriced", "twice", "no-source", "null-source", "negative", "free", "no-gpu", "unknown-key", "currency"],
)
def test_wrong_files_are_refused(tmp_path, prices, more, words):
    with pytest.raises(ConfigError, match=words):
        read_catalogue(file(tmp_path, prices, **more))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"sources": {}, "prices": [NaN]}'], ids=range(5)
)
def test_what_is_no_price_file_is_refused(tmp_path, raw):
    path = tmp_path / "prices.json"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="is wrong"):
        read_catalogue(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_catalogue(tmp_path / "none.json")


def test_what_is_not_known_is_said_with_what_is():
    with pytest.raises(ConfigError, match="us-west-2"):
        shipped().find("g5.xlarge", "mars-1")
    with pytest.raises(ConfigError, match="cost prices"):
        shipped().find("z9.huge", "us-east-1")


def test_what_is_written_can_be_read(tmp_path):
    price = Price(instance_type="x1", gpu="L4", gpus=1, region="home", spot=0.5, spot_source="s")
    write_catalogue(tmp_path / "p.json", [price], {"s": Source(text="t", approximate=True)})
    known = read_catalogue(tmp_path / "p.json")
    assert (known.find("x1", "home"), known.sources["s"].approximate) == (price, True)
    with pytest.raises(ResourceError, match="Cannot write"):
        write_catalogue(tmp_path / "none" / "p.json", [price], {})
