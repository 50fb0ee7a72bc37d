"""Journals in a cluster: ConfigMaps, a key for each line, chained as in a file.

A line is added with the resource version of the ConfigMap as a precondition: whoever wrote meanwhile makes the write
fail. An answer may be lost after the write was done, so before anything is tried again it is looked whether the line is
there already. When a ConfigMap nears its limit, the next part begins.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

import msgspec

from inferdock.domain.errors import ConfigError, ConflictError, IntegrityError, ResourceError, UnreachableError
from inferdock.kube.errors import ApiConflict, ApiRefused, KubeError
from inferdock.kube.naming import label_value
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import CONFIG_MAPS, KubeObject
from inferdock.release.clock import Clock
from inferdock.release.events import Event
from inferdock.release.plan import Plan
from inferdock.release.records.cluster_names import BESIDE, MANAGER, MODEL, PART, RELEASE, journal_name
from inferdock.release.records.journal import By, Chain, Journal, Journals, checked_id, first_line, no_release

PART_BYTES: Final = 900 * 1024
"""Of one ConfigMap; Kubernetes takes 1 MiB with keys and all."""
KEPT: Final = 100
"""Releases of a model; older ones that are over make room when a new one begins."""
PATIENCE_S: Final = 120.0
"""That a line waits for an API that does not answer."""
READ_S: Final = 10.0
"""That is looked again where the API fails."""
RETRY_S: Final = 0.5
_KEY: Final = re.compile(r"[0-9]{5}\.json")
_LATER: Final = frozenset({429, 500, 502, 503, 504})


class _Map(msgspec.Struct, rename="camel"):
    """What we read of a ConfigMap."""

    metadata: _Meta
    data: dict[str, str] | None = None


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None


class ClusterJournals(Journals):
    """All releases of one model.

    Args:
        api: the cluster.
        namespace: where the model is.
        model: name that clients use.
        clock: for waiting.
    """

    def __init__(self, api: KubeObjects, *, namespace: str, model: str, clock: Clock) -> None:
        self._api = api
        self._namespace = namespace
        self._label = label_value(model)
        self._clock = clock

    async def ids(self) -> list[str]:
        """See `journal.Journals`."""
        return [release for release, _ in await self._heads()]

    async def create(self, plan: Plan, by: By, now: datetime, *, reason: str) -> Journal:
        """See `journal.Journals`."""
        release = checked_id(plan.id)
        if release.endswith("-"):
            raise ConfigError(f"{release!r} is no id of a release in a cluster.", cure="End it with a letter.")
        first = await self._begin(release, first_line(plan, by, now, reason))
        with contextlib.suppress(KubeError):  # the next release will make room
            await self._make_room()
        return self._journal(release, [first])

    async def open(self, release: str) -> Journal:
        """See `journal.Journals`."""
        return self._journal(release, await self._parts(release))

    def _journal(self, release: str, parts: list[_Map]) -> Journal:
        last = parts[-1]
        used = sum(len(line.encode()) for line in (last.data or {}).values())
        place = _Place(
            api=self._api, namespace=self._namespace, release=release, labels=self._labels(release), clock=self._clock
        )
        at = _At(part=len(parts), version=last.metadata.resource_version, used=used)
        return ClusterJournal(place, at, _chain(release, parts))

    async def events(self, release: str) -> list[Event]:
        """See `journal.Journals`."""
        return _chain(release, await self._parts(release)).events

    async def _parts(self, release: str) -> list[_Map]:
        """The ConfigMaps of a journal, in order, as they were at one moment."""
        checked_id(release)
        selector = ",".join(f"{key}={value}" for key, value in self._labels(release).items())
        found = await self._list(selector)
        if not found:
            raise no_release(release)
        by_name = {part.metadata.name: part for part in map(_read, found)}
        names = [journal_name(release, number) for number in range(1, len(by_name) + 1)]
        if set(names) != by_name.keys():
            raise IntegrityError(
                f"The journal of release {release} is damaged: its parts are {', '.join(sorted(by_name))}.",
                cure="Restore those that are missing, or delete them all.",
            )
        return [by_name[name] for name in names]

    async def _heads(self) -> list[tuple[str, _Meta]]:
        metas = [_read(one).metadata for one in await self._list(f"{MODEL}={self._label},{PART}=1")]
        return sorted(((meta.labels or {}).get(RELEASE, ""), meta) for meta in metas)

    async def _list(self, selector: str) -> list[KubeObject]:
        """ConfigMaps; an API that fails now and then is asked again."""
        end = self._clock.monotonic() + READ_S
        while True:
            try:
                found, _ = await self._api.list(CONFIG_MAPS, self._namespace, selector=selector)
                return found
            except KubeError as exc:
                if not passes(exc) or self._clock.monotonic() >= end:
                    raise
            await self._clock.sleep(RETRY_S)

    async def _begin(self, release: str, line: bytes) -> _Map:
        end = self._clock.monotonic() + PATIENCE_S
        tried = False
        while True:
            try:
                body = _part(release, 1, self._labels(release), {_key(1): line.decode()})
                return _read(await self._api.create(CONFIG_MAPS, self._namespace, body, manager=MANAGER))
            except ApiConflict as exc:
                if tried and (ours := await self._ours(release, line)) is not None:
                    return ours
                raise ConflictError(f"There is a release {release} already.", cure="Choose another id.") from exc
            except KubeError as exc:
                if not passes(exc) or self._clock.monotonic() >= end:
                    raise
            tried = True
            await self._clock.sleep(RETRY_S)

    async def _ours(self, release: str, line: bytes) -> _Map | None:
        """What is there, if it is what we wrote and the answer was lost."""
        found = [_read(one) for one in await self._list(f"{RELEASE}={release}")]
        return next((one for one in found if one.data == {_key(1): line.decode()}), None)

    async def _make_room(self) -> None:
        """Let the oldest releases go; what cannot be read, or is not over, stays."""
        for release, _ in (await self._heads())[:-KEPT]:
            try:
                over = (await self.progress(release)).over
            except IntegrityError:
                continue
            if over:
                await self._forget(release)

    async def _forget(self, release: str) -> None:
        for label in (BESIDE, RELEASE):
            for meta in [_read(one).metadata for one in await self._list(f"{label}={release}")]:
                await self._api.delete(CONFIG_MAPS, self._namespace, meta.name, uid=meta.uid)

    def _labels(self, release: str) -> dict[str, str]:
        return {MODEL: self._label, RELEASE: release}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a journal is."""

    api: KubeObjects
    namespace: str
    release: str
    labels: dict[str, str]
    clock: Clock


