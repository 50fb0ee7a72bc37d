"""The price catalogue: what an hour of a machine with GPUs costs, with the source and the date of each price.

One ships with Inferdock; a file of the same form replaces or adds rows. Called by ``app.cost``; reads files only.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferdock.cost.amounts import MAX_AMOUNT
from inferdock.domain.errors import ConfigError, ResourceError

SHIPPED: Final = Path(__file__).with_name("prices.json")
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
Dollars = Annotated[float, Meta(gt=0, le=MAX_AMOUNT)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where prices come from.

    Attributes:
        text: for people.
        date: day on which they held; None where the source does not say it.
        approximate: they are near the price that is paid, not equal to it.
    """

    text: Annotated[str, Meta(min_length=1, max_length=2000)]
    date: datetime.date | None = None
    approximate: bool = False


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an hour of one kind of machine costs in one region, in dollars.

    Attributes:
        gpu, gpus: kind and number of its GPUs.
        on_demand, spot: None where it is not known.
        on_demand_source, spot_source: names of sources in the same file.
    """

    instance_type: Name
    gpu: Name
    gpus: Annotated[int, Meta(ge=1, le=1024)]
    region: Name
    on_demand: Dollars | None = None
    on_demand_source: Name | None = None
    spot: Dollars | None = None
    spot_source: Name | None = None


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price file."""

    sources: dict[str, Source]
    prices: Annotated[list[Price], Meta(max_length=100_000)]
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Prices by instance type and region.

    Attributes:
        prices: in the order of the files.
        sources: by name.
    """

    prices: Mapping[tuple[str, str], Price]
    sources: Mapping[str, Source]

    def find(self, instance_type: str, region: str) -> Price:
        """The row of a kind of machine.

        Raises:
            ConfigError: there is none; says where or what there is.
        """
        found = self.prices.get((instance_type, region))
        if found is not None:
            return found
        regions = [place for kind, place in self.prices if kind == instance_type]
        if regions:
            raise ConfigError(
                f"The price of {instance_type} in {region[:200]} is not known.",
                cure=f"It is in {', '.join(sorted(regions))}. Set cost.region, or give a price file (cost.price_file).",
            )
        raise ConfigError(
            f"The price of {instance_type[:200]!r} is not known.",
            cure="`inferdock cost prices` lists what is. Give a price file (cost.price_file), or cost.cost_per_hour.",
        )

    def source(self, name: str | None) -> Source | None:
        """A price's source."""
        return self.sources.get(name) if name is not None else None

    def joined(self, other: Catalogue) -> Catalogue:
        """With the rows of another, which win. Sources of one name must not mix, so those of ``other`` win too."""
        return Catalogue({**self.prices, **other.prices}, {**self.sources, **other.sources})


def shipped() -> Catalogue:
    """The catalogue that comes with Inferdock."""
    return read_catalogue(SHIPPED)


def read_catalogue(path: Path) -> Catalogue:
    """Read a price file.

    Raises:
        ConfigError: it cannot be read, or is not of the form that docs/cost.md shows.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"Cannot read the price file {path}: {exc.strerror}.") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"The price file {path} is larger than 16 MiB.")
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"The price file {path} is wrong: {exc}.", cure="docs/cost.md shows its form.") from exc
    return _checked(document, path)


def _checked(document: _Document, path: Path) -> Catalogue:
    if document.currency != "USD":
        raise ConfigError(f"The price file {path} has prices in {document.currency[:20]!r}; only USD can be added up.")
    prices: dict[tuple[str, str], Price] = {}
    for price in document.prices:
        key = (price.instance_type, price.region)
        where = f"{price.instance_type} in {price.region}"
        if key in prices:
            raise ConfigError(f"The price file {path} has {where} twice.")
        if price.on_demand is None and price.spot is None:
            raise ConfigError(f"The price file {path} has no price for {where}.")
        pairs = ((price.on_demand, price.on_demand_source), (price.spot, price.spot_source))
        if any(amount is not None and source not in document.sources for amount, source in pairs):
            raise ConfigError(
                f"The price file {path} does not say where the price of {where} comes from.",
                cure="Add a source, with its date, and name it in on_demand_source or spot_source.",
            )
        prices[key] = price
    return Catalogue(prices, document.sources)


def write_catalogue(path: Path, prices: Iterable[Price], sources: Mapping[str, Source]) -> None:
    """Write a price file, one row a line.

    Raises:
        ResourceError: it cannot be written.
    """
    encode = msgspec.json.Encoder().encode
    heads = ",\n".join(f"  {encode(name).decode()}: {encode(one).decode()}" for name, one in sources.items())
    rows = ",\n".join(f"  {encode(price).decode()}" for price in prices)
    text = f'{{\n "currency": "USD",\n "sources": {{\n{heads}\n }},\n "prices": [\n{rows}\n ]\n}}\n'
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as exc:
        raise ResourceError(f"Cannot write {path}: {exc.strerror}.", cure="Choose another file.") from exc
