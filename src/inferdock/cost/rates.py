"""What time costs here: a machine at a price that the person gave, or machines of the catalogue. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from inferdock.cost.amounts import ZERO, exact
from inferdock.cost.observed import ReplicaTime, Revision
from inferdock.cost.prices import Price
from inferdock.cost.usage import Capacity, Purchase
from inferdock.domain.errors import ConfigError

NOBODY: Revision = ("", "")
"""Where time goes in which there was no replica, and that none of several revisions can be blamed for."""


class Rates(Protocol):
    """Turns time of replicas into time that was paid for."""

    def capacities(self, times: Mapping[Revision, ReplicaTime], elapsed: Fraction, replicas: int) -> list[Capacity]:
        """What was paid for.

        Args:
            times: of replicas, by revision.
            elapsed: length of the window in seconds.
            replicas: that there are now, those that start among them; 0 where nobody knows.
        """


@dataclass(frozen=True, slots=True)
class OneMachine:
    """All replicas are on one machine, which costs the same however many there are.

    Attributes:
        price: dollars an hour.
    """

    price: Fraction

    def capacities(self, times: Mapping[Revision, ReplicaTime], elapsed: Fraction, replicas: int) -> list[Capacity]:
        """The machine's time is divided evenly among its replicas; where one is missing, that part is start-up time."""
        seen = sum((one.total for one in times.values()), ZERO)
        wanted = max(seen, elapsed * max(replicas, 1))
        if not wanted or not elapsed:
            return []
        machine = elapsed / wanted  # seconds of the machine for a second of a replica
        blamed = next(iter(times)) if len(times) == 1 else NOBODY
        found = [self._capacity(key, one, machine) for key, one in times.items()]
        if wanted > seen:
            found.append(self._capacity(blamed, ReplicaTime(unready=wanted - seen), machine))
        return found

    def _capacity(self, key: Revision, time: ReplicaTime, machine: Fraction) -> Capacity:
        return Capacity(
            model=key[0],
            revision=key[1],
            purchase=Purchase.GIVEN,
            price=self.price,
            starting=time.unready * machine,
            idle=time.idle * machine,
            busy=time.busy * machine,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueMachines:
    """Each replica has some of the GPUs of a machine of one kind.

    Attributes:
        price: of the machine.
        gpus_per_replica: above the machine's own number, a replica spreads over several machines.
        spot_share: part of the replicas' time on spot machines, 0-1.
    """

    price: Price
    gpus_per_replica: Fraction
    spot_share: Fraction

    def capacities(self, times: Mapping[Revision, ReplicaTime], elapsed: Fraction, replicas: int) -> list[Capacity]:
        """Only the time of replicas that gateways know is paid for here."""
        shares = ((Purchase.SPOT, self.spot_share), (Purchase.ON_DEMAND, 1 - self.spot_share))
        return [
            self._capacity(key, time, purchase, share)
            for key, time in times.items()
            for purchase, share in shares
            if share
        ]

    def _capacity(self, key: Revision, time: ReplicaTime, purchase: Purchase, share: Fraction) -> Capacity:
        machine = share * self.gpus_per_replica / self.price.gpus
        on_demand = self.price.on_demand
        return Capacity(
            model=key[0],
            revision=key[1],
            purchase=purchase,
            price=Fraction(_price(self.price, purchase)),
            on_demand_price=None if on_demand is None else Fraction(on_demand),
            starting=time.unready * machine,
            idle=time.idle * machine,
            busy=time.busy * machine,
        )


@dataclass(frozen=True, slots=True)
class ByModel:
    """Machines of several kinds.

    Attributes:
        others: of models that are not named; None where nobody has said what they are.
        models: by name.
    """

    others: CatalogueMachines | None
    models: Mapping[str, CatalogueMachines]

    def capacities(self, times: Mapping[Revision, ReplicaTime], elapsed: Fraction, replicas: int) -> list[Capacity]:
        """Each model at its own price.

        Raises:
            ConfigError: nobody has said what a model's machines are.
        """
        found = []
        for key, time in times.items():
            machines = self.models.get(key[0], self.others)
            if machines is None:
                raise ConfigError(
                    f"Nobody has said what the machines of {key[0][:200]!r} are.",
                    cure="Set cost.instance_type, or cost.models.NAME.instance_type.",
                )
            found += machines.capacities({key: time}, elapsed, replicas)
        return found


def catalogue_machines(price: Price, *, gpus_per_replica: float, spot_share: float) -> CatalogueMachines:
    """Machines of this kind.

    Raises:
        ConfigError: a price that is needed is not known, or a number makes no sense.
    """
    try:
        gpus, spot = exact(gpus_per_replica, "the GPUs of a replica"), exact(spot_share, "the share of spot machines")
    except ValueError as exc:
        raise ConfigError(f"This cannot be: {exc}.") from exc
    if not gpus or spot > 1:
        raise ConfigError("A replica needs a part of a GPU at least, and the share of spot machines is 0 to 1.")
    for purchase, share in ((Purchase.SPOT, spot), (Purchase.ON_DEMAND, 1 - spot)):
        if share:
            _price(price, purchase)
    return CatalogueMachines(price=price, gpus_per_replica=gpus, spot_share=spot)


def _price(price: Price, purchase: Purchase) -> float:
    amount = price.spot if purchase is Purchase.SPOT else price.on_demand
    if amount is None:
        words = "spot" if purchase is Purchase.SPOT else "on-demand"
        raise ConfigError(
            f"The {words} price of {price.instance_type} in {price.region} is not known.",
            cure="`inferdock cost refresh` asks AWS; a price file (cost.price_file) adds rows.",
        )
    return amount
