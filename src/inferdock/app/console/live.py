"""Figures of the running platform for the console, once a second while somebody looks.

Totals come from the gateway's ``/metrics`` (all its workers together) and from each engine's; rates and percentiles
are made from the totals of the last seconds, as ``inferdock status`` makes them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import aiohttp

from inferdock.app.console.figures import COUNTED, Totals, recent, still_true, total
from inferdock.app.cost import Figures, gateway_uptime, metrics_text, rates, report_at
from inferdock.config.settings import CostSettings
from inferdock.cost.observed import ENGINE_WANTED, WANTED
from inferdock.cost.rates import Rates
from inferdock.cost.series import Series
from inferdock.domain.errors import ConfigError, InferdockError
from inferdock.supervisor.replica import Replica, ReplicaState
from inferdock.supervisor.supervisor import View
from inferdock.telemetry import names
from inferdock.telemetry.samples import Sample, read_samples

ANSWER_S: Final = 5.0
_GATEWAY: Final = COUNTED.union(WANTED)
_ENGINE: Final = frozenset({*ENGINE_WANTED, names.ENGINE_PREFIX_HITS, names.ENGINE_PREFIX_QUERIES})


class Figurer:
    """Makes the documents that the page shows; ask about once a second."""

    def __init__(self, http: aiohttp.ClientSession, cost: CostSettings) -> None:
        self._http = http
        self._cost = cost
        self._rates: tuple[Rates, dict[str, Any]] | None = None
        self._past: list[Totals] = []

    async def document(self, view: View) -> dict[str, Any]:
        """Everything that moves, as JSON has it; times in seconds."""
        now = time.monotonic()
        gateway, engines, uptime = await self._look(view)
        figures: dict[str, Any] | None = None
        if gateway:
            totals = total(now, gateway, [one for samples in engines.values() for one in samples])
            figures = recent(self._remember(totals), totals)
        return {
            "time": time.time(),
            "model": view.model,
            "revision": view.revision,
            "weights": dict(view.weights),
            "stopping": view.stopping,
            "replicas": [row(one, view.gateway, now) for one in view.replicas],
            "in_flight": (view.gateway or {}).get("in_flight"),
            "uptime_s": None if uptime is None else float(uptime),
            "figures": figures,
            "cost": self._bill(view, engines, gateway, uptime),
        }

    def _remember(self, totals: Totals) -> Sequence[Totals]:
        """The looks of the last minute, with this one."""
        self._past = still_true(self._past, totals)
        self._past.append(totals)
        return self._past

    async def _samples(self, url: str, wanted: frozenset[str]) -> list[Sample]:
        """None of them where nothing answers: it may have gone this moment."""
        try:
            return read_samples(await metrics_text(self._http, url, ANSWER_S), wanted)
        except InferdockError:
            return []

    def _bill(
        self, view: View, engines: Mapping[Replica, list[Sample]], gateway: list[Sample], uptime: Fraction | None
    ) -> dict[str, Any]:
        """What it costs since the gateway's start, or why nobody can say."""
        if not gateway or not uptime:
            return {"price": None, "why": "The gateway does not answer just now."}
        try:
            total = self._report(view, engines, gateway, uptime)["total"]
        except ConfigError as exc:
            return {"price": None, "given": False, "why": exc.message}
        except InferdockError as exc:
            return {"price": None, "why": exc.message}
        return {
            "price": True,
            "dollars_per_hour": total["dollars_per_hour"],
            "dollars_per_million": total["dollars_per_million"],
            "saved_dollars": total["saved_dollars"],
        }

    def _report(
        self, view: View, engines: Mapping[Replica, list[Sample]], gateway: list[Sample], uptime: Fraction
    ) -> dict[str, Any]:
        """The whole bill.

        Raises:
            InferdockError: nobody has said what machines cost, or it cannot be made.
        """
        counted = [_series(one, {}) for one in gateway if one.name in WANTED]
        of_engines = [
            _series(one, {"model": view.model, "instance": replica.url, "revision": replica.revision})
            for replica, samples in engines.items()
            for one in samples
            if one.name in ENGINE_WANTED
        ]
        figures = Figures(counted, of_engines, uptime, "since the gateway's start", len(view.replicas))
        return report_at(self._prices(), self._cost, figures)

    def _prices(self) -> tuple[Rates, dict[str, Any]]:
        """They are in files, which are read once.

        Raises:
            ConfigError: nobody has said what machines cost, or the files are wrong.
        """
        if self._rates is None:
            self._rates = rates(self._cost)
        return self._rates

    async def bill(self, view: View) -> dict[str, Any] | None:
        """The bill since the gateway's start, as ``cost.report`` writes it; None where there can be none."""
        try:
            self._prices()
            gateway, engines, uptime = await self._look(view)
            return self._report(view, engines, gateway, uptime) if gateway and uptime else None
        except InferdockError:
            return None

    async def _look(self, view: View) -> tuple[list[Sample], dict[Replica, list[Sample]], Fraction | None]:
        """What the gateway and the engines have counted, and for how long the gateway has, in seconds.

        The time is asked for together with the counters: one that is seconds older would hide start-up time.
        """
        ready = [one for one in view.replicas if one.state is ReplicaState.READY]
        uptime, (gateway, *engines) = await asyncio.gather(
            self._uptime(view),
            asyncio.gather(
                self._samples(f"{view.admin_url}/metrics", _GATEWAY),
                *(self._samples(f"{one.url}/metrics", _ENGINE) for one in ready),
            ),
        )
        return gateway, dict(zip(ready, engines, strict=True)), uptime

    async def _uptime(self, view: View) -> Fraction | None:
        try:
            return await gateway_uptime(self._http, f"{view.admin_url}/admin/status", ANSWER_S)
        except InferdockError:
            return None


def row(replica: Replica, gateway: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
    """One replica: what the supervisor knows, and the gateway's figures of it."""
    seen = {one["name"]: one for one in (gateway or {}).get("endpoints", [])}.get(replica.name, {})
    return {
        "name": replica.name,
        "revision": replica.revision,
        "state": str(replica.state),
        "since_s": round(max(0.0, now - replica.since), 1),
        "restarts": replica.restarts,
        "problem": replica.problem,
        **{name: seen.get(name) for name in ("in_flight", "running", "waiting", "kv_cache_usage_ratio")},
    }


def _series(sample: Sample, labels: Mapping[str, str]) -> Series:
    return Series(sample.name, {**sample.labels, **labels}, [(0.0, sample.value)], from_zero=True)
