"""The gateway's process, as the supervisor keeps it: started again when it dies, and told again what it must know.

A gateway that starts knows nothing: its endpoints and the weights of revisions live here, and are put again after each
start. Weights go first, so that a revision that was promised nothing gets nothing, not even for a moment.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from inferdock.config.load import flatten
from inferdock.config.settings import Settings
from inferdock.domain.errors import ResourceError
from inferdock.domain.shadow import Shadow
from inferdock.supervisor.child import Child
from inferdock.supervisor.engine import Launch
from inferdock.supervisor.probe import Probe
from inferdock.supervisor.state import StateDir, write_atomically

START_S = 20.0
AGAIN_S = 0.3
"""Pause before a gateway that did not take what it was told is told again."""
STATUS_EVERY_S = 1.0
_ROOMS = ("gateway", "balance", "keys", "log", "tracing", "drain_timeout_s")
"""Settings that the gateway obeys."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the gateway is to serve.

    Attributes:
        model: that clients ask for.
        weights: of revisions; none: all endpoints share.
        endpoints: as ``PUT /admin/endpoints`` spells them.
        shadow: which requests are copied; None: none.
    """

    model: str
    weights: Mapping[str, float]
    endpoints: list[dict[str, str]]
    shadow: Shadow | None = None


class Gateway:
    """The gateway of one platform.

    Attributes:
        settings: that it was given last.
        address: what it announced: ``host``, ``port``, ``admin_port``, ``pid``; empty until it listens.
        status: its last ``/admin/status``; None when it did not answer.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        state_dir: StateDir,
        launch: Callable[[StateDir], Launch],
        lifeline_fd: int,
        probe: Probe,
        offer: Callable[[], Offer],
        changed: Callable[[bool], None],
    ) -> None:
        """Nothing is started yet.

        Args:
            offer: says what it is to serve now.
            changed: called when its address (True) or its status (False) is new.
        """
        self.settings = settings
        self.address: dict[str, Any] = {}
        self.status: dict[str, Any] | None = None
        self._state_dir = state_dir
        self._launch = launch
        self._lifeline_fd = lifeline_fd
        self._probe = probe
        self._offer = offer
        self._changed = changed
        self._written_port = settings.gateway.port
        self._child: Child | None = None
        self._stale = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where clients find it; "" until it listens."""
        host, port = self.address.get("host", ""), self.address.get("port", 0)
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        return f"http://{shown}:{port}" if port else ""

    @property
    def admin_url(self) -> str:
        """Where its admin port is; "" until it listens."""
        admin = self.address.get("admin_port", 0)
        return f"http://127.0.0.1:{admin}" if admin else ""

    # -- Its process -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it and wait until it listens; a restart keeps the port that clients know.

        Raises:
            ResourceError: it cannot listen.
        """
        if self.address:
            self._written_port = self.address["port"]
        self._state_dir.prepare()
        self._write_config(self.settings)
        log = self._state_dir.log("gateway")
        self._child = await Child.start(self._launch(self._state_dir), log=log, lifeline_fd=self._lifeline_fd)
        deadline = time.monotonic() + START_S
        while not self._state_dir.announce.exists():
            if not self._child.alive or time.monotonic() > deadline:
                await self._child.stop(1.0)
                raise ResourceError(f"The gateway did not start. {self._child.why()}", cure=f"Its log is {log}.")
            await asyncio.sleep(0.02)
        self.address = json.loads(self._state_dir.announce.read_text(encoding="utf-8"))
        self._changed(True)

    async def keep(self) -> None:
        """Start it again whenever it ends."""
        while True:
            assert self._child is not None
            await self._child.wait()
            await asyncio.sleep(0.2)
            await self.start()
            self.tell_soon()

    async def stop(self, within_s: float) -> None:
        """Have it drain, and end it after ``within_s`` seconds."""
        if self._child is not None:
            await self._child.stop(within_s)

    def kill(self) -> None:
        """End it at once."""
        if self._child is not None:
            self._child.kill()

    def _write_config(self, settings: Settings) -> None:
        gateway = settings.gateway.model_copy(update={"port": self._written_port})
        document = settings.model_copy(update={"gateway": gateway}).model_dump(mode="json")
        write_atomically(self._state_dir.gateway_config, yaml.safe_dump(document, sort_keys=False))

    # -- What it serves --------------------------------------------------------------------------------------

    def tell_soon(self) -> None:
        """The offer may have changed."""
        self._stale.set()

    async def keep_told(self) -> None:
        """Tell it each offer, until it takes it."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            if not await self.tell():
                self._stale.set()
                await asyncio.sleep(AGAIN_S)

    async def tell(self) -> bool:
        """Tell it the offer of this moment; False when it did not take it.

        One at a time: of two that cross on their way, the older could arrive last.
        """
        async with self._turn:
            offer, admin_url = self._offer(), self.admin_url
            if not await self._probe.put_traffic(admin_url, offer.model, offer.weights, offer.shadow):
                return False
            return await self._probe.put_endpoints(admin_url, offer.endpoints, [offer.model])

    async def told(self, within_s: float) -> bool:
        """Tell it the offer, again and again for so many seconds; whether it took it."""
        deadline = time.monotonic() + within_s
        while not await self.tell():
            if time.monotonic() > deadline:
                self.tell_soon()
                return False
            await asyncio.sleep(AGAIN_S)
        return True

    async def uses(self, url: str) -> bool:
        """Whether it sends requests to the endpoint at this address."""
        status = await self._probe.gateway_status(self.admin_url)
        rows = status["endpoints"] if status is not None else []
        return any(row["url"] == url and row["state"] == "ready" for row in rows)

    async def held(self, names: set[str]) -> int | None:
        """Requests that it holds on these endpoints; None when it does not answer."""
        status = await self._probe.gateway_status(self.admin_url)
        if status is None:
            return None
        return sum(int(row["in_flight"]) for row in status["endpoints"] if row["name"] in names)

    async def keep_status(self) -> None:
        """Ask for its figures once a second."""
        while True:
            self.status = await self._probe.gateway_status(self.admin_url)
            self._changed(False)
            await asyncio.sleep(STATUS_EVERY_S)

    # -- Reload ----------------------------------------------------------------------------------------------

    async def reload(self, new: Settings) -> list[str]:
        """Give it its new settings; those of replicas count when the platform is started again.

        Returns:
            sentences on what has changed.

        Raises:
            ResourceError: it did not take them; nothing has changed.
        """
        merged = self.settings.model_copy(update={name: getattr(new, name) for name in _ROOMS})
        self._write_config(merged)
        answer = await self._probe.reload_gateway(self.admin_url)
        if answer is None:
            self._write_config(self.settings)
            raise ResourceError("The gateway did not take it.", cure=f"See {self._state_dir.log('gateway')}.")
        old = dict(flatten(self.settings))
        differ = [key for key, value in flatten(new) if old[key] != value]
        restart = {key for key in differ if key == "gateway.port" or not key.startswith(_ROOMS)}
        restart |= set(answer["needs_restart"])
        self.settings = merged.model_copy(
            update={"gateway": merged.gateway.model_copy(update={"port": self.settings.gateway.port})}
        )
        said = ["Configuration reloaded. Changed: " + (", ".join(answer["changed"]) or "nothing") + "."]
        if restart:
            said.append(f"Counts after a restart only: {', '.join(sorted(restart))}.")
        return said
