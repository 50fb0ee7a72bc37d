"""What the settings say about prices; and asking AWS, as far as a server of our own can be it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from inferdock.app.cost import Figures, rates, report
from inferdock.cli.main import cli
from inferdock.config.settings import CostSettings
from inferdock.cost.prices import read_catalogue
from inferdock.cost.series import Series
from inferdock.domain.errors import ConfigError, UnreachableError
from inferdock.telemetry import names
from tests.support.aws import CREDENTIALS


def figures(**models: float) -> Figures:
    """An hour in which each model had one replica, busy for so many seconds, and wrote a million tokens."""
    series = []
    for model, busy in models.items():
        own = {"model": model, "revision": "r1"}
        for state, seconds in (("busy", busy), ("idle", 3600 - busy)):
            series.append(Series(names.REPLICA_SECONDS, {**own, "state": state}, [(0, 0), (1, seconds)]))
        written = [(0.0, 0.0), (1.0, 1e6)]
        series.append(Series(names.TENANT_TOKENS, {**own, "tenant": "a", "kind": "output"}, written))
    return Figures(series, [], Fraction(3600), "a test")


def test_each_model_is_charged_for_its_own_machines():
    settings = CostSettings(
        instance_type="g5.xlarge", models={"big": {"instance_type": "p5.48xlarge", "gpus_per_replica": 8}}
    )
    found = report(settings, figures(small=1800, big=3600))
    assert {row["model"]: row["dollars"] for row in found["models"]} == {"small": 1.006, "big": 55.04}
    assert found["price"]["models"]["big"]["on_demand"]["date"] == "2026-08-26"


def test_a_million_tokens_in_an_hour_cost_what_the_hour_costs():
    found = report(CostSettings(cost_per_hour=2.0), figures(m=1800))["total"]
    assert found["dollars_per_million"]["output"] == 2.0
    assert found["dollars_per_million"]["working"] == 1.0
    assert found["saved_dollars"]["prefix_cache"] is None


def test_tokens_without_any_time_of_replicas_are_not_free():
    told = [one for one in figures(m=60).gateway if one.name == names.TENANT_TOKENS]
    found = report(CostSettings(instance_type="g5.xlarge"), Figures(told, [], Fraction(60), "a test"))
    assert found["total"]["tokens"]["output"] == 10**6
    assert found["total"]["dollars_per_million"]["blended"] is None
    assert found["tenants"][0]["dollars_per_million"]["output"] is None
    assert any("not known" in sentence for sentence in found["notes"])


def test_what_is_not_said_is_asked_for():
    with pytest.raises(ConfigError, match="what the machines cost"):
        rates(CostSettings())
    with pytest.raises(ConfigError, match="no kind of machine"):
        rates(CostSettings(models={"m": {"spot_share": 1}}))
    with pytest.raises(ConfigError, match="weights cannot be used"):
        report(CostSettings(cost_per_hour=1, prompt_weight=0.1, cached_weight=0.2), figures(m=1))
    with pytest.raises(ConfigError, match="machines of 'other'"):
        report(CostSettings(models={"m": {"instance_type": "g5.xlarge"}}), figures(other=1))


def test_tokens_beyond_all_reason_are_no_crash():
    absurd = [
        Series(names.TENANT_TOKENS, {"model": "m", "tenant": t, "kind": "output"}, [(0, 0), (1, 9e14)]) for t in "abc"
    ]
    found = report(CostSettings(cost_per_hour=1), Figures(absurd, [], Fraction(60), "a test"))
    assert found["total"]["tokens"]["output"] == 27 * 10**14


# -- AWS -----------------------------------------------------------------------------------------------------------

SPOT = """<?xml version="1.0"?><DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<spotPriceHistorySet><item><instanceType>g5.xlarge</instanceType><productDescription>Linux/UNIX</productDescription>
<spotPrice>0.500000</spotPrice><timestamp>2026-11-29T10:00:00.000Z</timestamp><availabilityZone>eu-west-1a</availabilityZone>
</item></spotPriceHistorySet><nextToken/></DescribeSpotPriceHistoryResponse>"""


class _Aws(BaseHTTPRequestHandler):
    """The two calls that are made."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        pricing = self.headers.get("x-amz-target", "").endswith("GetProducts")
        price = {"unit": "Hrs", "pricePerUnit": {"USD": "1.2340000000"}}
        product = {"terms": {"OnDemand": {"t": {"priceDimensions": {"d": price}}}}}
        body = (json.dumps({"PriceList": [json.dumps(product)]}) if pricing else SPOT).encode()
        self.send_response(200 if "refuse" not in self.path else 403)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Aws)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": url}.items():
        monkeypatch.setenv(name, value)
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def refresh(file: Path, *arguments: str) -> object:
    words = ["cost", "--region", "eu-west-1", "refresh", str(file), *arguments]
    return CliRunner().invoke(cli, words, standalone_mode=False).exception


def test_refresh_writes_a_price_file_that_can_be_used(aws, tmp_path):
    file = tmp_path / "prices.json"
    assert refresh(file, "--instance-type", "g5.xlarge") is None
    price = read_catalogue(file).find("g5.xlarge", "eu-west-1")
    assert (price.on_demand, price.spot, price.gpus) == (1.234, 0.5, 1)
    settings = CostSettings(instance_type="g5.xlarge", region="eu-west-1", spot_share=1, price_file=file)
    assert report(settings, figures(m=3600))["total"]["dollars"] == 0.5


def test_refresh_says_what_it_cannot_do(aws, tmp_path, monkeypatch):
    assert isinstance(refresh(tmp_path / "p.json", "--instance-type", "abacus"), ConfigError)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{aws}/refuse")
    assert isinstance(refresh(tmp_path / "p.json", "--instance-type", "g5.xlarge"), UnreachableError)
    assert not (tmp_path / "p.json").exists()
