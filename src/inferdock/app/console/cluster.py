"""The console's data in a pod of a cluster: answers at a Unix socket, as ``app.console`` does for `inferdock up`.

A pod knows its own traffic and, from the EndpointSlices, all replicas. Releases it may look at where its role lets it
read ConfigMaps, which the chart's does not; it never steers them. What it does not know it says, with the command that
does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from inferdock.app.console.figures import COUNTED, Totals, endpoint_row, recent, shares, still_true, total
from inferdock.app.console.http import Feed, in_sentences, json_answer
from inferdock.app.console.records import keys
from inferdock.app.console.releases import current, releases
from inferdock.config.settings import Settings
from inferdock.domain.errors import InferdockError, RequestError, UnreachableError
from inferdock.keys.store import KeyFile
from inferdock.kube.access import ClusterAccess
from inferdock.kube.errors import ApiRefused
from inferdock.kube.objects_api import KubeObjects
from inferdock.release.clock import SystemClock
from inferdock.release.records.cluster_journal import ClusterJournals
from inferdock.telemetry.samples import read_samples

EVERY_S: Final = 5.0
"""Between two looks at the releases, while a page is open."""
REFUSED_S: Final = 60.0
"""The same where the cluster does not let us: rights seldom change."""
MOST_MODELS: Final = 20
ANSWER_S: Final = 5.0
ACTIONS: Final = ("pause", "resume", "promote", "abort", "rollback")


class Watched(Protocol):
    """What is asked of the gateway in this pod (``gateway.admin.AdminApi``)."""

    def when_fresh(self, ready: Callable[[], None]) -> None:
        """Call ``ready`` when the figures of all workers have come."""

    def status(self) -> dict[str, object]:
        """As ``GET /admin/status`` shows."""

    def metrics_text(self) -> bytes:
        """The Prometheus text."""


class Releases:
    """The releases of a namespace's models, read now and then."""

    def __init__(self, api: KubeObjects, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._look: asyncio.Task[None] | None = None
        self._due = 0.0
        self._shown: dict[str, Any] | None = {"problem": "The releases are being read.", "kind": ""}

    def shown(self, models: list[str], now: float) -> dict[str, Any] | None:
        """The release under way, or the last one, as it was a few seconds ago; at ``now`` monotonic seconds."""
        if now >= self._due and (self._look is None or self._look.done()):
            self._due = now + EVERY_S
            self._look = asyncio.create_task(self._read(models, now))
        return self._shown

    async def _read(self, models: list[str], now: float) -> None:
        try:
            found = [one for model in models[:MOST_MODELS] if (one := await current(self._journals(model)))]
        except InferdockError as exc:
            self._due = now + (REFUSED_S if _refused(exc) else EVERY_S)
            self._shown = {"problem": sentence(exc, models), "kind": "warn" if _refused(exc) else "bad"}
        else:
            self._shown = max(found, key=lambda one: (not one["over"], _seconds(one)), default=None)

    async def list(self, models: list[str]) -> dict[str, Any]:
        """The last releases of all models.

        Raises:
            UnreachableError: they cannot be read.
        """
        try:
            each = [await releases(self._journals(model)) for model in models[:MOST_MODELS]]
        except InferdockError as exc:
            raise UnreachableError(sentence(exc, models)) from exc
        rows = [row for one in each for row in one["releases"]]
        return {"current": None, "releases": sorted(rows, key=_seconds, reverse=True)}

    def _journals(self, model: str) -> ClusterJournals:
        return ClusterJournals(self._api, namespace=self._namespace, model=model, clock=SystemClock())

    async def close(self) -> None:
        """Stop reading."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)


def _seconds(release: dict[str, Any]) -> str:
    return str(release.get("time", ""))


def _refused(exc: InferdockError) -> bool:
    return isinstance(exc, ApiRefused) and exc.status in (401, 403)


def sentence(exc: InferdockError, models: list[str]) -> str:
    """Why no release is shown, and what shows it."""
    if not _refused(exc):
        return exc.message
    return (
        "This pod may not read releases: its role has no right to list ConfigMaps, which hold their journals. Run "
        f"`inferdock release status --target kubernetes --model {models[0] if models else 'NAME'}`."
    )


class ClusterConsole:
    """Answers the page's questions in a pod.

    Args:
        settings: the whole configuration.
        key_file: the keys that this gateway checks.
        gateway: of this pod.
        releases: of the namespace.
        pod: its name.
    """

    def __init__(
        self, *, settings: Settings, key_file: KeyFile, gateway: Watched, releases: Releases, pod: str
    ) -> None:
        self._settings = settings
        self._key_file = key_file
        self._gateway = gateway
        self._releases = releases
        self._pod = pod
        self._past: list[Totals] = []
        self.feed = Feed(self.document)

    def application(self) -> web.Application:
        """Its routes."""
        app = web.Application(middlewares=[in_sentences])
        app.router.add_get("/console/api/live", self.feed.answer)
        app.router.add_get("/console/api/releases", self._list)
        app.router.add_get("/console/api/registry", self._registry)
        app.router.add_get("/console/api/keys", self._keys)
        app.router.add_post("/console/api/release", self._release)
        return app

    async def document(self) -> dict[str, Any]:
        """Everything that moves, as the page wants it (``live.Figurer.document``)."""
        fresh = asyncio.get_running_loop().create_future()
        self._gateway.when_fresh(lambda: None if fresh.done() else fresh.set_result(None))
        await fresh
        status: dict[str, Any] = self._gateway.status()
        now = time.monotonic()
        totals = total(now, read_samples(self._gateway.metrics_text().decode(), COUNTED), [])
        self._past = [*still_true(self._past, totals), totals]
        rows = [endpoint_row(one) for one in status["endpoints"]]
        models = self._models(status)
        return {
            "time": time.time(),
            "model": models[0] if models else "no model yet",
            "models": models,
            "revision": ", ".join(sorted({one["revision"] for one in rows if one["revision"]})),
            "weights": shares(status),
            "stopping": status["state"] == "draining",
            "replicas": rows,
            "in_flight": status["in_flight"],
            "uptime_s": status["uptime_s"],
            "figures": recent(self._past, totals),
            "cost": {"price": None, "given": None, "why": "A pod does not know it: `inferdock cost`, or Grafana."},
            "release": self._releases.shown(models, now),
            "commands": [],
            "scope": f"Requests, tokens and times are those of this gateway's pod alone ({self._pod}); "
            "Grafana adds up all pods.",
            "instead": [f"inferdock release {one} --target kubernetes --model {_one(models)}" for one in ACTIONS],
        }

    def _models(self, status: dict[str, Any] | None = None) -> list[str]:
        found: Any = (status or self._gateway.status())["endpoints"]
        return sorted({one["model"] for one in found} | set(self._settings.gateway.kubernetes.model_names.values()))

    async def _list(self, _: web.Request) -> web.Response:
        return json_answer(await self._releases.list(self._models()))

    async def _registry(self, _: web.Request) -> web.Response:
        raise RequestError(
            503, "A gateway's pod does not read the registry: run `inferdock model list`.", code="not_here"
        )

    async def _keys(self, _: web.Request) -> web.Response:
        return json_answer(keys(await asyncio.to_thread(self._key_file.read), self._settings.keys.check))

    async def _release(self, _: web.Request) -> web.Response:
        command = f"inferdock release ... --target kubernetes --model {_one(self._models())}"
        raise RequestError(403, f"A gateway's pod steers no release: run `{command}`.", code="not_here")


def _one(models: list[str]) -> str:
    return models[0] if len(models) == 1 else "NAME"


async def serve(
    settings: Settings, access: ClusterAccess, *, key_file: KeyFile, gateway: Watched, socket: Path
) -> None:
    """Answer until cancelled; the socket's folder goes with it.

    Args:
        settings: the whole configuration.
        access: to the cluster.
        key_file: the keys that this gateway checks.
        gateway: of this pod.
        socket: in a folder that is ours alone.
    """
    namespace = settings.gateway.kubernetes.namespace or access.namespace
    async with KubeObjects(access, answer_timeout_s=ANSWER_S) as api:
        found = Releases(api, namespace)
        console = ClusterConsole(
            settings=settings, key_file=key_file, gateway=gateway, releases=found, pod=os.uname().nodename
        )
        runner = web.AppRunner(console.application(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.UnixSite(runner, socket).start()
            await asyncio.Event().wait()
        finally:
            await console.feed.close()
            await found.close()
            await runner.cleanup()
            shutil.rmtree(socket.parent, ignore_errors=True)
