"""The platform on one machine: a gateway and N replicas, kept running until told to stop.

Flow: gateway up -> replicas start -> each ready replica becomes an endpoint of the gateway -> stop: the gateway
drains (SIGTERM), then the replicas end, then nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from inferdock.config.load import flatten
from inferdock.config.settings import Settings
from inferdock.domain.errors import EngineError, InferdockError, ResourceError
from inferdock.supervisor.child import Child
from inferdock.supervisor.engine import Launch, answer_digest, engine_version
from inferdock.supervisor.model_folder import Model
from inferdock.supervisor.probe import Probe
from inferdock.supervisor.replica import Replica, ReplicaState
from inferdock.supervisor.state import StateDir, write_atomically

GATEWAY_START_S = 20.0
GIVE_UP_AFTER = 3
"""Failed starts in a row of every replica, with none ready, after which we stop trying."""
REPLICA_STOP_S = 8.0
STATUS_EVERY_S = 1.0
_GATEWAY_ROOMS = ("gateway", "balance", "keys", "log", "tracing", "drain_timeout_s")
"""Settings that the gateway obeys."""


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show.

    Attributes:
        model, revision: what is served.
        url, admin_url: the gateway's addresses; "" until it listens.
        replicas: in order.
        gateway: its last ``/admin/status``, None when it did not answer.
        stopping: the drain has begun.
    """

    model: str
    revision: str
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
        state_dir: StateDir,
        replica_launch: Callable[[int, int], Launch],
        gateway_launch: Callable[[StateDir], Launch],
        probe: Probe,
        changed: Callable[[View], None],
        read: Callable[[], Settings],
        say: Callable[[str], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is started yet.

        Args:
            changed: called with a fresh view whenever there is something new to show.
            read: merges the configuration again, for a reload.
            say: gets single sentences for the person who watches.
        """
        self._settings = settings
        self._model = model
        self._answer_digest = answer_digest(
            settings.engine, settings.model, model, engine_version(settings.engine.kind)
        )
        self._state_dir = state_dir
        self._gateway_launch = gateway_launch
        self._probe = probe
        self._show = changed
        self._read = read
        self._say = say
        self._written_port = settings.gateway.port
        self._wall_clock = wall_clock
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._gateway: Child | None = None
        self._gateway_status: dict[str, Any] | None = None
        self._address: dict[str, Any] = {}
        self._stopping = False
        self._endpoints_changed = asyncio.Event()
        self._hopeless = asyncio.Event()
        self._started_at = wall_clock()
        self._replicas = tuple(
            Replica(
                index=index,
                model=model.name,
                engine=settings.engine,
                launch=replica_launch,
                log=state_dir.log(f"replica-{index}"),
                lifeline_fd=self._lifeline_read,
                probe=probe,
                changed=self._replica_changed,
                admitted=self._admitted,
            )
            for index in range(settings.engine.replicas)
        )

    # -- What is shown ---------------------------------------------------------------------------------------

    def view(self) -> View:
        """The present, for display."""
        host, port = self._address.get("host", ""), self._address.get("port", 0)
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        admin = self._address.get("admin_port", 0)
        return View(
            model=self._model.name,
            revision=self._model.revision,
            url=f"http://{shown}:{port}" if port else "",
            admin_url=f"http://127.0.0.1:{admin}" if admin else "",
            replicas=self._replicas,
            gateway=self._gateway_status,
            stopping=self._stopping,
        )

    def _replica_changed(self, _: Replica) -> None:
        self._endpoints_changed.set()
        self._publish()
        if all(r.failed_starts >= GIVE_UP_AFTER for r in self._replicas):
            self._hopeless.set()

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
            "port": self._address.get("port"),
            "url": view.url,
            "admin_url": view.admin_url,
            "gateway_log": str(self._state_dir.log("gateway")),
            "replicas": [
                {
                    "name": r.name,
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
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._start_gateway()
            tasks += [asyncio.create_task(replica.run()) for replica in self._replicas]
            tasks.append(asyncio.create_task(self._keep_gateway()))
            tasks.append(asyncio.create_task(self._keep_endpoints()))
            tasks.append(asyncio.create_task(self._keep_status()))
            tasks.append(asyncio.create_task(self._keep_settings(reload)))
            await self._wait(tasks, stop, stop_now)
        finally:
            self._stopping = True
            self._publish()
            await self._cancel(tasks)
            await self._end(stop_now)

    async def _wait(self, tasks: list[asyncio.Task[None]], stop: asyncio.Event, stop_now: asyncio.Event) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (stop, stop_now, self._hopeless)]
        try:
            await asyncio.wait([*tasks, *waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._cancel(waits)
        if self._hopeless.is_set():
            last = self._replicas[-1]
            raise EngineError(f"No replica could be started. {last.problem}", cure=f"Its log is {last.log}.")
        for task in tasks:
            if task.done():
                task.result()  # a chore never ends by itself: this raises what went wrong

    @staticmethod
    async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- Gateway ---------------------------------------------------------------------------------------------

    async def _start_gateway(self) -> None:
        if self._address:  # a restart keeps the port that clients know
            self._written_port = self._address["port"]
        self._state_dir.prepare()
        self._write_gateway_config(self._settings)
        launch = self._gateway_launch(self._state_dir)
        log = self._state_dir.log("gateway")
        self._gateway = await Child.start(launch, log=log, lifeline_fd=self._lifeline_read)
        deadline = time.monotonic() + GATEWAY_START_S
        while not self._state_dir.announce.exists():
            if not self._gateway.alive or time.monotonic() > deadline:
                await self._gateway.stop(1.0)
                raise ResourceError(f"The gateway did not start. {self._gateway.why()}", cure=f"Its log is {log}.")
            await asyncio.sleep(0.02)
        self._address = json.loads(self._state_dir.announce.read_text(encoding="utf-8"))
        self._publish()

    def _write_gateway_config(self, settings: Settings) -> None:
        gateway = settings.gateway.model_copy(update={"port": self._written_port})
        document = settings.model_copy(update={"gateway": gateway}).model_dump(mode="json")
        write_atomically(self._state_dir.gateway_config, yaml.safe_dump(document, sort_keys=False))

    async def _keep_gateway(self) -> None:
        while True:
            assert self._gateway is not None
            await self._gateway.wait()
            await asyncio.sleep(0.2)
            await self._start_gateway()
            self._endpoints_changed.set()

    async def _keep_endpoints(self) -> None:
        while True:
            await self._endpoints_changed.wait()
            self._endpoints_changed.clear()
            if not await self._put_endpoints():
                self._endpoints_changed.set()
                await asyncio.sleep(0.3)

    async def _put_endpoints(self) -> bool:
        endpoints = [
            {
                "name": r.name,
                "url": r.url,
                "model": self._model.name,
                "revision": self._model.revision,
                "digest": self._answer_digest,
            }
            for r in self._replicas
            if r.serves
        ]
        return await self._probe.put_endpoints(self.view().admin_url, endpoints, [self._model.name])

    async def _admitted(self, replica: Replica) -> bool:
        """Offer a replica to the gateway, and say whether it sends requests there."""
        await self._put_endpoints()
        status = await self._probe.gateway_status(self.view().admin_url)
        rows = status["endpoints"] if status is not None else []
        return any(row["url"] == replica.url and row["state"] == "ready" for row in rows)

    async def _keep_status(self) -> None:
        while True:
            self._gateway_status = await self._probe.gateway_status(self.view().admin_url)
            self._tell(self.view())
            await asyncio.sleep(STATUS_EVERY_S)

    # -- Reload ----------------------------------------------------------------------------------------------

    async def _keep_settings(self, wanted: asyncio.Event) -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            try:
                await self._reload(self._read())
            except (InferdockError, OSError) as exc:
                self._say(f"The configuration is as it was. {exc}")

    async def _reload(self, new: Settings) -> None:
        """Give the gateway its new settings; those of replicas count when the platform is started again."""
        merged = self._settings.model_copy(update={name: getattr(new, name) for name in _GATEWAY_ROOMS})
        self._write_gateway_config(merged)
        answer = await self._probe.reload_gateway(self.view().admin_url)
        if answer is None:
            self._write_gateway_config(self._settings)
            raise ResourceError("The gateway did not take it.", cure=f"See {self._state_dir.log('gateway')}.")
        old = dict(flatten(self._settings))
        differ = [key for key, value in flatten(new) if old[key] != value]
        restart = {key for key in differ if key == "gateway.port" or not key.startswith(_GATEWAY_ROOMS)}
        restart |= set(answer["needs_restart"])
        self._settings = merged.model_copy(
            update={"gateway": merged.gateway.model_copy(update={"port": self._settings.gateway.port})}
        )
        self._say("Configuration reloaded. Changed: " + (", ".join(answer["changed"]) or "nothing") + ".")
        if restart:
            self._say(f"Counts after a restart only: {', '.join(sorted(restart))}.")

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
        if self._gateway is not None:
            await self._gateway.stop(self._settings.drain_timeout_s + 5.0)
        await asyncio.gather(*(replica.stop(REPLICA_STOP_S) for replica in self._replicas))

    def _kill_all(self) -> None:
        if self._gateway is not None:
            self._gateway.kill()
        for replica in self._replicas:
            replica.kill()
