"""The platform of ``inferdock up``: revisions and weights through its control socket, figures from its gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Meta

from inferdock.domain.errors import (
    ConflictError,
    InferdockError,
    ModelError,
    RegistryError,
    ResourceError,
    UnreachableError,
)
from inferdock.release.driver import Observed, Room, Running
from inferdock.release.judging.figures import Counts
from inferdock.release.judging.readings import counts_of
from inferdock.release.steps import Target
from inferdock.telemetry.scrape import read_figures

ANSWER_S: Final = 20.0
MAX_METRICS_BYTES: Final = 64 * 1024 * 1024
_LATER: Final = frozenset({"no_memory", "no_spare_gpu", "too_many_revisions"})
"""Refusals that may pass when something else has gone."""


class _Row(msgspec.Struct, frozen=True):
    revision: str
    reference: str
    wanted: Annotated[int, Meta(ge=0)]
    ready: Annotated[int, Meta(ge=0)]
    serves: list[str]
    problem: str
    retiring: bool
    stopping: Annotated[int, Meta(ge=0)]
    given_up: bool


class _Room(msgspec.Struct, frozen=True):
    replicas: Annotated[int, Meta(ge=0)] | None
    reason: str


class _Rows(msgspec.Struct, frozen=True):
    revisions: list[_Row]
    weights: dict[str, float]


class LocalDriver:
    """Drives a platform on this machine.

    Args:
        http: session whose connector goes to the control socket; see :func:`control_session`.
    """

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def observe(self) -> Observed:
        """See `driver.Driver`."""
        rows = await self._rows()
        return Observed(revisions=tuple(_running(row) for row in rows.revisions), weights=rows.weights)

    async def room(self, target: Target) -> Room:
        """See `driver.Driver`."""
        try:
            answer = await self._ask("GET", f"/room?reference={quote(target.reference, safe='')}")
            found = msgspec.convert(answer, _Room)
        except msgspec.ValidationError as exc:
            raise UnreachableError(f"The platform's control socket answers strangely: {exc}.") from exc
        return Room(replicas=found.replicas, reason=found.reason)

    async def start(self, target: Target) -> None:
        """See `driver.Driver`; the platform pulls and verifies the version first."""
        present = next((row for row in (await self._rows()).revisions if row.revision == target.revision), None)
        if present is not None and present.wanted >= target.replicas and not present.problem:
            return
        body = {"reference": target.reference, "replicas": target.replicas}
        taken = await self._ask("PUT", "/revisions", body)
        if taken.get("revision") != target.revision:
            raise ModelError(
                f"{target.reference} is {taken.get('revision')} now, not {target.revision}.",
                cure="It was replaced since the release was planned; abort it and plan again.",
            )

    async def scale(self, revision: str, replicas: int) -> None:
        """See `driver.Driver`."""
        try:
            await self._ask("PATCH", f"/revisions/{quote(revision, safe='')}", {"replicas": replicas})
        except RegistryError as exc:  # it has gone since somebody saw it: look again
            raise ConflictError(exc.message) from exc

    async def shift(self, weights: Mapping[str, float]) -> None:
        """See `driver.Driver`."""
        await self._ask("PUT", "/weights", dict(weights))

    async def mirror(self, revision: str | None, share: float) -> None:
        """See `driver.Driver`."""
        await self._ask("PUT", "/shadow", {"revision": revision, "share": share} if revision else {})

    async def retire(self, revision: str) -> None:
        """See `driver.Driver`."""
        with contextlib.suppress(RegistryError):  # it has gone
            await self._ask("DELETE", f"/revisions/{quote(revision, safe='')}")

    async def address(self, revision: str) -> tuple[str, ...]:
        """See `driver.Driver`."""
        return next((tuple(row.serves) for row in (await self._rows()).revisions if row.revision == revision), ())

    async def _rows(self) -> _Rows:
        answer = await self._ask("GET", "/revisions")
        try:
            return msgspec.convert(answer, _Rows)
        except msgspec.ValidationError as exc:
            raise UnreachableError(f"The platform's control socket answers strangely: {exc}.") from exc

    async def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            async with self._http.request(method, f"http://platform{path}", json=body) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            raise UnreachableError("The platform does not answer.", cure="Does `inferdock up` run?") from exc
        if not isinstance(answer, dict):
            raise UnreachableError("The platform's control socket answers strangely.")
        if response.status >= 400:
            raise _refused(response.status, answer)
        return answer


def control_session(socket: Path) -> aiohttp.ClientSession:
    """A session to a platform's control socket."""
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path=str(socket)), timeout=aiohttp.ClientTimeout(total=ANSWER_S)
    )


def _refused(status: int, answer: Mapping[str, Any]) -> InferdockError:
    """The platform's refusal, sorted by whether trying again may help."""
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    message, code = str(error.get("message", "The platform refuses."))[:1000], error.get("code")
    if code in _LATER:
        return ResourceError(message)
    if status == 404 or code == "not_found":
        return RegistryError(message)
    if status == 409:
        return ConflictError(message)
    return UnreachableError(message) if status >= 500 else ModelError(message)


def _running(row: _Row) -> Running:
    return Running(
        revision=row.revision,
        reference=row.reference or row.revision,
        wanted=0 if row.retiring else row.wanted,
        ready=0 if row.retiring else row.ready,
        problem=row.problem,
        given_up=row.given_up,
        stopping=row.stopping,
    )


class LocalMeter:
    """Reads the gateway's own figures, from its admin port.

    Args:
        http: session.
        admin_url: of the gateway.
        model: whose figures.
    """

    def __init__(self, http: aiohttp.ClientSession, admin_url: str, model: str) -> None:
        self._http = http
        self._url = f"{admin_url.rstrip('/')}/metrics"
        self._model = model

    async def read(self) -> Mapping[str, Counts]:
        """See `figures.Meter`.

        Raises:
            UnreachableError: the gateway does not answer.
        """
        try:
            async with self._http.get(self._url, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as response:
                response.raise_for_status()
                data = bytearray()
                async for chunk in response.content.iter_chunked(1024 * 1024):
                    data += chunk
                    if len(data) > MAX_METRICS_BYTES:
                        raise UnreachableError("The gateway's figures are too long.", cure="Is that the admin port?")
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise UnreachableError("The gateway does not show its figures.", cure="Is it running?") from exc
        found = await asyncio.to_thread(read_figures, data.decode("utf-8", "replace"), self._model)
        return {revision: counts_of(figures) for revision, figures in found.items()}
