"""Histories in a directory: one file per event, ``history/NAME/0000000001.json``, made whole and never changed.

What nobody can see from the files alone is a history whose newest events were taken away; a gap is seen, and every
other change breaks the chain (`ledger`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Final

from inferdock.domain.errors import ConfigError, IntegrityError, RegistryError
from inferdock.registry.event import MAX_EVENT_BYTES, Delete, Event, Push, decode, encode
from inferdock.registry.filesystem_disk import NO_LINKS, Disk, read_file, told, write_all
from inferdock.registry.filesystem_lock import waited_for
from inferdock.registry.names import check_name

HISTORY: Final = "history"
DRAFTS: Final = "staging/.drafts"
"""Events before they get their name; no model's name begins with a dot."""
DRAFT_LIFE_S: Final = 3600.0
"""A draft that is older was left by a writer that died: writing one takes milliseconds."""


class History:
    """The histories of one store.

    Args:
        disk: the store's folder.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def names(self) -> list[str]:
        """Models that have an event, in order."""
        with told(self._disk.root, HISTORY):
            return [name for name in self._disk.listing(HISTORY) if _is_name(name) and self.taken(name, 1)]

    def events(self, name: str) -> list[Event]:
        """All events from the first on.

        Raises:
            IntegrityError: one is missing, or is none.
        """
        path = f"{HISTORY}/{check_name(name)}"
        with told(self._disk.root, path), contextlib.suppress(FileNotFoundError), self._disk.folder(path) as folder:
            return list(self._read(name, folder))
        return []

    def _read(self, name: str, folder: int) -> Iterator[Event]:
        """One after the other: a list of the folder may show the later of two only, when they come in meanwhile."""
        seq, looked_again = 1, False
        while True:
            what = f"{self._disk.root / HISTORY / name / _file(seq)}"
            try:
                data = read_file(folder, _file(seq), MAX_EVENT_BYTES, what=what)
            except FileNotFoundError:
                if not any(later > _file(seq) for later in os.listdir(folder)):
                    return
                if looked_again:
                    raise IntegrityError(f"{what} is missing.", cure="Restore it from a backup of the store.") from None
                looked_again = True
                continue
            yield decode(data, what=what)
            seq, looked_again = seq + 1, False

    def taken(self, name: str, seq: int) -> bool:
        """Whether an event has this number."""
        return self._disk.exists(f"{HISTORY}/{name}/{_file(seq)}")

    def lives(self, name: str, version: str) -> bool:
        """Whether a version was pushed, and not deleted since."""
        for event in reversed(self.events(name)):
            if isinstance(event.change, Push | Delete) and event.change.version == version:
                return isinstance(event.change, Push)
        return False

    def append(self, event: Event) -> bool:
        """Add an event if its number is free; False when it is taken.

        It is written under another name and then linked: a link never overwrites, so one of many writers wins, on one
        machine or on several, and a reader never sees half an event.
        """
        path = f"{HISTORY}/{check_name(event.name)}/{_file(event.seq)}"
        data = _readable(event)
        with told(self._disk.root, path):
            while not self.taken(event.name, event.seq):
                with contextlib.suppress(_DraftLost):
                    return self._publish(data, path)
            return False

    def _publish(self, data: bytes, path: str) -> bool:
        draft = f"{DRAFTS}/{secrets.token_hex(16)}"
        try:
            with self._disk.draft(draft) as fd:
                write_all(fd, data)
            self._clean_drafts(draft)
            won = self._name(draft, path)
        finally:
            self._disk.unlink(draft)
        if won:
            self._disk.sync(path.rpartition("/")[0])
        return won

    def _name(self, draft: str, path: str) -> bool:
        """Give the draft its name if that is free."""
        try:
            self._disk.link(draft, path)
        except FileExistsError:
            # A network file system may have done it, lost its answer and asked again.
            return self._disk.same(draft, path)
        except FileNotFoundError as exc:
            raise _DraftLost from exc
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            return self._name_without_links(draft, path)
        return True

    def _name_without_links(self, draft: str, path: str) -> bool:
        """Rename under a lock, where no link can be made (exFAT, some network mounts): by nobody, so all come here."""
        with waited_for(self._disk, "history.lock"):
            if self._disk.exists(path):
                return False
            self._disk.move(draft, path)
            return True

    def _clean_drafts(self, ours: str) -> None:
        """Remove what dead writers left; ages by the clock of the file system, which dated them all."""
        with self._disk.folder(DRAFTS) as folder, contextlib.suppress(FileNotFoundError):
            now = os.stat(ours.rpartition("/")[2], dir_fd=folder).st_mtime
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if now - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > DRAFT_LIFE_S:
                        os.unlink(name, dir_fd=folder)


class _DraftLost(Exception):
    """We slept for so long that somebody took our draft for a dead writer's: write it again."""


def _readable(event: Event) -> bytes:
    """The bytes of an event, which :meth:`History.events` will accept: one that it does not would end the history."""
    data = encode(event)
    try:
        decode(data, what="It")
    except IntegrityError as exc:
        raise RegistryError(
            f"Event {event.seq} of {event.name} cannot be recorded: {exc.message}", cure="Give a shorter reason."
        ) from exc
    return data


def _file(seq: int) -> str:
    return f"{seq:010d}.json"


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ConfigError:
        return False
    return True