@dataclass(slots=True, kw_only=True)
class _At:
    """The part that is written to: its number, its resource version, bytes in it."""

    part: int
    version: str
    used: int


class _Found(Enum):
    """What is there in place of a line."""

    OURS = "ours"
    NOTHING = "nothing"


class ClusterJournal(Journal):
    """One release's ConfigMaps."""

    def __init__(self, place: _Place, at: _At, chain: Chain) -> None:
        super().__init__(chain)
        self._place = place
        self._at = at

    async def _keep(self, seq: int, line: bytes) -> None:
        clock = self._place.clock
        end = clock.monotonic() + PATIENCE_S
        if self._at.used + len(line) > PART_BYTES:
            self._at = _At(part=self._at.part + 1, version="", used=0)
        unsure = False
        while True:
            try:
                if not (unsure and await self._look(seq, line) is _Found.OURS):
                    await self._write(seq, line)
                self._at.used += len(line)
                return
            except ApiConflict:
                pass  # somebody was faster, or it was ourselves and the answer was lost
            except KubeError as exc:
                if not passes(exc) or clock.monotonic() >= end:
                    raise UnreachableError(
                        f"The journal of release {self._place.release} could not be written: {exc.message}",
                        cure=exc.cure or "Resume the release when the cluster answers.",
                    ) from exc
            unsure = True
            await clock.sleep(RETRY_S)

    async def _write(self, seq: int, line: bytes) -> None:
        api, at, name = self._place.api, self._at, journal_name(self._place.release, self._at.part)
        data = {_key(seq): line.decode()}
        if not at.version:
            body = _part(self._place.release, at.part, self._place.labels, data)
            made = await api.create(CONFIG_MAPS, self._place.namespace, body, manager=MANAGER)
        else:
            change: dict[str, object] = {"metadata": {"resourceVersion": at.version}, "data": data}
            made = await api.patch(CONFIG_MAPS, self._place.namespace, name, change, manager=MANAGER)
        at.version = _read(made).metadata.resource_version

    async def _look(self, seq: int, line: bytes) -> _Found:
        """What is there; the resource version to go on from is known afterwards.

        Raises:
            ConflictError: somebody else wrote a line.
            ResourceError: the journal is gone.
        """
        name = journal_name(self._place.release, self._at.part)
        there = await self._place.api.get(CONFIG_MAPS, self._place.namespace, name)
        if there is None:
            if self._at.version:
                raise ResourceError(f"The journal {name} was deleted.", cure="Restore it, or begin another release.")
            return _Found.NOTHING
        part = _read(there)
        self._at.version = part.metadata.resource_version
        written = (part.data or {}).get(_key(seq))
        if written is None and _key(seq - 1) in ((part.data or {}) if self._at.used else {_key(seq - 1): ""}):
            return _Found.NOTHING
        if written == line.decode():
            return _Found.OURS
        raise ConflictError(
            f"Somebody else wrote to the journal of release {self._place.release}.", cure="Look at its status."
        )

    async def close(self) -> None:
        """Nothing is held."""


def passes(exc: KubeError) -> bool:
    """Whether it may be otherwise in a moment."""
    return not isinstance(exc, ApiRefused) or exc.status in _LATER


def _chain(release: str, parts: list[_Map]) -> Chain:
    chain = Chain(f"of release {release}")
    for part in parts:
        for key, line in sorted((part.data or {}).items()):
            if not _KEY.fullmatch(key) or key != _key(len(chain.events) + 1):
                raise chain.damaged(f"{part.metadata.name} has a key {key[:80]!r} there")
            chain.take(line.encode())
    return chain


def _key(seq: int) -> str:
    return f"{seq:05d}.json"


def _part(release: str, number: int, labels: dict[str, str], data: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": journal_name(release, number), "labels": {**labels, PART: str(number)}},
        "data": data,
    }


def _read(body: KubeObject) -> _Map:
    try:
        return msgspec.convert(body, _Map)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise UnreachableError(f"The Kubernetes API sent a strange ConfigMap: {exc}.") from exc
