"""The platform on one machine: a gateway and replicas of one or more revisions, kept running until told to stop.

Flow: gateway up -> replicas start -> each ready replica becomes an endpoint of the gateway -> further revisions come
and go through the control socket -> stop: the gateway drains (SIGTERM), then the replicas end, then nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inferdock.autoscale.of_settings import policy_of
from inferdock.config.settings import Settings
from inferdock.domain.errors import EngineError, InferdockError
from inferdock.supervisor.autoscaler import Autoscaler
from inferdock.supervisor.chores import Chores
from inferdock.supervisor.control import Control
from inferdock.supervisor.drain import STOP_S, Drain
from inferdock.supervisor.engine import Launch, Machine
from inferdock.supervisor.gateway import Gateway
from inferdock.supervisor.model_folder import Model
from inferdock.supervisor.preflight import available_memory
from inferdock.supervisor.probe import Probe
from inferdock.supervisor.replica import GIVE_UP_AFTER, Replica, ReplicaState
from inferdock.supervisor.revisions import Finder, Revisions
from inferdock.supervisor.seats import Seat
from inferdock.supervisor.state import StateDir
from inferdock.telemetry import names
from inferdock.telemetry.published import Figure


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show.

    Attributes:
        model: what clients ask for.
        revision: that most requests go to.
        weights: the shares of all revisions, which add up to 1.
        url, admin_url: the gateway's addresses; "" until it listens.
        replicas: in order.
        gateway: its last ``/admin/status``, None when it did not answer.
        stopping: the drain has begun.
    """

    model: str
    revision: str
    weights: Mapping[str, float]
    url: str
    admin_url: str
    replicas: tuple[Replica, ...]
    gateway: dict[str, Any] | None
    stopping: bool

    @property
    def ready(self) -> int:
        """Number of ready replicas."""
        return sum(replica.state is ReplicaState.READY for replica in self.replicas)


