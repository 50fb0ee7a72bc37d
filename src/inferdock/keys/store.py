"""The file of API keys: one JSON object per line, mode 0600, replaced as a whole under a lock.

``inferdock keys`` writes it; gateways read it, and again whenever :meth:`KeyFile.stamp` changes. It holds digests, so
who reads it cannot use a key; who can write it can make one.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from inferdock.domain.errors import ConfigError, ResourceError
from inferdock.keys.key import MAX_KEYS, Key, digest_of, new_id, new_text

if TYPE_CHECKING:  # a worker reads keys, and does without the settings' library
    from inferdock.config.settings import KeysSettings

FILE_NAME: Final = "keys.jsonl"
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_LIMIT: Final = 10**9
MAX_PRIORITY: Final = 1000
LOCK_WAIT_S: Final = 10.0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LAST_MOMENT = 253_402_300_799  # the end of the year 9999, the last that datetime can spell

Stamp = tuple[int, int, int]
"""Tells one version of the file from the next: inode, time of change in ns, size."""

_Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)] | None
_Moment = Annotated[datetime, Meta(tz=True)]
_Name = Annotated[str, Meta(min_length=1, max_length=100)]


class _Line(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One line of the file."""

    id: Annotated[str, Meta(pattern=r"\A[0-9a-z]{8}\Z")]
    name: _Name
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    created: _Moment
    slot: Annotated[int, Meta(ge=0, lt=MAX_KEYS)]
    expires: _Moment | None = None
    revoked: _Moment | None = None
    models: Annotated[list[Annotated[str, Meta(min_length=1, max_length=200)]], Meta(max_length=100)] = []
    requests_per_minute: _Limit = None
    tokens_per_minute: _Limit = None
    concurrent_streams: _Limit = None
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    admin: bool = False
    tenant: _Name | None = None


_DECODE = msgspec.json.Decoder(_Line).decode
_ENCODE = msgspec.json.Encoder().encode


def key_file(settings: KeysSettings, state_root: Path) -> KeyFile:
    """The file that the settings name; ``state_root`` is the folder of run state, its place by default."""
    return KeyFile(settings.file or state_root / FILE_NAME)


