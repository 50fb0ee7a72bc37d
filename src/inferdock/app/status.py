"""Looks at what runs, for ``inferdock status``.

The platform of ``inferdock up`` is asked where the console's page is (its socket, ``app.console``), so both show the
same document. A gateway that runs alone is asked at its admin address for as much of that document as it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import msgspec

from inferdock.app import cost
from inferdock.app.console.figures import COUNTED, Totals, endpoint_row, recent, shares, still_true, total
from inferdock.config.load import load
from inferdock.config.settings import CostSettings
from inferdock.domain.errors import ConfigError, InferdockError, ResourceError, UnreachableError
from inferdock.supervisor.probe import Probe
from inferdock.supervisor.state import read_state
from inferdock.telemetry import names
from inferdock.telemetry.samples import Sample, read_samples
from inferdock.wire.sse import EventSplitter, SseError

EVERY_S: Final = 1.0
ANSWER_S: Final = 5.0
SILENT_S: Final = 15.0
"""A platform that says nothing for so long does not answer: a document may wait 5 s for an engine that hangs."""
MOST_BYTES: Final = 64 * 1024 * 1024
_ENGINE: Final = frozenset({names.ENGINE_PREFIX_HITS, names.ENGINE_PREFIX_QUERIES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look.

    Attributes:
        state: what a platform has written down about itself: addresses, replicas, logs. Of a gateway alone its
            address.
        gateway: its ``/admin/status``; None when it does not answer.
        live: the console's document (``app.console.live.Figurer``), with the release.
    """

    state: dict[str, Any]
    gateway: dict[str, Any] | None
    live: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        return {**self.state, "gateway": self.gateway, "live": self.live}


class Source(Protocol):
    """Where looks come from."""

    def looks(self) -> AsyncGenerator[Seen]:
        """One look about every second, until something is wrong.

        Raises:
            UnreachableError: nothing runs there, it does not answer, or only half.
            ResourceError: somebody else's platform.
        """


async def settled(source: Source) -> Seen:
    """One look with rates in it: they need two, a second apart, unless somebody has been looking already.

    Raises:
        UnreachableError, ResourceError: see :class:`Source`.
    """
    last: Seen | None = None
    async with contextlib.aclosing(source.looks()) as looks:
        async for seen in looks:
            figures = seen.live.get("figures")
            if last is not None or not figures or figures.get("requests_per_s") is not None:
                return seen
            last = seen
    raise UnreachableError("What runs here gave no answer.", cure="Ask again.")


# -- The platform of `inferdock up` --------------------------------------------------------------------------------


class PlatformSource:
    """The platform that runs on this machine.

    Args:
        root: folder under which platforms keep their state.
        port: of its gateway, where several run.
    """

    def __init__(self, root: Path, port: int | None) -> None:
        self._root = root
        self._port = port

    async def looks(self) -> AsyncGenerator[Seen]:
        """See :class:`Source`."""
        socket = console_socket(read_state(self._root, self._port))
        connector = aiohttp.UnixConnector(path=str(socket))
        async with aiohttp.ClientSession(connector=connector) as console, aiohttp.ClientSession() as http:
            async for live in _documents(console):
                state = read_state(self._root, self._port)
                yield Seen(
                    state=state, gateway=await Probe(http).gateway_status(str(state.get("admin_url"))), live=live
                )


def console_socket(state: dict[str, Any]) -> Path:
    """Where a platform answers the console; not always in its folder, whose path may be too long for a socket.

    Raises:
        UnreachableError: it does not say.
    """
    old = UnreachableError("The platform here is of an older version.", cure="Restart `inferdock up`.")
    if not state.get("gateway_log"):
        raise old
    config = Path(str(state["gateway_log"])).parents[1] / "gateway.yaml"
    try:
        found = load(file=config, env={}, flags={}).settings.gateway.console_socket
    except ConfigError as exc:
        raise old from exc
    if found is None:
        raise old
    return found