class Supervisor:
    """Runs the platform. One :meth:`run` per object."""

    def __init__(
        self,
        *,
        settings: Settings,
        model: Model,
        machine: Machine,
        finder: Finder,
        state_dir: StateDir,
        replica_launch: Callable[[Model, Seat, int], Launch],
        gateway_launch: Callable[[StateDir], Launch],
        probe: Probe,
        changed: Callable[[View], None],
        read: Callable[[], Settings],
        say: Callable[[str], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is started yet.

        Args:
            model: the first revision.
            machine: what replicas share.
            finder: finds further revisions.
            replica_launch: how to start a replica of a model at a seat and a port.
            changed: called with a fresh view whenever there is something new to show.
            read: merges the configuration again, for a reload.
            say: gets single sentences for the person who watches.
        """
        self._settings = settings
        self._model = model
        self._state_dir = state_dir
        self._probe = probe
        self._show = changed
        self._read = read
        self._say = say
        self._wall_clock = wall_clock
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._stopping = False
        self._hopeless = asyncio.Event()
        self._started_at = wall_clock()
        self._chores = Chores()
        self._gateway = Gateway(
            settings=settings,
            state_dir=state_dir,
            launch=gateway_launch,
            lifeline_fd=self._lifeline_read,
            probe=probe,
            offer=lambda: self._revisions.offer(),
            changed=self._gateway_changed,
        )
        self._revisions = Revisions(
            settings=settings,
            machine=machine,
            name=model.name,
            finder=finder,
            launch=replica_launch,
            new_replica=self._new_replica,
            chores=self._chores,
            gateway=self._gateway,
            drain=Drain(self._gateway, probe.requests_in),
            available=available_memory,
            changed=self._publish,
            say=say,
        )
        self._control = Control(self._revisions, state_dir.control)
        self._autoscaler = self._new_autoscaler() if settings.autoscaling.enabled else None

    def _new_autoscaler(self) -> Autoscaler:
        return Autoscaler(
            policy=policy_of(self._settings.autoscaling),
            sync_s=self._settings.autoscaling.sync_s,
            platform=self._revisions,
            status=lambda: self._gateway.status,
            say=self._say,
        )

    def _new_replica(self, index: int, revision: str, launch: Callable[[int, int], Launch]) -> Replica:
        return Replica(
            index=index,
            revision=revision,
            model=self._model.name,
            engine=self._settings.engine,
            launch=launch,
            log=self._state_dir.log(f"replica-{index}"),
            lifeline_fd=self._lifeline_read,
            probe=self._probe,
            changed=self._replica_changed,
            admitted=self._admitted,
        )

    async def _admitted(self, replica: Replica) -> bool:
        """Offer a replica to the gateway, and say whether it sends requests there."""
        await self._gateway.tell()
        return await self._gateway.uses(replica.url)

    # -- What is shown ---------------------------------------------------------------------------------------

    def view(self) -> View:
        """The present, for display."""
        revisions = self._revisions
        return View(
            model=self._model.name,
            revision=(revisions.main.model if revisions.fleets else self._model).revision,
            weights=revisions.weights,
            url=self._gateway.url,
            admin_url=self._gateway.admin_url,
            replicas=tuple(revisions.replicas),
            gateway=self._gateway.status,
            stopping=self._stopping,
        )

    def figures(self) -> list[Figure]:
        """What ``/metrics`` says of the autoscaler and of the weights."""
        model = self._model.name
        weights = [Figure(names.RELEASE_WEIGHT, (model, r), w) for r, w in self._revisions.weights.items()]
        return [*weights, *(self._autoscaler.figures(model) if self._autoscaler is not None else ())]

    def _replica_changed(self, _: Replica) -> None:
        self._gateway.tell_soon()
        self._publish()
        fleets = list(self._revisions.fleets.values())
        if len(fleets) > 1:
            return  # a revision that does not start is the business of those who want it
        tried = [replica for fleet in fleets for replica in fleet.replicas]
        if tried and all(replica.failed_starts >= GIVE_UP_AFTER for replica in tried):
            self._hopeless.set()

    def _gateway_changed(self, new_address: bool) -> None:
        """New figures are shown; a new address is also written down."""
        if new_address:
            self._publish()
        else:
            self._tell(self.view())

    def _publish(self) -> None:
        """Tell everyone; a full disk or a terminal that is gone must not stop the service."""
        view = self.view()
        with contextlib.suppress(OSError):
            self._state_dir.write(self._state(view))
        self._tell(view)

    def _tell(self, view: View) -> None:
        with contextlib.suppress(OSError):
            self._show(view)

    def _state(self, view: View) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "updated_at": self._wall_clock(),
            "model": view.model,
            "revision": view.revision,
            "engine": self._settings.engine.kind,
            "weights": view.weights,
            "port": self._gateway.address.get("port"),
            "url": view.url,
            "admin_url": view.admin_url,
            "control": str(self._control.path),
            "gateway_log": str(self._state_dir.log("gateway")),
            "replicas": [
                {
                    "name": r.name,
                    "revision": r.revision,
                    "state": str(r.state),
                    "url": r.url,
                    "pid": r.pid,
                    "restarts": r.restarts,
                    "problem": r.problem,
                    "log": str(r.log),
                }
                for r in view.replicas
            ],
        }

    # -- Run -------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, stop_now: asyncio.Event, reload: asyncio.Event) -> None:
        """Run until ``stop``, then drain; ``stop_now`` ends everything at once.

        Each time that ``reload`` is set, the configuration is read again.

        Raises:
            ResourceError: the gateway cannot listen.
            EngineError: no replica became ready in several starts.
        """
        try:
            await self._gateway.start()
            await self._control.listen()
            self._revisions.begin(self._model)
            for chore in (self._gateway.keep, self._gateway.keep_told, self._gateway.keep_status):
                self._chores.start(chore())
            self._chores.start(self._keep_settings(reload))
            if self._autoscaler is not None:
                self._chores.start(self._autoscaler.keep())
            self._publish()
            await self._wait(stop, stop_now)
        finally:
            self._stopping = True
            self._publish()
            await self._control.close()
            await self._chores.cancel()
            await self._end(stop_now)

    async def _wait(self, stop: asyncio.Event, stop_now: asyncio.Event) -> None:
        failed = asyncio.create_task(self._chores.failed())
        waits = [failed, *(asyncio.create_task(event.wait()) for event in (stop, stop_now, self._hopeless))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if failed.done():
                failed.result()  # raises what went wrong
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if self._hopeless.is_set():
            last = self._revisions.replicas[-1]
            raise EngineError(f"No replica could be started. {last.problem}", cure=f"Its log is {last.log}.")

    async def _keep_settings(self, wanted: asyncio.Event) -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            try:
                for sentence in await self._gateway.reload(self._read()):
                    self._say(sentence)
            except (InferdockError, OSError) as exc:
                self._say(f"The configuration is as it was. {exc}")

    # -- End -------------------------------------------------------------------------------------------------

    async def _end(self, stop_now: asyncio.Event) -> None:
        hurry = asyncio.create_task(stop_now.wait())
        orderly = asyncio.create_task(self._orderly_end())
        await asyncio.wait([hurry, orderly], return_when=asyncio.FIRST_COMPLETED)
        if not orderly.done():
            self._kill_all()
        hurry.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await orderly
        self._kill_all()
        self._state_dir.clear()
        os.close(self._lifeline_write)
        os.close(self._lifeline_read)

    async def _orderly_end(self) -> None:
        await self._gateway.stop(self._gateway.settings.drain_timeout_s + 5.0)
        await asyncio.gather(*(replica.stop(STOP_S) for replica in self._revisions.everyone))

    def _kill_all(self) -> None:
        self._gateway.kill()
        for replica in self._revisions.everyone:
            replica.kill()
