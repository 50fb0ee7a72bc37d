"""AWS's prices: scripted answers of its Price List, and of EC2's spot history."""

import datetime
import json

import boto3
import pytest
from botocore.stub import ANY, Stubber

from inferdock.cost import aws
from inferdock.cost.prices import Price
from inferdock.domain.errors import UnreachableError

NOW = datetime.datetime(2026, 11, 29, 12, 0, tzinfo=datetime.UTC)
KNOWN = [Price(instance_type="g5.xlarge", gpu="NVIDIA A10G", gpus=1, region="us-east-1", on_demand=9.0)]
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


def product(*amounts: str, unit: str = "Hrs") -> str:
    dimensions = {f"d{i}": {"unit": unit, "pricePerUnit": {"USD": amount}} for i, amount in enumerate(amounts)}
    return json.dumps({"product": {}, "terms": {"OnDemand": {"t": {"priceDimensions": dimensions}}}})


def spot(zone: str, amount: str, minute: int = 0) -> dict:
    return {
        "InstanceType": "g5.xlarge",
        "AvailabilityZone": zone,
        "SpotPrice": amount,
        "Timestamp": NOW.replace(hour=11, minute=minute),
        "ProductDescription": "Linux/UNIX",
    }


@pytest.fixture
def pricing():
    return boto3.client("pricing", region_name="us-east-1", **KEYS)


@pytest.fixture
def ec2():
    return boto3.client("ec2", region_name="eu-west-1", **KEYS)


def ask(pricing, ec2, products: list, history: list):
    with Stubber(pricing) as first, Stubber(ec2) as second:
        first.add_response("get_products", {"PriceList": products}, {"ServiceCode": "AmazonEC2", "Filters": ANY})
        second.add_response(
            "describe_spot_price_history",
            {"SpotPriceHistory": history},
            {"InstanceTypes": ["g5.xlarge"], "ProductDescriptions": ["Linux/UNIX"], "StartTime": NOW},
        )
        return aws.refreshed(KNOWN, pricing=pricing, ec2=ec2, region="eu-west-1", now=NOW)


def test_prices_come_with_source_and_date(pricing, ec2):
    history = [spot("a", "0.50", 10), spot("a", "0.40", 50), spot("b", "0.60"), spot("c", "0.70")]
    rows, sources, missing = ask(pricing, ec2, [product("1.123")], history)
    (row,) = rows
    assert (row.region, row.gpus, row.on_demand, row.spot, missing) == ("eu-west-1", 1, 1.123, 0.6, [])
    assert sources[row.on_demand_source].date == NOW.date()
    assert sources[row.spot_source].approximate


@pytest.mark.parametrize(
    "products",
    [
        [],
        [product("0.0")],
        [product("1.0", "2.0")],
        [product("1.0", unit="Quantity")],
        ["not json", "[]", "{}", "[" * 10_000, product("nan"), product("rubbish")],
    ],
    ids=["none", "free", "two-prices", "other-unit", "rubbish"],
)
def test_what_is_no_clear_price_is_no_price(pricing, ec2, products):
    assert ask(pricing, ec2, products, [])[0] == []
    assert "no price of g5.xlarge" in ask(pricing, ec2, products, [])[2][0]


def test_filters_name_one_product(pricing, ec2):
    asked = {}
    pricing.meta.events.register("before-parameter-build.pricing.GetProducts", lambda params, **_: asked.update(params))
    ask(pricing, ec2, [product("1.0")], [])
    found = {one["Field"]: one["Value"] for one in asked["Filters"]}
    assert found == {
        "instanceType": "g5.xlarge",
        "regionCode": "eu-west-1",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }


def test_a_refusal_is_said_with_what_is_needed(pricing, ec2):
    with Stubber(ec2) as stub, Stubber(pricing):
        stub.add_client_error("describe_spot_price_history", "UnauthorizedOperation", "no")
        with pytest.raises(UnreachableError, match=r"UnauthorizedOperation.*pricing:GetProducts"):
            aws.refreshed(KNOWN, pricing=pricing, ec2=ec2, region="eu-west-1", now=NOW)
