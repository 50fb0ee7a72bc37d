"""Puts releases together: the place where a model serves, the registry, gates, journals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from inferdock.app.models import served
from inferdock.app.registry import open_registry
from inferdock.app.release_gates import DigestGate, HealthGate, QualityGate, SmokeGate, shadow_gate
from inferdock.app.release_places import Place
from inferdock.config.settings import Settings
from inferdock.domain.errors import ConfigError, RegistryError
from inferdock.domain.moment import spell
from inferdock.evaluation.html import page
from inferdock.evaluation.limits import Rules as QualityRules
from inferdock.evaluation.report import Report
from inferdock.evaluation.tasks import TaskSet
from inferdock.registry.ledger import UNSET
from inferdock.registry.names import CHAMPION, PREVIOUS, Reference
from inferdock.registry.registry import Registry
from inferdock.release.catalog import NO_CHAMPION
from inferdock.release.clock import SystemClock
from inferdock.release.desk import Desk
from inferdock.release.driver import Driver, Observed
from inferdock.release.judging.gate import DIGESTS, Gate
from inferdock.release.records.journal import By, Journal
from inferdock.release.records.mailbox import Mailbox, Request, Wish
from inferdock.release.runner import Listener, Runner
from inferdock.release.steps import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How the quality gate judges; without tasks there is none."""

    tasks: TaskSet
    rules: QualityRules


class RegistryCatalog:
    """The champion of one model in the registry.

    Args:
        registry: it.
        name: of the model, as the registry calls it.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name

    async def champion(self) -> str:
        """See `release.catalog.Catalog`."""
        return await asyncio.to_thread(self._champion)

    def _champion(self) -> str:
        version = self._registry.state(self._name).aliases.get(CHAMPION)
        return f"{self._name}@{version}" if version else NO_CHAMPION

    async def move(self, reference: str, *, expect: str, reason: str) -> None:
        """See `release.catalog.Catalog`; `previous` follows by itself."""
        to, before = (text.partition("@")[2] or None for text in (reference, expect))
        await asyncio.to_thread(
            lambda: self._registry.move_alias(self._name, CHAMPION, to, expect=before or UNSET, reason=reason)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Works:
    """What a command about releases works with; made by :func:`working`.

    Attributes:
        place: the platform.
        registry: where versions come from.
        desk: takes commands.
        by: who gives them.
    """

    place: Place
    registry: Registry
    desk: Desk
    by: By

    @property
    def driver(self) -> Driver:
        """The platform, as releases see it."""
        return self.place.driver

    def target(self, reference: Reference, replicas: int) -> Target:
        """A version in the registry as something to release.

        Raises:
            RegistryError: there is none.
            IntegrityError: its manifest or signature is not right.
        """
        version = self.registry.version(reference)
        revision = served(version, None, self.place.model).revision
        return Target(reference=str(version), revision=revision, replicas=replicas)

    def previous(self, name: str) -> str:
        """The version that was champion before.

        Raises:
            RegistryError: there is none.
        """
        version = self.registry.state(name).aliases.get(PREVIOUS)
        if version is None:
            raise RegistryError(f"{name} has no previous champion.", cure="Name a version: rollback NAME@VERSION")
        return version

    def request(self, wish: Wish, reason: str) -> Request:
        """A command of this person, now."""
        return Request(
            id=uuid.uuid4().hex,
            wish=wish,
            actor=self.by.actor,
            origin=self.by.origin,
            reason=reason,
            time=spell(datetime.now(UTC)),
        )


def serving(observed: Observed) -> Target | None:
    """What most requests go to now; None when nothing serves."""
    running = [one for one in observed.revisions if one.wanted or one.ready or observed.weights.get(one.revision)]
    if not running:
        return None
    most = max(running, key=lambda one: (observed.share(one.revision), one.ready))
    return Target(reference=most.reference, revision=most.revision, replicas=max(1, most.wanted))


async def working(
    settings: Settings,
    environment: Mapping[str, str],
    place: Place,
    *,
    name: str | None,
    quality: Quality | None,
    listener: Listener,
) -> Works:
    """Everything that a command about releases needs.

    Args:
        settings: the configuration.
        environment: of the process.
        place: where the model serves.
        name: of the model in the registry; None takes it from what serves.
        quality: for the quality gate; None: it is not there.
        listener: told how a release goes.

    Raises:
        UnreachableError: the platform does not answer.
    """
    registry = open_registry(settings.registry, environment)
    by = By(actor=registry.by().actor, origin=f"{socket.gethostname()} pid {os.getpid()}")
    model = name or _name_of(serving(await place.driver.observe()))

    def make_runner(journal: Journal, mailbox: Mailbox) -> Runner:
        return Runner(
            journal=journal,
            driver=place.driver,
            catalog=RegistryCatalog(registry, model),
            gates={
                **_gates(registry, quality, place.reports),
                **shadow_gate(journal.progress.plan, place.meter, listener.waiting),
            },
            meter=place.meter,
            lease=place.lease,
            mailbox=mailbox,
            clock=SystemClock(),
            by=by,
            listener=listener,
        )

    desk = Desk(
        journals=place.journals,
        lease=place.lease,
        mailbox=place.mailbox,
        clock=SystemClock(),
        make_runner=make_runner,
        holder=f"{by.actor} ({by.origin})",
    )
    return Works(place=place, registry=registry, desk=desk, by=by)


def _name_of(target: Target | None) -> str:
    name = target.reference.partition("@")[0] if target is not None and "@" in target.reference else ""
    if not name:
        raise ConfigError(
            "What serves here is not a version of the registry, so its champion cannot be moved.",
            cure="Start the platform with --model NAME@VERSION.",
        )
    return name


def _gates(registry: Registry, quality: Quality | None, folder: Path) -> dict[str, Gate]:
    gates: dict[str, Gate] = {
        DIGESTS: DigestGate(registry=registry),
        "health": HealthGate(),
        "smoke": SmokeGate(),
    }
    if quality is not None:
        gates["quality"] = QualityGate(
            tasks=quality.tasks, rules=quality.rules, keep=_Keeper(folder).keep, registry=registry
        )
    return gates


class _Keeper:
    """Keeps the reports of quality gates beside the journal of their release."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, release: str, report: Report) -> str:
        """Write a report as JSON and as a page; where the page is."""
        html = self._folder / f"{release}.quality.html"
        with contextlib.suppress(OSError):  # the verdict stands in the journal in any case
            self._folder.mkdir(parents=True, exist_ok=True)
            html.with_suffix(".json").write_text(json.dumps(report.document()), encoding="utf-8")
            html.write_text(page(report), encoding="utf-8", errors="replace")
        return str(html)
