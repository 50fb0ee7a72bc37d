"""Decides what may happen to a model, from its history alone: pure, no store, the time passed in.

:func:`fold` turns events into a :class:`State`. ``push``, ``move`` and ``delete`` return the event that comes next,
None when there is nothing to do, or refuse. Whoever calls them appends the event if its number is still free, and
otherwise folds and decides again (`registry.Registry`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from inferdock.domain.errors import ConfigError, ConflictError, IntegrityError, RegistryError
from inferdock.domain.moment import spell
from inferdock.registry.event import NO_EVENT, Alias, Delete, Event, Move, Push, digest_of
from inferdock.registry.manifest import MAX_LINE, is_text
from inferdock.registry.names import CHAMPION, PREVIOUS, Version

UNSET: Final = ""
"""As ``expect``: the alias must mean no version."""
_BEGINNING: Final = "0001-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who does something, when and why."""

    actor: str
    now: datetime
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse what an event cannot hold; a history that held it could not be read again.

        Raises:
            ConfigError: actor or reason is too long, or not text.
        """
        for what, text in (("actor (registry.actor)", self.actor), ("reason", self.reason)):
            if len(text) > MAX_LINE or not is_text(text):
                raise ConfigError(f"The {what} is longer than {MAX_LINE} characters, or not UTF-8.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A version and the event that made it."""

    push: Push
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a history amounts to.

    Attributes:
        name: the model.
        seq: number of the last event, 0 before the first.
        head: its digest.
        time: its time.
        versions: those that are there, in semantic order.
        deleted: those that were deleted.
        aliases: alias to version.
    """

    name: str
    seq: int = 0
    head: str = NO_EVENT
    time: str = _BEGINNING
    versions: Mapping[str, Released] = field(default_factory=dict)
    deleted: Mapping[str, Released] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def aliases_of(self, version: str) -> list[str]:
        """Aliases that mean a version, in order of the alphabet."""
        return sorted(alias for alias, target in self.aliases.items() if target == version)


def fold(name: str, events: Iterable[Event], *, until: str | None = None) -> State:
    """What the events amount to.

    Args:
        name: the model they must be of.
        events: in order, from the first.
        until: a time as events spell it; later events do not count. All are checked.

    Raises:
        IntegrityError: the chain of events is broken: one was changed, lost or put in.
    """
    past = _Past(name)
    counted: State | None = None
    for event in events:
        if until is not None and counted is None and event.time > until:
            counted = past.state()
        past.follow(event)
    return counted or past.state()


class _Past:
    """A state that grows with each event."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seq, self._head, self._time = 0, NO_EVENT, _BEGINNING
        self._versions: dict[str, Released] = {}
        self._deleted: dict[str, Released] = {}
        self._aliases: dict[str, str] = {}

    def follow(self, event: Event) -> None:
        """Take in the next event."""
        if event.name != self._name or event.seq != self._seq + 1 or event.previous != self._head:
            raise IntegrityError(
                f"The history of {self._name} is broken at event {self._seq + 1}: one was changed, lost or put in.",
                cure="Restore the history from a backup of the store.",
            )
        match event.change:
            case Push() as push:
                self._versions[push.version] = Released(push=push, event=event)
                self._deleted.pop(push.version, None)
            case Delete(version=version):
                if version in self._versions:
                    self._deleted[version] = self._versions.pop(version)
            case Alias(moves=moves):
                for move in moves:
                    self._aliases.pop(move.alias, None)
                    if move.after is not None:
                        self._aliases[move.alias] = move.after
        self._seq, self._head, self._time = event.seq, digest_of(event), max(event.time, self._time)

    def state(self) -> State:
        """The state so far."""
        return State(
            name=self._name,
            seq=self._seq,
            head=self._head,
            time=self._time,
            versions=dict(sorted(self._versions.items(), key=lambda item: Version.parse(item[0]))),
            deleted=dict(self._deleted),
            aliases=dict(self._aliases),
        )


def push(state: State, wanted: Push, by: By) -> Event | None:
    """The event that makes a version; None when it is there with the same content.

    Raises:
        ConflictError: the number is taken, or was, by other content.
    """
    taken = state.versions.get(wanted.version) or state.deleted.get(wanted.version)
    if taken is not None and taken.push.revision != wanted.revision:
        gone = wanted.version not in state.versions
        raise ConflictError(
            f"{state.name}@{wanted.version} {'was' if gone else 'is'} another revision "
            f"({taken.push.revision[:12]}, pushed {taken.event.time[:16]} by {taken.event.actor}"
            f"{', deleted since' if gone else ''}), and a version never changes.",
            cure=f"Push under a new version; `inferdock model diff` compares two{'' if gone else ' of them'}.",
        )
    return None if wanted.version in state.versions else _next(state, wanted, by)


def move(state: State, alias: str, to: str | None, by: By, *, expect: str | None = None) -> Event | None:
    """The event that moves an alias; None when it is there already.

    When ``champion`` moves, ``previous`` takes the version that it leaves, in the same event.

    Args:
        alias: which.
        to: version; None takes the alias away.
        expect: version that it must mean now, :data:`UNSET` for none; None does not look.

    Raises:
        ConflictError: it means another version than expected.
        RegistryError: there is no such version.
    """
    present = state.aliases.get(alias)
    if expect is not None and expect != (present or UNSET):
        raise ConflictError(
            f"{state.name}@{alias} is {present or 'not set'}, not {expect or 'unset'}: somebody moved it.",
            cure="Look at `inferdock model history`, then decide again.",
        )
    if to is not None and to not in state.versions:
        raise _absent(state, to)
    if to == present:
        return None
    moves = [Move(alias, present, to)]
    if alias == CHAMPION and present is not None and state.aliases.get(PREVIOUS) != present:
        moves.append(Move(PREVIOUS, state.aliases.get(PREVIOUS), present))
    return _next(state, Alias(moves=tuple(moves)), by)


def delete(state: State, version: str, by: By) -> Event | None:
    """The event that deletes a version; None when that was done before.

    Raises:
        RegistryError: there never was one, or an alias means it.
    """
    if version in state.deleted:
        return None
    if version not in state.versions:
        raise _absent(state, version)
    if aliases := state.aliases_of(version):
        raise RegistryError(
            f"{state.name}@{version} is {' and '.join(aliases)}, and what an alias means is not deleted.",
            cure=f"Move it first: inferdock model alias {state.name} {aliases[0]} --remove",
        )
    return _next(state, Delete(version=version, revision=state.versions[version].push.revision), by)


def _absent(state: State, version: str) -> RegistryError:
    near = ", ".join(list(state.versions)[-5:])
    what = f"It has {near}." if near else "It has no versions."
    return RegistryError(f"There is no {state.name}@{version}.", cure=what)


def _next(state: State, change: Push | Alias | Delete, by: By) -> Event:
    return Event(
        name=state.name,
        seq=state.seq + 1,
        time=max(spell(by.now), state.time),
        actor=by.actor,
        reason=by.reason,
        previous=state.head,
        change=change,
    )