class KeyFile:
    """Reads and changes one file of keys. Nothing is held open between calls."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Key, ...]:
        """All keys, revoked and expired ones too; none where there is no file.

        Raises:
            ConfigError: the file cannot be read, or a line is not a key (says which line, never what is in it).
        """
        return _parse(self._read_bytes(), self.path)

    def stamp(self) -> Stamp | None:
        """What changes whenever the file does; None where there is none that can be looked at."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def warning(self) -> str | None:
        """A sentence for the operator if others than the owner may read or write the file."""
        try:
            mode = self.path.stat().st_mode
        except OSError:
            return None
        if not mode & _OTHERS:
            return None
        return f"{self.path} is open to other users (mode {stat.S_IMODE(mode):04o}); run `chmod 600` on it."

    def create(
        self,
        *,
        name: str,
        now: float,
        expires_at: float = math.inf,
        models: Iterable[str] = (),
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrent_streams: int | None = None,
        priority: int = 0,
        admin: bool = False,
        tenant: str | None = None,
    ) -> tuple[Key, str]:
        """Add a key; return it with its text, which is not kept anywhere.

        Args:
            now, expires_at: seconds since 1970.
            tenant: None takes the key's own id.

        Raises:
            ConfigError: a value is out of range, or the file is damaged or full.
            ResourceError: the file cannot be written.
        """
        with self._changing() as keys:
            taken = {key.id for key in keys}
            key_id = next(candidate for candidate in iter(new_id, "") if candidate not in taken)
            text = new_text(key_id)
            line = {
                "id": key_id,
                "name": name,
                "sha256": digest_of(text.encode()).hex(),
                "created": _moment(now),
                "slot": _free_slot(keys, self.path),
                "expires": None if expires_at == math.inf else _moment(expires_at),
                "models": sorted(set(models)),
                "requests_per_minute": requests_per_minute,
                "tokens_per_minute": tokens_per_minute,
                "concurrent_streams": concurrent_streams,
                "priority": priority,
                "admin": admin,
                "tenant": tenant,
            }
            key = _checked(line)
            keys.append(key)
        return key, text

    def revoke(self, key_id: str, *, now: float) -> Key:
        """End a key at ``now`` (seconds since 1970); one that was revoked before keeps its time.

        Raises:
            ConfigError: there is no such key, or the file is damaged.
            ResourceError: the file cannot be written.
        """
        with self._changing() as keys:
            for place, key in enumerate(keys):
                if key.id == key_id:
                    if key.revoked_at is None:
                        keys[place] = replace(key, revoked_at=float(int(now)))
                    return keys[place]
            raise ConfigError(f"There is no key {key_id[:40]}.", cure="`inferdock keys list` shows the ids.")

    def _read_bytes(self) -> bytes:
        try:
            # Non-blocking, so that a named pipe in the file's place cannot hold us up.
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise ConfigError(f"{self.path} is not a file.", cure="Name another in `keys.file`.")
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return b""
        except OSError as exc:
            raise ConfigError(
                f"Cannot read the key file {self.path}: {exc.strerror}.",
                cure="Let this user read it, or name another in `keys.file`.",
            ) from exc
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{self.path} is larger than 16 MiB.", cure="A key is a line of about 400 bytes.")
        return data

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, for editing under the lock; what differs at the end is written."""
        try:
            # Where the file is a link, what it points to is replaced, not the link.
            target = Path(os.path.realpath(self.path))
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(target.with_name(f".{target.name}.lock")):
                keys = list(self.read())
                before = tuple(keys)
                yield keys
                if tuple(keys) != before:
                    _write(target, keys)
        except OSError as exc:
            raise ResourceError(
                f"Cannot write the key file {self.path}: {exc.strerror or exc}.",
                cure="Name a file in a folder that this user may write to, with --file or `keys.file`.",
            ) from exc


def _parse(data: bytes, path: Path) -> tuple[Key, ...]:
    keys: list[Key] = []
    ids: set[str] = set()
    slots: set[int] = set()
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            key = _key(_DECODE(line))
            if key.id in ids or key.slot in slots:
                raise ValueError("its id or slot is that of a line above")
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as exc:
            raise ConfigError(
                f"{path}, line {number} is not a key: {_reason(exc)}.",
                cure="Mend or delete that line; `inferdock keys create` makes a new key.",
            ) from exc
        ids.add(key.id)
        slots.add(key.slot)
        keys.append(key)
    return tuple(keys)


def _checked(line: dict[str, object]) -> Key:
    """A key that can be read again from the file."""
    try:
        return _key(msgspec.convert(line, _Line))
    except (msgspec.MsgspecError, ValueError) as exc:
        raise ConfigError(f"The key cannot be made: {_reason(exc)}.") from exc


def _reason(exc: Exception) -> str:
    text = str(exc)[:200]
    return text[:1].lower() + text[1:]


def _key(line: _Line) -> Key:
    return Key(
        id=line.id,
        name=line.name,
        digest=bytes.fromhex(line.sha256),
        created_at=_seconds(line.created),
        slot=line.slot,
        expires_at=math.inf if line.expires is None else _seconds(line.expires),
        revoked_at=None if line.revoked is None else _seconds(line.revoked),
        models=frozenset(line.models),
        requests_per_minute=line.requests_per_minute,
        tokens_per_minute=line.tokens_per_minute,
        concurrent_streams=line.concurrent_streams,
        priority=line.priority,
        admin=line.admin,
        tenant=line.tenant or line.id,
    )


def _line(key: Key) -> _Line:
    return _Line(
        id=key.id,
        name=key.name,
        sha256=key.digest.hex(),
        created=_moment(key.created_at),
        slot=key.slot,
        expires=None if key.expires_at == math.inf else _moment(key.expires_at),
        revoked=None if key.revoked_at is None else _moment(key.revoked_at),
        models=sorted(key.models),
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        concurrent_streams=key.concurrent_streams,
        priority=key.priority,
        admin=key.admin,
        tenant=key.tenant,
    )


def _seconds(moment: datetime) -> float:
    seconds = moment.timestamp()
    if not 0 <= seconds <= _LAST_MOMENT:
        raise ValueError("a time is outside of the years 1970 to 9999")
    return seconds


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(int(seconds), _LAST_MOMENT), UTC)


def _free_slot(keys: list[Key], path: Path) -> int:
    slot = max((key.slot for key in keys), default=-1) + 1
    if slot >= MAX_KEYS:
        raise ConfigError(f"{path} is full ({MAX_KEYS} keys).", cure="Begin a new file with --file or `keys.file`.")
    return slot


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Hold the lock that all writers take, which the kernel lets go however they end."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "r+b") as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ResourceError(
                        f"Another process has held {path} for {LOCK_WAIT_S:.0f} s.", cure="End it, then try again."
                    ) from None
                time.sleep(0.02)
        yield file


def _write(target: Path, keys: Iterable[Key]) -> None:
    """Replace the file: readers see the old or the new one, never half of it, also after a loss of power."""
    data = b"".join(_ENCODE(_line(key)) + b"\n" for key in keys)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{target} would be larger than 16 MiB.", cure="Begin a new file, or name fewer models.")
    draft = target.with_name(f".{target.name}.draft")  # one name will do: we hold the lock
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    draft.replace(target)
