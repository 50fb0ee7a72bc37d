"""The replicas of one revision: started, scaled, and taken away while other revisions go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from inferdock.supervisor.chores import Chores
from inferdock.supervisor.model_folder import Model
from inferdock.supervisor.replica import GIVE_UP_AFTER, Replica, ReplicaState


class Fleet:
    """One revision.

    Attributes:
        model: what is served. Its folder may be unknown until it has been pulled.
        digest: of all that decides an answer.
        wanted: replicas that should run.
        replicas: those that run, or will once the model has been pulled.
        leaving: replicas that finish what they have; no new request goes there.
        pulling: the model is being fetched or verified.
        retiring: the whole revision is being taken away.
        problem: why the model could not be fetched, "" if nothing is wrong.
    """

    def __init__(
        self,
        *,
        model: Model,
        digest: str,
        chores: Chores,
        new_replica: Callable[[Fleet], Replica],
        depart: Callable[[Replica], Awaitable[None]],
    ) -> None:
        """Nothing is started yet.

        Args:
            chores: keeps the replicas alive.
            new_replica: makes the next replica, with a name that no other has.
            depart: called for a replica that nobody keeps alive any longer: lets it finish, and ends it.
        """
        self.model = model
        self.digest = digest
        self.wanted = 0
        self.replicas: list[Replica] = []
        self.leaving: list[Replica] = []
        self.pulling = True
        self.retiring = False
        self.problem = ""
        self._chores = chores
        self._new_replica = new_replica
        self._depart = depart
        self._partings: set[asyncio.Task[None]] = set()
        self._lives: dict[Replica, asyncio.Task[None]] = {}

    @property
    def revision(self) -> str:
        """As endpoints carry it."""
        return self.model.revision

    @property
    def reference(self) -> str:
        """What it was started from: ``name@version``, or a path."""
        return self.model.reference or self.model.source

    @property
    def everyone(self) -> list[Replica]:
        """All that may have a process."""
        return [*self.replicas, *self.leaving]

    @property
    def ready(self) -> list[Replica]:
        """Replicas that serve."""
        return [replica for replica in self.replicas if replica.state is ReplicaState.READY]

    @property
    def given_up(self) -> bool:
        """Whether waiting is of no use: it could not be fetched, or a replica does not start.

        What could not be fetched is not tried again by itself; a replica is, but seldom starts after so many failures.
        """
        unfetched = bool(self.problem) and not self.pulling
        return unfetched or any(replica.failed_starts >= GIVE_UP_AFTER for replica in self.replicas)

    @property
    def started(self) -> bool:
        """Whether the model is there, so that replicas may run."""
        return not self.pulling and not self.problem

    def start(self, model: Model) -> None:
        """The model is there: bring its replicas to life."""
        self.model = model
        self.pulling, self.problem = False, ""
        for replica in self.replicas:
            self._live(replica)

    def scale(self, wanted: int) -> None:
        """Have so many replicas; those that go finish what they have."""
        self.wanted = wanted
        while len(self.replicas) < wanted:
            replica = self._new_replica(self)
            self.replicas.append(replica)
            if self.started:
                self._live(replica)
        going = sorted(self.replicas, key=lambda replica: (replica.state is ReplicaState.READY, -replica.index))
        for replica in going[: len(self.replicas) - wanted]:
            self.replicas.remove(replica)
            self.leaving.append(replica)
            parting = self._chores.start(self._let_go(replica))
            self._partings.add(parting)
            parting.add_done_callback(self._partings.discard)

    async def empty(self) -> None:
        """Wait until those that leave have gone."""
        await asyncio.gather(*self._partings)

    def _live(self, replica: Replica) -> None:
        if replica not in self._lives:
            self._lives[replica] = self._chores.start(replica.run())

    async def _let_go(self, replica: Replica) -> None:
        life = self._lives.pop(replica, None)
        if life is not None:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
        await self._depart(replica)
        self.leaving.remove(replica)  # not when cancelled: then the end of the platform stops it

    def row(self, weight: float) -> dict[str, Any]:
        """What the control socket shows of it; ``weight`` is its share of the requests, 0-1."""
        troubled = [r.problem for r in self.replicas if r.problem and r.state is not ReplicaState.READY]
        return {
            "revision": self.revision,
            "reference": self.reference,
            "wanted": 0 if self.retiring else self.wanted,  # who wants one that goes has to ask for it again
            "ready": len(self.ready),
            "serves": [replica.url for replica in self.ready],
            "weight": weight,
            "problem": self.problem or next(iter(troubled), ""),
            "failed_starts": max((replica.failed_starts for replica in self.replicas), default=0),
            "given_up": self.given_up,
            "restarts": sum(replica.restarts for replica in self.replicas),
            "stopping": len(self.leaving),
            "pulling": self.pulling,
            "retiring": self.retiring,
        }
