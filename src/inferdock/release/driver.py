"""What a release needs of a platform: see what runs, start, scale, shift or copy traffic, retire. Drivers implement it.

Every call may be made again with the same arguments: a runner that died does not know what it had done. Calls return
when the platform has taken the wish, not when it is fulfilled; the runner observes until it is.

Failures that may pass (nothing answers, no room yet, somebody else is changing it) are ``UnreachableError``,
``ResourceError`` and ``ConflictError``; the runner tries again until the step's deadline. Any other ``InferdockError``
means that trying again is of no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from inferdock.domain.errors import UnreachableError
from inferdock.release.steps import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One revision on the platform.

    Attributes:
        revision: as endpoints carry it.
        reference: ``name@version`` or a folder.
        wanted: replicas that the platform was told to run.
        ready: replicas that take requests now; one that drains is not ready.
        asleep: replicas that keep their weights but take no requests.
        problem: what is wrong with it now, in a sentence; "" when nothing is known.
        given_up: the platform no longer tries: waiting is of no use.
        stopping: replicas that finish what they have and then go; until then they hold memory and GPUs.
    """

    revision: str
    reference: str
    wanted: int
    ready: int
    asleep: int = 0
    problem: str = ""
    given_up: bool = False
    stopping: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the platform is now.

    Attributes:
        revisions: all that have replicas, wanted ones or some that still drain.
        weights: revision to its share of new requests, in any proportion; empty where none were ever set.
    """

    revisions: tuple[Running, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)

    def of(self, revision: str) -> Running | None:
        """One revision; None when it is not there."""
        return next((running for running in self.revisions if running.revision == revision), None)

    def ready(self, revision: str) -> int:
        """Its ready replicas."""
        running = self.of(revision)
        return running.ready if running is not None else 0

    def share(self, revision: str) -> float:
        """Its share of new requests, 0-1. Where no weights are set every revision may get any, so it is 1."""
        total = sum(self.weights.values())
        return self.weights.get(revision, 0.0) / total if total > 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What there is room for beside the replicas that run.

    Attributes:
        replicas: so many more of one revision; None: nothing is known that limits them.
        reason: how that is known, in a sentence.
    """

    replicas: int | None
    reason: str


NOBODY_KNOWS: Final = Room(replicas=None, reason="This platform does not say how much room it has; --spare would.")
"""What a driver answers that cannot tell."""


class Driver(Protocol):
    """One platform and one model on it."""

    async def observe(self) -> Observed:
        """What is there now."""
        ...

    async def room(self, target: Target) -> Room:
        """How many replicas of a revision could be started now beside all that run."""
        ...

    async def start(self, target: Target) -> None:
        """See to it that at least ``target.replicas`` of the revision run; never takes any away.

        A revision that was not there gets no requests until :meth:`shift` says so.
        """
        ...

    async def scale(self, revision: str, replicas: int) -> None:
        """Run so many; those that go drain first, and ones that are not ready go before ready ones."""
        ...

    async def shift(self, weights: Mapping[str, float]) -> None:
        """Divide new requests so, and give every other revision none."""
        ...

    async def mirror(self, revision: str | None, share: float) -> None:
        """Send copies of a share (0-1) of new requests to a revision, whose answers nobody gets; None: no copies.

        Raises:
            ConfigError: this platform cannot.
        """
        ...

    async def retire(self, revision: str) -> None:
        """Drain its replicas and stop them; nothing happens when there are none."""
        ...

    async def address(self, revision: str) -> tuple[str, ...]:
        """Base URLs of its ready replicas, for gates."""
        ...


async def room_for(driver: Driver, target: Target, spare: int | None) -> Room:
    """What a person says that there is room for; where nobody says anything, what the platform says.

    Args:
        driver: the platform.
        target: what is to be started.
        spare: replicas, as the person has it.
    """
    if spare is not None:
        return Room(replicas=spare, reason="That is what --spare says.")
    try:
        return await driver.room(target)
    except UnreachableError as exc:
        return Room(replicas=None, reason=f"How much room there is, nobody says: {exc.message}")
