"""Finds the model that is to be served: a folder, a name on the Hugging Face hub, or a version in the registry.

A version is pulled into this machine's cache if it is not there, and every byte of it is compared with its manifest
before an engine may be started on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from inferdock.app.registry import open_cache, open_registry
from inferdock.config.settings import Settings
from inferdock.domain.errors import ConfigError, ModelError, RegistryError
from inferdock.registry.manifest import Manifest
from inferdock.registry.names import Reference
from inferdock.registry.progress import Progress, Silent
from inferdock.registry.registry import Version
from inferdock.supervisor.model_folder import DEMO, Model, resolve, there_is

REVISION_DIGITS = 12
"""How much of a revision is shown to people; comparisons use all of it."""


def find_model(settings: Settings, environment: Mapping[str, str], progress: Progress) -> Model:
    """Find the model, pull it if need be, and check it.

    Raises:
        ModelError: it is not there, or cannot be served.
        RegistryError: the registry has no such version.
        IntegrityError: a byte is not what was pushed, or the signature is not trusted.
        UnreachableError: the registry cannot be reached.
    """
    reference = in_registry(settings.model.source)
    if reference is None:
        return resolve(settings.model.source, settings.model.name)
    registry = open_registry(settings.registry, environment)
    version = _version(settings, environment, reference)
    cache = open_cache(settings.registry, environment)
    folder = cache.verified(version.manifest, progress)
    if folder is None:
        folder = cache.pull(registry.store, version.manifest, progress).folder
    return served(version, folder, settings.model.name)


def look_at_model(settings: Settings, environment: Mapping[str, str]) -> Model:
    """The same without pulling or reading weights of the registry: what can be said of it quickly."""
    reference = in_registry(settings.model.source)
    if reference is None:
        return resolve(settings.model.source, settings.model.name)
    return served(_version(settings, environment, reference), None, settings.model.name)


class PullCancelledError(Exception):
    """Nobody wants the model any more that is being fetched."""


class _Cancellable(Silent):
    """Ends a pull from inside: it speaks of every piece that it has moved or read."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self._cancelled = cancelled

    def begin(self, title: str, total_bytes: int, total_files: int) -> None:
        """A piece of work begins."""
        self._look()

    def moved(self, path: str, count: int) -> None:
        """Some bytes are done."""
        self._look()

    def _look(self) -> None:
        if self._cancelled():
            raise PullCancelledError


class Finder:
    """Finds further models for a platform that runs, from the same registry and under the name of the first."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], name: str) -> None:
        self._settings = settings
        self._environment = environment
        self._name = name

    def look(self, reference: str) -> Model:
        """What can be said of it quickly: nothing is pulled.

        Raises:
            InferdockError: as :func:`find_model`.
        """
        return look_at_model(self._of(reference), self._environment)

    def find(self, reference: str, cancelled: Callable[[], bool]) -> Model:
        """Pull it if need be, and compare every byte with its manifest.

        Raises:
            PullCancelledError: it was ``cancelled``.
            InferdockError: as :func:`find_model`.
        """
        return find_model(self._of(reference), self._environment, _Cancellable(cancelled))

    def _of(self, reference: str) -> Settings:
        model = self._settings.model.model_copy(update={"source": reference, "name": self._name})
        return self._settings.model_copy(update={"model": model})


def in_registry(source: str) -> Reference | None:
    """What ``model.source`` means in the registry; None where it is a folder, the demo or a name on the hub."""
    if there_is(source) or source == DEMO:
        return None
    try:
        return Reference.parse(source)
    except ConfigError:
        if "@" in source:
            raise
        return None  # org/name, or a path that is not there


def _version(settings: Settings, environment: Mapping[str, str], reference: Reference) -> Version:
    try:
        return open_registry(settings.registry, environment).version(reference)
    except RegistryError as exc:
        if "@" in settings.model.source:
            raise
        raise ModelError(
            f"There is no model folder `{settings.model.source}`, and none in the registry: {exc.message}",
            cure="Give a folder, a Hugging Face name (org/model), a version (name@1.0.0), or `demo`.",
        ) from exc


def served(version: Version, folder: Path | None, name: str | None) -> Model:
    """A version as something that an engine may be started on."""
    return of_manifest(version.manifest, folder, name)


def of_manifest(manifest: Manifest, folder: Path | None, name: str | None) -> Model:
    """The same from a manifest alone, which somebody has checked."""
    content = manifest.content
    reference = f"{manifest.name}@{manifest.version}"
    remote_code = ("--trust-remote-code",) if content.permissions.remote_code else ()
    return Model(
        source=str(folder or reference),
        name=name or manifest.name,
        folder=folder,
        revision=f"{manifest.version}-{manifest.revision[:REVISION_DIGITS]}",
        max_model_len=content.facts.context_length,
        weight_bytes=content.facts.weight_bytes,
        digest=manifest.revision,
        arguments=(*remote_code, *content.engine.arguments),
        reference=reference,
    )
