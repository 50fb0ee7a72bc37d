"""The registry as its users see it: references resolved, manifests checked, aliases moved, versions deleted.

Built by `app.registry` on one `store.Store`. Pushing is in `push`, fetching in `pull`, reading every byte in `verify`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from inferdock.domain.errors import ConflictError, IntegrityError, RegistryError
from inferdock.registry import ledger
from inferdock.registry.event import Event, Push
from inferdock.registry.ledger import By, Released, State
from inferdock.registry.manifest import Manifest, decode, sha256_of
from inferdock.registry.names import Reference
from inferdock.registry.store import Store

ATTEMPTS: Final = 50
"""Times that a change is decided again because somebody else changed the same model meanwhile."""


class Signer(Protocol):
    """Signs manifests; see `signing`, which needs a package of its own."""

    @property
    def fingerprint(self) -> str:
        """Which key."""
        ...

    def sign(self, manifest: bytes) -> bytes:
        """The bytes of ``MANIFEST.sig``."""
        ...


class Trust(Protocol):
    """Knows whose signatures count."""

    def check(self, manifest: bytes, signatures: bytes | None, *, what: str) -> tuple[str, ...]:
        """Fingerprints of the trusted keys that signed; IntegrityError when none did."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version whose manifest is the one that was recorded, and signed if that is asked for.

    Attributes:
        released: the event that made it.
        manifest: its manifest.
        aliases: what means it now.
        signed_by: fingerprints of trusted keys that signed it; empty where none are asked for.
    """

    released: Released
    manifest: Manifest
    aliases: tuple[str, ...]
    signed_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.manifest.name}@{self.manifest.version}"


class Registry:
    """One registry.

    Args:
        store: where it is.
        actor: who acts, as histories name them.
        clock: tells the time.
        signer: signs what is pushed; None: nothing is signed.
        trusted: keys of which one must have signed; none: signatures are not asked for.
        threads: things done at once.
    """

    def __init__(
        self,
        *,
        store: Store,
        actor: str,
        clock: Callable[[], datetime],
        signer: Signer | None = None,
        trusted: Trust | None = None,
        threads: int = 8,
    ) -> None:
        self.store = store
        self.signer = signer
        self.threads = threads
        self._actor = actor
        self._clock = clock
        self._trusted = trusted

    def by(self, reason: str = "") -> By:
        """Who acts, now."""
        return By(actor=self._actor, now=self._clock(), reason=reason)

    def names(self) -> list[str]:
        """Models that have a history."""
        return self.store.names()

    def history(self, name: str) -> list[Event]:
        """Every event of a model, its chain checked.

        Raises:
            RegistryError: there is no such model.
            IntegrityError: the chain is broken.
        """
        events = self._events(name)
        ledger.fold(name, events)
        return events

    def state(self, name: str, *, at: str | None = None) -> State:
        """What a model's history amounts to, now or at a time as events spell it.

        Raises:
            RegistryError: there is no such model.
            IntegrityError: its history is broken.
        """
        return ledger.fold(name, self._events(name), until=at)

    def _events(self, name: str) -> list[Event]:
        events = self.store.events(name)
        if not events:
            raise self._no_model(name)
        return events

    def _no_model(self, name: str) -> RegistryError:
        there = self.store.names()
        what = f"It holds {', '.join(there[:20])}." if there else "It is empty: `inferdock model push` fills it."
        return RegistryError(f"The registry {self.store.location} has no model {name}.", cure=what)

    def resolve(self, reference: Reference) -> Released:
        """The version that a reference means now.

        Raises:
            RegistryError: no such model, version or alias.
        """
        return self._find(self.state(reference.name), reference)

    def _find(self, state: State, reference: Reference) -> Released:
        version = reference.version or state.aliases.get(reference.alias or "")
        if version is None:
            aliases = ", ".join(f"{alias} ({target})" for alias, target in sorted(state.aliases.items()))
            versions = ", ".join(list(state.versions)[-10:]) or "none"
            raise RegistryError(
                f"{state.name} has no alias {reference.alias}: aliases {aliases or 'none'}; versions {versions}.",
                cure=f"Name a version, or set it: inferdock model alias {state.name} {reference.alias} VERSION",
            )
        if version not in state.versions:
            gone = " It was deleted." if version in state.deleted else ""
            versions = ", ".join(list(state.versions)[-10:]) or "none"
            raise RegistryError(f"There is no {state.name}@{version}.{gone}", cure=f"Versions there: {versions}.")
        return state.versions[version]

    def version(self, reference: Reference) -> Version:
        """A version with its manifest, which is compared with the record, and its signature if that is asked for.

        Raises:
            RegistryError: there is none.
            IntegrityError: its manifest is not the one that was recorded, or not signed by a trusted key.
        """
        state = self.state(reference.name)
        return self.read(state, self._find(state, reference))

    def read(self, state: State, released: Released) -> Version:
        """The same for a version of a state that was read already.

        Raises:
            IntegrityError: its manifest is not the one that was recorded, or not signed by a trusted key.
        """
        what = f"{state.name}@{released.push.version}"
        data, signatures = self.store.manifest(state.name, released.push.version)
        manifest = self._checked(what, released.push, data)
        signed_by = self._trusted.check(data, signatures, what=what) if self._trusted else ()
        aliases = tuple(state.aliases_of(released.push.version))
        return Version(released=released, manifest=manifest, aliases=aliases, signed_by=signed_by)

    def _checked(self, what: str, push: Push, data: bytes) -> Manifest:
        if sha256_of(data) != push.manifest_sha256:
            raise IntegrityError(
                f"MANIFEST.json of {what} in {self.store.location} is not the one that was pushed.",
                cure="Restore it from a backup of the store, or push the model again under a new version.",
            )
        manifest = decode(data, what=f"MANIFEST.json of {what} in {self.store.location}")
        if f"{manifest.name}@{manifest.version}" != what or manifest.revision != push.revision:
            raise IntegrityError(f"MANIFEST.json of {what} is that of {manifest.name}@{manifest.version}.")
        return manifest

    def move_alias(
        self, name: str, alias: str, to: str | None, *, expect: str | None = None, reason: str = ""
    ) -> Event | None:
        """Let an alias mean another version; see :func:`ledger.move`.

        Returns:
            what was written, None when it meant that version already.

        Raises:
            ConflictError: it means another version than expected.
            RegistryError: no such model or version.
        """
        return self._change(name, lambda state: ledger.move(state, alias, to, self.by(reason), expect=expect))

    def delete(self, name: str, version: str, *, reason: str = "") -> Event | None:
        """Delete a version: first it is no longer there for anybody, then its files go.

        Returns:
            what was written, None when it was deleted before (files that were left then go now).

        Raises:
            RegistryError: there is none, or an alias means it.
        """
        event = self._change(name, lambda state: ledger.delete(state, version, self.by(reason)))
        self.store.remove(name, version)
        return event

    def _change(self, name: str, decide: Callable[[State], Event | None]) -> Event | None:
        for _ in range(ATTEMPTS):
            event = decide(self.state(name))
            if event is None or self.store.append(event):
                return event
        raise ConflictError(f"The history of {name} changes too quickly.", cure="Try again.")
