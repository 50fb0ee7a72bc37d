"""All revisions of the model that a platform serves, and how requests are divided among them.

One is served from the start. Others come and go through the control socket (``supervisor.control``): each is looked up
at once, pulled and verified in a thread, and started. A new revision gets no request until weights say so, and one that
is taken away keeps its endpoints, at weight 0, until what it was asked is answered. Weights have one owner, this class:
the gateway is told them, and told again after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from inferdock.config.settings import Settings
from inferdock.domain.errors import InferdockError, RequestError
from inferdock.domain.shadow import Shadow
from inferdock.supervisor.chores import Chores
from inferdock.supervisor.drain import Drain
from inferdock.supervisor.engine import Launch, Machine, answer_digest, engine_version
from inferdock.supervisor.fleet import Fleet
from inferdock.supervisor.gateway import Gateway, Offer
from inferdock.supervisor.model_folder import Model
from inferdock.supervisor.preflight import check_length, check_more, replica_bytes, require, room_in_memory
from inferdock.supervisor.replica import Replica, replica_name
from inferdock.supervisor.room import room
from inferdock.supervisor.seats import Seat, Seats

MOST_REVISIONS = 8
"""At once: more than any release needs, and few enough for the memory of one machine."""
MOST_REPLICAS = 64
"""Of one revision, as in ``engine.replicas``."""
TELL_S = 10.0
"""How long the gateway is asked to take new weights: longer than its restart takes."""


class Finder(Protocol):
    """Finds further models to serve, under the name of the first; called in threads."""

    def look(self, reference: str) -> Model:
        """What can be said of it without fetching it; raises InferdockError."""

    def find(self, reference: str, cancelled: Callable[[], bool]) -> Model:
        """Fetch and verify it; raises InferdockError, and any exception once it is ``cancelled``."""


class Revisions:
    """The fleets of one platform.

    Attributes:
        fleets: by revision, the oldest first.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        machine: Machine,
        name: str,
        finder: Finder,
        launch: Callable[[Model, Seat, int], Launch],
        new_replica: Callable[[int, str, Callable[[int, int], Launch]], Replica],
        chores: Chores,
        gateway: Gateway,
        drain: Drain,
        available: Callable[[], int | None],
        changed: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """No revision yet.

        Args:
            settings: that replicas are started with.
            machine: what they share.
            name: of the model, as clients ask for it.
            finder: finds further revisions.
            launch: how to start a replica of a model at a seat and a port.
            new_replica: makes one from a number that is its own, its revision, and its launch by number and port.
            chores: keeps replicas alive.
            gateway: is told endpoints and weights.
            drain: lets replicas finish what they have.
            available: bytes of memory that can be taken now.
            changed: called when there is something new to show.
            say: gets single sentences for the person who watches.
        """
        self.fleets: dict[str, Fleet] = {}
        self._settings = settings
        self._machine = machine
        self._name = name
        self._finder = finder
        self._launch = launch
        self._make = new_replica
        self._chores = chores
        self._gateway = gateway
        self._drain = drain
        self._available = available
        self._changed = changed
        self._say = say
        self._seats = Seats(machine, settings.engine)
        self._numbers = 0
        self._weights: dict[str, float] = {}
        self._shadow: Shadow | None = None
        self._partings: dict[str, asyncio.Task[None]] = {}

    # -- What there is ---------------------------------------------------------------------------------------

    @property
    def weights(self) -> dict[str, float]:
        """How requests are divided: shares that add up to 1, by revision."""
        if not self._weights:
            return dict.fromkeys(self.fleets, 1.0)  # one revision, which has all
        total = sum(self._weights.values())
        return {revision: self._weights.get(revision, 0.0) / total for revision in self.fleets}

    @property
    def replicas(self) -> list[Replica]:
        """All that have a process or will soon have one, in order of their numbers."""
        shown = (replica for fleet in self.fleets.values() if fleet.started for replica in fleet.everyone)
        return sorted(shown, key=lambda replica: replica.index)

    @property
    def everyone(self) -> list[Replica]:
        """All replicas, also those whose model is yet to come."""
        return [replica for fleet in self.fleets.values() for replica in fleet.everyone]

    @property
    def main(self) -> Fleet:
        """The revision that most requests go to."""
        weights = self.weights
        return max(self.fleets.values(), key=lambda fleet: weights[fleet.revision])

    def rows(self) -> dict[str, Any]:
        """What ``GET /revisions`` shows."""
        weights = self.weights
        rows = [fleet.row(weights[revision]) for revision, fleet in self.fleets.items()]
        shadow = self._shadow
        copied = {"revision": shadow.revision, "share": shadow.share} if shadow is not None else None
        return {"model": self._name, "revisions": rows, "weights": weights, "shadow": copied}

    def offer(self) -> Offer:
        """What the gateway is to serve."""
        endpoints = [
            {
                "name": replica.name,
                "url": replica.url,
                "model": self._name,
                "revision": fleet.revision,
                "digest": fleet.digest,
            }
            for fleet in self.fleets.values()
            for replica in fleet.replicas
            if replica.serves
        ]
        return Offer(self._name, dict(self._weights), endpoints, self._shadow)

    # -- Revisions come --------------------------------------------------------------------------------------

    def begin(self, model: Model) -> None:
        """Serve the first revision, which is there."""
        fleet = self._new_fleet(model)
        count = self._settings.engine.replicas
        self._seats.take_all([replica_name(self._numbers + n) for n in range(count)], model.arguments)
        fleet.start(model)
        fleet.scale(count)

    async def put(self, reference: str, replicas: int) -> str:
        """Have so many replicas of a revision, which may be new; returns what it is called at once.

        Raises:
            RequestError: 409, it is of another model, there is no spare GPU, or too many revisions are there;
                422, it does not fit into memory, or it cannot be served.
            InferdockError: it was not found.
        """
        looked = await asyncio.to_thread(self._finder.look, reference)
        known = self.fleets.get(looked.revision)
        if known is None:
            self._refuse_strangers(looked)
            self._require_room(looked, replicas)
            self._add(looked, replicas)
        else:
            self._grow(known, replicas)
        self._changed()
        return looked.revision

    def _refuse_strangers(self, model: Model) -> None:
        for fleet in self.fleets.values():
            ours, theirs = fleet.model.reference.partition("@")[0], model.reference.partition("@")[0]
            if ours and theirs and ours != theirs:
                text = f"{model.reference} is a version of {theirs}, but versions of {ours} are served here."
                raise RequestError(409, text, code="another_model")
        if len(self.fleets) >= MOST_REVISIONS:
            text = f"There are {MOST_REVISIONS} revisions already. Take one away first."
            raise RequestError(409, text, code="too_many_revisions")

    async def room(self, reference: str) -> dict[str, Any]:
        """What ``GET /room`` shows.

        Raises:
            InferdockError: it was not found.
        """
        looked = await asyncio.to_thread(self._finder.look, reference)
        settings, available, coming = self._settings, self._available(), self._coming()
        memory = room_in_memory(settings, looked, self._machine, available, on_their_way=coming, most=MOST_REPLICAS)
        may_stay = looked.revision in self._partings
        return room(
            (memory, self._seats.spare(looked.arguments)),
            kept=len(self.fleets[looked.revision].replicas) if may_stay else 0,
            leaving=sum(len(fleet.leaving) for fleet in self.fleets.values()),
        )

    def _coming(self) -> float:
        """Bytes that replicas will yet take which have been started, but are not ready."""
        return sum(
            replica_bytes(self._settings, fleet.model, self._machine, fleet.wanted) * (fleet.wanted - len(fleet.ready))
            for fleet in self.fleets.values()
            if fleet.wanted
        )

    def _require_room(self, model: Model, more: int) -> None:
        """Refuse what would not start, before anything is fetched."""
        settings, machine = self._settings, self._machine
        memory = check_more(settings, model, machine, self._available(), more=more, on_their_way=self._coming())
        try:
            require(iter([check_length(settings, model), memory]))
        except InferdockError as exc:
            raise RequestError(
                422, str(exc), code="no_memory" if exc.message == memory.message else "bad_model"
            ) from exc
        self._seats.take([replica_name(self._numbers + n) for n in range(more)], model.arguments)

    def _add(self, model: Model, replicas: int) -> None:
        if not self._weights:  # before the new one is known to anybody
            self._weights = dict.fromkeys(self.fleets, 1.0)
        fleet = self._new_fleet(model)
        self._weights[fleet.revision] = 0.0
        fleet.scale(replicas)
        self._chores.start(self._pull(fleet))

    def _new_fleet(self, model: Model) -> Fleet:
        engine = self._settings.engine
        fleet = Fleet(
            model=model,
            digest=answer_digest(engine, self._settings.model, model, engine_version(engine.kind)),
            chores=self._chores,
            new_replica=self._new_replica,
            depart=self._depart,
        )
        self.fleets[model.revision] = fleet
        return fleet

    def _new_replica(self, fleet: Fleet) -> Replica:
        number = self._numbers
        self._numbers += 1

        def launch(index: int, port: int) -> Launch:
            numbers = [replica.index for replica in fleet.replicas] or [index]
            place = numbers.index(index) if index in numbers else 0  # not there: it is being taken away
            seat = Seat(place, len(numbers), self._seats.gpus(replica_name(index)))
            return self._launch(fleet.model, seat, port)

        return self._make(number, fleet.revision, launch)

    async def _pull(self, fleet: Fleet) -> None:
        """Fetch and verify a model, then start its replicas; what goes wrong is shown, and may be tried again."""
        revision = fleet.revision
        over = False

        def cancelled() -> bool:
            return over or self.fleets.get(revision) is not fleet

        self._say(f"{revision} is being fetched and verified.")
        try:
            model = await asyncio.to_thread(self._finder.find, fleet.model.source, cancelled)
            problem = "" if model.revision == revision else f"{fleet.reference} has changed while it was fetched."
        except Exception as exc:  # whatever it is, the revisions that serve go on
            problem = str(exc) if isinstance(exc, InferdockError) else f"It could not be fetched: {exc!r}."
        finally:
            gone, over = cancelled(), True  # also when this task is cancelled: the thread ends at its next bytes
        if gone:
            return
        if problem:
            fleet.pulling, fleet.problem = False, problem
            self._say(f"{revision} cannot be started. {problem}")
        else:
            fleet.start(model)
        self._changed()

    # -- Revisions grow, and go ------------------------------------------------------------------------------

    def scale(self, revision: str, replicas: int) -> None:
        """Have so many replicas of a revision that is there.

        Raises:
            RequestError: 404, it is not there; 409 and 422 as for :meth:`put`.
        """
        fleet = self._known(revision)
        if fleet.retiring:
            raise RequestError(409, f"Revision {revision} is being taken away.", code="retiring")
        self._grow(fleet, replicas)
        self._changed()

    def _grow(self, fleet: Fleet, replicas: int) -> None:
        if fleet.retiring and fleet.revision not in self._partings:
            text = f"The replicas of {fleet.revision} are stopping. Ask again when it is gone."
            raise RequestError(409, text, code="retiring")
        more = replicas - len(fleet.replicas)
        if more > 0:
            self._require_room(fleet.model, more)
        if fleet.retiring:  # somebody wants it after all, and its replicas still serve
            self._partings.pop(fleet.revision).cancel()
            fleet.retiring = False
            self._say(f"{fleet.revision} stays.")
        fleet.scale(replicas)
        if not fleet.started and not fleet.pulling:  # it could not be fetched: here is another try
            fleet.pulling, fleet.problem = True, ""
            self._chores.start(self._pull(fleet))

    def retire(self, revision: str) -> None:
        """Take a revision away, once what it was asked is answered, or ``drain_timeout_s`` is over.

        Raises:
            RequestError: 404, it is not there; 409, it is the last, or requests still go to it.
        """
        fleet = self._known(revision)
        if fleet.retiring:
            return
        if all(other is fleet or other.retiring for other in self.fleets.values()):
            raise RequestError(
                409, f"{revision} is the last revision; stop the platform instead.", code="last_revision"
            )
        share = self.weights[revision]
        if share > 0:
            text = f"{share:.3%} of the requests still go to {revision}. Give its weight to another revision first."
            raise RequestError(409, text, code="has_weight")
        fleet.retiring = True
        if self._shadow is not None and self._shadow.revision == revision:
            self._shadow = None
            self._gateway.tell_soon()
        self._say(f"{revision} is being taken away; open requests finish.")
        self._partings[revision] = self._chores.start(self._part(fleet))
        self._changed()

    async def _part(self, fleet: Fleet) -> None:
        if fleet.started:
            await self._drain.unused(fleet)
        del self._partings[fleet.revision]  # from here on there is no way back
        fleet.scale(0)
        await fleet.empty()
        del self.fleets[fleet.revision]
        self._weights.pop(fleet.revision, None)
        if len(self.fleets) == 1:
            self._weights = {}  # the one that is left has all, and choosing costs less without weights
        self._gateway.tell_soon()
        self._say(f"{fleet.revision} is gone.")
        self._changed()

    async def _depart(self, replica: Replica) -> None:
        await self._drain.end(replica)
        self._seats.leave(replica.name)
        asyncio.get_running_loop().call_soon(self._changed)  # once its fleet has let it go

    # -- Weights ---------------------------------------------------------------------------------------------

    async def weigh(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Divide requests in proportion to ``weights``; revisions that are not named get none.

        Returns:
            the shares, once the gateway obeys them.

        Raises:
            RequestError: 400, all are 0; 404, one is not there; 409, one is being taken away; 503, the gateway does not
                answer, and obeys as soon as it does.
        """
        for revision, weight in weights.items():
            if self._known(revision).retiring and weight > 0:
                raise RequestError(409, f"Revision {revision} is being taken away.", code="retiring")
        if not any(weights.values()):
            raise RequestError(400, "Some revision must have a weight above 0.", code="bad_request")
        if len(self.fleets) > 1:
            self._weights = {revision: float(weights.get(revision, 0.0)) for revision in self.fleets}
        shares = self.weights
        await self._tell("the weights")
        return shares

    async def mirror(self, shadow: Shadow | None) -> None:
        """Have a share of the requests answered by another revision as well, for comparison; None: of no request.

        Raises:
            RequestError: 404, it is not there; 409, it is being taken away; 503 as for weights.
        """
        if shadow is not None and self._known(shadow.revision).retiring:
            raise RequestError(409, f"Revision {shadow.revision} is being taken away.", code="retiring")
        self._shadow = shadow
        await self._tell("this")

    async def _tell(self, what: str) -> None:
        self._changed()
        if not await self._gateway.told(TELL_S):
            text = f"The gateway does not answer; it gets {what} as soon as it does."
            raise RequestError(503, text, code="gateway_silent")

    def _known(self, revision: str) -> Fleet:
        fleet = self.fleets.get(revision)
        if fleet is None:
            raise RequestError(404, f"There is no revision {revision[:200]} here.", code="unknown_revision")
        return fleet
