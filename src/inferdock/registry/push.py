"""Pushes a folder as a version: inspected, hashed, sent, and recorded last.

Nothing is visible before the event is in the history. A push that is cut leaves what it sent for the next try; a push
of what is there already sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec

from inferdock.domain.errors import ConflictError, IntegrityError, ModelError
from inferdock.domain.moment import spell
from inferdock.registry import ledger
from inferdock.registry.event import Event, Push
from inferdock.registry.hashing import file_sha256
from inferdock.registry.inspect.folder import Inspection, LocalFile, Permissions, inspect_folder
from inferdock.registry.ledger import Released, State
from inferdock.registry.manifest import (
    Content,
    Engine,
    FileEntry,
    MadeFrom,
    Manifest,
    Provenance,
    encode,
    make,
    sha256_of,
)
from inferdock.registry.parallel import Crew
from inferdock.registry.progress import Progress
from inferdock.registry.registry import ATTEMPTS, Registry
from inferdock.registry.store import Moved, Place, Upload

MAX_MANIFESTS_READ: Final = 256
"""Manifests of other versions in which equal files are looked for; the same model's newest come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be pushed.

    Attributes:
        folder: the model's files.
        name, version: what to call it; the version is written with three numbers.
        allowed: what the person allows the folder to hold.
        exclude: patterns of files to leave out.
        engine: arguments and image it is served with.
        source: where it came from, in the person's words; "" takes the folder's name.
        labels: whatever the person notes with it.
        made_from: the model that it was quantised from, None where it was not.
        reason: why, for the history.
    """

    folder: Path
    name: str
    version: str
    allowed: Permissions = field(default_factory=Permissions)
    exclude: Sequence[str] = ()
    engine: Engine = field(default_factory=Engine)
    source: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    made_from: MadeFrom | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did.

    Attributes:
        manifest: of the version.
        event: what was written, None when the version was there already.
        sent, copied, kept: files (and bytes) that were sent, copied inside of the store, left by an earlier try.
    """

    manifest: Manifest
    event: Event | None
    sent: tuple[int, int] = (0, 0)
    copied: tuple[int, int] = (0, 0)
    kept: tuple[int, int] = (0, 0)


def push(registry: Registry, request: Request, progress: Progress) -> Pushed:
    """Make a version of a folder.

    Raises:
        ModelError: the folder is not what may be pushed, or changes under us.
        ConflictError: the version is taken by other content, or somebody pushes it now.
        ConfigError: image, arguments or labels are malformed.
    """
    by = registry.by(request.reason)
    inspection = inspect_folder(request.folder, allowed=request.allowed, exclude=request.exclude)
    manifest = _manifest(registry, request, inspection, progress)
    data = encode(manifest)
    signatures = registry.signer.sign(data) if registry.signer else None
    wanted = Push(
        version=manifest.version,
        revision=manifest.revision,
        manifest_sha256=sha256_of(data),
        size_bytes=manifest.size_bytes,
        files=len(manifest.content.files),
        signed_by=(registry.signer.fingerprint,) if registry.signer else (),
    )
    if ledger.push(_state(registry, manifest.name), wanted, by) is None:
        return Pushed(manifest=manifest, event=None)
    with registry.store.begin(manifest.name, manifest.version, revision=manifest.revision, actor=by.actor) as upload:
        tally = _Sending(registry, upload, manifest, inspection.files, progress).run()
        for _ in range(ATTEMPTS):
            event = ledger.push(_state(registry, manifest.name), wanted, registry.by(request.reason))
            if event is None or upload.commit(event, data, signatures):
                return Pushed(manifest=manifest, event=event, **tally)
    raise ConflictError(f"The history of {manifest.name} changes too quickly.", cure="Try again.")


def _state(registry: Registry, name: str) -> State:
    """What the history amounts to; that of a new model is empty."""
    return ledger.fold(name, registry.store.events(name))