async def _documents(console: aiohttp.ClientSession) -> AsyncGenerator[dict[str, Any]]:
    """The console's feed."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=SILENT_S)
    splitter = EventSplitter(MOST_BYTES)
    try:
        async with console.get("http://console/console/api/live", timeout=timeout) as response:
            if response.status != 200:
                raise UnreachableError(f"The platform refuses: {_said(await response.read(), response.status)}")
            async for piece in response.content.iter_any():
                for data in splitter.feed(piece):
                    yield _decoded(data)
    except aiohttp.ClientConnectorError as exc:
        if isinstance(exc.os_error, PermissionError):
            raise ResourceError(
                "The platform here belongs to another user.", cure="Ask as the user who started `inferdock up`."
            ) from exc
        raise _silent(exc) from exc
    except (aiohttp.ClientError, TimeoutError, OSError, SseError) as exc:
        raise _silent(exc) from exc
    raise UnreachableError("The platform stopped answering.", cure="Does `inferdock up` still run? Ask again.")


def _silent(exc: Exception) -> UnreachableError:
    reason = str(exc) or type(exc).__name__
    return UnreachableError(
        f"The platform does not answer on its console socket: {reason}.", cure="Does `inferdock up` still run?"
    )


def _said(body: bytes, status: int) -> str:
    """A refusal's sentence."""
    try:
        return str(json.loads(body)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP {status}."


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UnreachableError(
            f"The platform's answer makes no sense: {exc}.", cure="Is it of another version? Restart `inferdock up`."
        ) from exc


# -- A gateway alone -----------------------------------------------------------------------------------------------


class GatewaySource:
    """A gateway that ``inferdock up`` did not start; it knows nothing of releases and of engines' starts.

    Args:
        admin_url: its admin address.
        settings: what its machines cost.
    """

    def __init__(self, admin_url: str, settings: CostSettings) -> None:
        self._admin_url = admin_url.rstrip("/")
        self._settings = settings
        self._past: list[Totals] = []

    async def looks(self) -> AsyncGenerator[Seen]:
        """See :class:`Source`."""
        async with aiohttp.ClientSession() as http:
            while True:
                yield await self._look(http)
                await asyncio.sleep(EVERY_S)

    async def _look(self, http: aiohttp.ClientSession) -> Seen:
        status = await self._status(http)
        endpoints = status["endpoints"]
        gateway = read_samples(await cost.metrics_text(http, f"{self._admin_url}/metrics", ANSWER_S), COUNTED)
        engines = await asyncio.gather(*(_engine(http, str(one["url"])) for one in endpoints))
        totals = total(time.monotonic(), gateway, [sample for samples in engines for sample in samples])
        self._past = [*still_true(self._past, totals), totals]
        live = {
            "time": time.time(),
            "model": ", ".join(sorted({str(one["model"]) for one in endpoints})),
            "revision": ", ".join(sorted({str(one["revision"]) for one in endpoints} - {""})),
            "weights": shares(status),
            "stopping": status.get("state") == "draining",
            "replicas": [endpoint_row(one) for one in endpoints],
            "in_flight": status.get("in_flight"),
            "uptime_s": status.get("uptime_s"),
            "figures": recent(self._past, totals),
            "cost": await self._bill(http, endpoints),
        }
        return Seen(state={"admin_url": self._admin_url}, gateway=status, live=live)

    async def _status(self, http: aiohttp.ClientSession) -> dict[str, Any]:
        url = f"{self._admin_url}/admin/status"
        cure = "Give the admin address that the gateway announces, or leave --admin-url out for `inferdock up`."
        try:
            async with http.get(url, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise UnreachableError(
                f"Nothing answers at {self._admin_url}: {str(exc) or type(exc).__name__}.", cure=cure
            ) from exc
        if response.status != 200:
            raise UnreachableError(f"{self._admin_url} refuses: {_said(body, response.status)}", cure=cure)
        try:
            found: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
            found["endpoints"] = [{**_NO_ENDPOINT, **one} for one in found["endpoints"]]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as exc:
            raise UnreachableError(f"What answers at {self._admin_url} is no gateway of ours.", cure=cure) from exc
        return found

    async def _bill(self, http: aiohttp.ClientSession, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
        """What it costs since the gateway's start, in the console's form."""
        engines = tuple(cost.Engine(str(one["model"]), str(one["revision"]), str(one["url"])) for one in endpoints)
        where = cost.Where(self._admin_url, f"{self._admin_url}/admin/status", engines, len(engines))
        try:
            cost.rates(self._settings)  # where nobody has given a price, nothing need be asked
            async with asyncio.timeout(ANSWER_S):
                bill = cost.report(self._settings, await cost.since_start(http, where))["total"]
        except ConfigError as exc:
            return {"price": None, "given": False, "why": exc.message}
        except InferdockError as exc:
            return {"price": None, "why": exc.message}
        except TimeoutError:
            return {"price": None, "why": "An engine does not say in time what it has done."}
        return {"price": True, **{name: bill[name] for name in _MONEY}}


_MONEY: Final = ("dollars_per_hour", "dollars_per_million", "saved_dollars")
_NO_ENDPOINT: Final = {"name": "", "url": "", "model": "", "revision": ""}


async def _engine(http: aiohttp.ClientSession, url: str) -> list[Sample]:
    """What an engine says of its prefix cache; nothing where it does not answer."""
    try:
        return read_samples(await cost.metrics_text(http, f"{url}/metrics", ANSWER_S), _ENGINE)
    except InferdockError:
        return []
