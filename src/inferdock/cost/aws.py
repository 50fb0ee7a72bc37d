"""Asks AWS for prices: on demand from its Price List, spot from EC2's history. Loaded by name: needs boto3.

Credentials, profile and endpoints come from where every AWS program takes them.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from inferdock import __version__
from inferdock.cost.prices import Price, Source
from inferdock.domain.errors import UnreachableError

PRICE_LIST_REGION: Final = "us-east-1"
"""The Price List answers in few regions, for all of them."""
LINUX: Final = "Linux/UNIX"
_FILTERS: Final = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}
_CONFIG: Final = Config(
    retries={"mode": "standard", "total_max_attempts": 4},
    connect_timeout=5,
    read_timeout=30,
    user_agent_extra=f"inferdock/{__version__}",
)


def clients(region: str) -> tuple[Any, Any]:
    """Clients for the Price List and for EC2 in a region.

    Raises:
        UnreachableError: profile or endpoint are wrong.
    """
    try:
        session = boto3.session.Session()
        pricing = session.client("pricing", region_name=PRICE_LIST_REGION, config=_CONFIG)
        return pricing, session.client("ec2", region_name=region, config=_CONFIG)
    except (BotoCoreError, ValueError) as exc:
        raise _unreachable(exc) from exc


def refreshed(
    known: Iterable[Price], *, pricing: Any, ec2: Any, region: str, now: datetime.datetime
) -> tuple[list[Price], dict[str, Source], list[str]]:
    """Today's prices of these machines in one region.

    Args:
        known: rows that say which machines, and what GPUs they have; those of other regions tell it too.
        pricing, ec2: clients of boto3.
        region: name of the AWS region.
        now: the time, with a zone.

    Returns:
        rows, their sources by name, and sentences about machines whose price AWS does not say.

    Raises:
        UnreachableError: AWS does not answer, or refuses.
    """
    kinds = {price.instance_type: price for price in known}
    day = now.date()
    on_demand_source, spot_source = f"aws-price-list-{day}", f"ec2-spot-history-{region}-{day}"
    try:
        spot = _spot(ec2, list(kinds), now)
        on_demand = {kind: _on_demand(pricing, kind, region) for kind in kinds}
    except (BotoCoreError, ClientError) as exc:
        raise _unreachable(exc) from exc
    rows = [
        Price(
            instance_type=kind,
            gpu=price.gpu,
            gpus=price.gpus,
            region=region,
            on_demand=on_demand[kind],
            on_demand_source=on_demand_source if on_demand[kind] is not None else None,
            spot=spot.get(kind),
            spot_source=spot_source if kind in spot else None,
        )
        for kind, price in kinds.items()
        if on_demand[kind] is not None or kind in spot
    ]
    sources = {
        on_demand_source: Source(text="AWS Price List API; Linux, shared tenancy", date=day),
        spot_source: Source(
            text=f"EC2 DescribeSpotPriceHistory of {region} at {now.isoformat(timespec='minutes')}; median of zones",
            date=day,
            approximate=True,
        ),
    }
    found = {row.instance_type for row in rows}
    return rows, sources, [f"AWS has no price of {kind} in {region}." for kind in kinds if kind not in found]


def _on_demand(pricing: Any, kind: str, region: str) -> float | None:
    """Dollars an hour; None where there is no price, or several that contradict each other."""
    filters = {"instanceType": kind, "regionCode": region, **_FILTERS}
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode="AmazonEC2",
        Filters=[{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()],
    )
    amounts = {amount for page in pages for item in page.get("PriceList", ()) for amount in _hourly(item)}
    return amounts.pop() if len(amounts) == 1 else None


def _hourly(item: object) -> Iterator[float]:
    """Prices above 0 of one product; what does not have the form that AWS documents has none."""
    try:
        product: Any = json.loads(item) if isinstance(item, str) else item
        for term in product["terms"]["OnDemand"].values():
            for dimension in term["priceDimensions"].values():
                amount = float(dimension["pricePerUnit"]["USD"])
                if dimension["unit"] == "Hrs" and 0 < amount < 1e6:
                    yield amount
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return


def _spot(ec2: Any, kinds: list[str], now: datetime.datetime) -> dict[str, float]:
    """Dollars an hour by machine: the newest price of each zone, and their median."""
    pages = ec2.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=kinds,
        ProductDescriptions=[LINUX],
        StartTime=now,  # gives the price of each zone that holds now
    )
    newest: dict[tuple[str, str], tuple[Any, float]] = {}
    for page in pages:
        for row in page.get("SpotPriceHistory", ()):
            try:
                key, at = (row["InstanceType"], row["AvailabilityZone"]), row["Timestamp"]
                amount = float(row["SpotPrice"])
            except (KeyError, ValueError, TypeError):
                continue
            if 0 < amount < 1e6 and (key not in newest or at > newest[key][0]):
                newest[key] = (at, amount)
    by_kind: dict[str, list[float]] = {}
    for (kind, _), (_, amount) in newest.items():
        by_kind.setdefault(kind, []).append(amount)
    return {kind: round(median(amounts), 6) for kind, amounts in by_kind.items()}


def _unreachable(exc: Exception) -> UnreachableError:
    code = exc.response.get("Error", {}).get("Code", "") if isinstance(exc, ClientError) else type(exc).__name__
    return UnreachableError(
        f"AWS does not say its prices: {str(code)[:100]}.",
        cure="It needs credentials that may call pricing:GetProducts and ec2:DescribeSpotPriceHistory.",
    )