def _manifest(registry: Registry, request: Request, inspection: Inspection, progress: Progress) -> Manifest:
    by = registry.by()
    return make(
        name=request.name,
        version=request.version,
        content=Content(
            files=_entries(inspection.files, registry.threads, progress),
            facts=inspection.facts,
            engine=request.engine,
            permissions=inspection.needed,
        ),
        provenance=Provenance(
            pushed_at=spell(by.now),
            pushed_by=by.actor,
            source=request.source or request.folder.resolve().name,
            labels=dict(request.labels),
            made_from=msgspec.UNSET if request.made_from is None else request.made_from,
        ),
    )


def _entries(files: Sequence[LocalFile], threads: int, progress: Progress) -> tuple[FileEntry, ...]:
    """Size and digest of every file."""
    progress.begin("Hashing", sum(file.size for file in files), len(files))
    crew = Crew(threads)

    def entry(file: LocalFile) -> FileEntry:
        try:
            digest = file_sha256(file.source, crew.telling(progress, file.path))
        except OSError as exc:
            raise ModelError(f"{file.source} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc
        progress.done(file.path)
        return FileEntry(path=file.path, size=file.size, sha256=digest)

    return tuple(crew.map(entry, files))


class _Sending:
    """Brings every file of a version into the store, by the cheapest way there is."""

    def __init__(
        self,
        registry: Registry,
        upload: Upload,
        manifest: Manifest,
        files: Sequence[LocalFile],
        progress: Progress,
    ) -> None:
        self._registry = registry
        self._upload = upload
        self._manifest = manifest
        self._sources = {file.path: file.source for file in files}
        self._progress = progress
        self._crew = Crew(registry.threads)
        self._known: dict[str, Place] = {}
        self._tally: dict[str, tuple[int, int]] = {"sent": (0, 0), "copied": (0, 0), "kept": (0, 0)}
        self._lock = Lock()

    def run(self) -> dict[str, tuple[int, int]]:
        """Do it; files and bytes by way."""
        entries = self._manifest.content.files
        self._known = _equal_files(self._registry, self._manifest)
        self._progress.begin("Sending", self._manifest.size_bytes, len(entries))
        self._crew.map(self._bring, sorted(entries, key=lambda entry: -entry.size))
        return self._tally

    def _bring(self, entry: FileEntry) -> None:
        moved = self._crew.telling(self._progress, entry.path)
        self._crew.check()
        way = self._way(entry, moved)
        with self._lock:
            files, size = self._tally[way]
            self._tally[way] = (files + 1, size + entry.size)
        if way == "kept":
            moved(entry.size)
        self._progress.done(entry.path)

    def _way(self, entry: FileEntry, moved: Moved) -> str:
        if self._upload.has(entry):
            return "kept"
        source = self._known.get(entry.sha256)
        if source is not None and self._upload.copy(entry, source, moved):
            return "copied"
        self._upload.send(entry, self._sources[entry.path], moved)
        return "sent"


def _equal_files(registry: Registry, manifest: Manifest) -> dict[str, Place]:
    """Where in the store a file with the same bytes is, by digest."""
    wanted = {entry.sha256 for entry in manifest.content.files}
    found: dict[str, Place] = {}
    for count, (state, released) in enumerate(_other_versions(registry, manifest.name)):
        if count >= MAX_MANIFESTS_READ or wanted <= found.keys():
            break
        for entry in _files_of(registry, state, released):
            if entry.sha256 in wanted:
                found.setdefault(entry.sha256, Place(state.name, released.push.version, entry.path))
    return found


def _other_versions(registry: Registry, name: str) -> Iterator[tuple[State, Released]]:
    """Every version in the store: the newest of the same model first, then those of other models."""
    for model in [name, *(other for other in registry.names() if other != name)]:
        try:
            state = _state(registry, model)
        except IntegrityError:  # a broken history is no reason not to push another model
            continue
        yield from ((state, released) for released in reversed(list(state.versions.values())))


def _files_of(registry: Registry, state: State, released: Released) -> tuple[FileEntry, ...]:
    try:
        return registry.read(state, released).manifest.content.files
    except IntegrityError:  # it cannot be trusted to say where bytes are: they are sent
        return ()
