"""The registry in S3 and DynamoDB; see `registry.store`. Loaded by name (`app.registry`) when its address is ``s3://``.

One table belongs to one bucket; registries under different prefixes of it share the table. A version's files are
written under a claim (`claim`), which is given for the version's record in the same transaction that adds the event: of
many pushes of a version one wins, and a push that slept cannot record anything. Files are written only where nothing
is, or over what the claim's holder saw there before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from inferdock.config.settings import RegistrySettings
from inferdock.domain.errors import IntegrityError, RegistryError
from inferdock.registry.aws.address import Address
from inferdock.registry.aws.claim import LEASE_S, Claim, awake_clock
from inferdock.registry.aws.claims import GRACE_S, Claims, Held
from inferdock.registry.aws.client import Clients, connect
from inferdock.registry.aws.errors import DeniedError
from inferdock.registry.aws.memory import Budget
from inferdock.registry.aws.objects import COPY_LIMIT, Objects
from inferdock.registry.aws.reader import ObjectReader
from inferdock.registry.aws.table import Item, Table
from inferdock.registry.aws.upload import AwsUpload, Settled
from inferdock.registry.event import Event
from inferdock.registry.manifest import MAX_MANIFEST_BYTES
from inferdock.registry.paths import MANIFEST, SIGNATURES
from inferdock.registry.store import BLOCK, Place, Upload

MAX_SIGNATURES_BYTES: Final = 1024 * 1024


class AwsStore:
    """One bucket (or a prefix in it) and one table.

    Args:
        settings: ``url`` is ``s3://bucket`` or ``s3://bucket/prefix``.
        clients: made before; default: made from the settings.
        lease_s, grace_s: of claims (`claim`).
        copy_limit: bytes above which a copy inside the bucket is made in parts.

    Raises:
        ConfigError: bucket, prefix, region, profile or an endpoint are wrong. Nothing is sent yet.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        clients: Clients | None = None,
        lease_s: float = LEASE_S,
        grace_s: float = GRACE_S,
        copy_limit: int = COPY_LIMIT,
    ) -> None:
        self._address = Address.parse(settings.url or "")
        self._threads = settings.threads
        self._clients = clients or connect(settings.s3, bucket=self._address.bucket, threads=settings.threads)
        self._objects = Objects(self._clients, self._address, settings.s3)
        self._table = Table(self._clients, settings.s3.table, scope=self._address.prefix)
        self._claims = Claims(self._table, lease_s=lease_s, grace_s=grace_s)
        self._copy_limit = copy_limit

    @property
    def location(self) -> str:
        return str(self._address)

    def names(self) -> list[str]:
        return self._table.names()

    def events(self, name: str) -> list[Event]:
        return self._table.events(name)

    def append(self, event: Event) -> bool:
        return self._table.append(event)

    def manifest(self, name: str, version: str) -> tuple[bytes, bytes | None]:
        manifest = self._small(name, version, MANIFEST, MAX_MANIFEST_BYTES)
        try:
            signatures = self._small(name, version, SIGNATURES, MAX_SIGNATURES_BYTES)
        except IntegrityError:
            return manifest, None
        return manifest, signatures or None

    def _small(self, name: str, version: str, path: str, limit: int) -> bytes:
        what = f"{path} of {name}@{version}"
        with self._objects.open(self._address.key(name, version, path), what=what) as reader:
            if reader.left > limit:
                raise IntegrityError(
                    f"{what} in {self._address} is larger than {limit >> 20} MiB.",
                    cure="Restore it from a backup of the store.",
                )
            return b"".join(iter(lambda: reader.read(BLOCK), b""))

    @contextlib.contextmanager
    def open(self, place: Place, *, offset: int = 0, length: int | None = None) -> Iterator[ObjectReader]:
        key = self._address.key(place.name, place.version, place.path)
        with self._objects.open(key, what=str(place), offset=offset, length=length) as reader:
            yield reader

    @contextlib.contextmanager
    def begin(self, name: str, version: str, *, revision: str, actor: str) -> Iterator[Upload]:
        folder = self._address.folder(name, version)
        with self._claimed(name, version, actor) as (held, claim):
            # From here on nobody else can make the version come to be: that takes the claim.
            record = self._table.record(name, version)
            if record is not None:
                self._check_record(f"{name}@{version}", record)
                self._claims.drop(held)
                claim.use_up()
                yield Settled()
                return
            uploads = self._left(folder, held, revision)
            with ThreadPoolExecutor(self._threads, thread_name_prefix="registry-part") as pool:
                yield AwsUpload(
                    objects=self._objects,
                    table=self._table,
                    held=held,
                    claim=claim,
                    uploads=uploads,
                    pool=pool,
                    budget=Budget(self._threads * self._objects.part_bytes),
                    copy_limit=self._copy_limit,
                )

    @contextlib.contextmanager
    def _claimed(self, name: str, version: str, actor: str) -> Iterator[tuple[Held, Claim]]:
        lease, asked = self._claims.lease_s, awake_clock()
        held = self._claims.take(name, version, actor=actor)
        claim = Claim(held, f"{name}@{version}", asked=asked, lease_s=lease, renew_s=lease / 3)
        with contextlib.closing(claim):
            yield held, claim

    def _check_record(self, what: str, record: Item) -> None:
        if "event" not in record:
            raise RegistryError(
                f"The record of {what} in table {self._table.name} was not made by a push.",
                cure="Push under a new version, or remove that item from the table.",
            )

    def _left(self, folder: str, held: Held, revision: str) -> dict[str, list[str]]:
        """Uploads of an earlier try of the same content. What other content left goes: it is of no use, and costs."""
        if held.left == revision:
            return self._objects.uploads(folder)
        self._objects.abort_all(folder)
        # Who may push need not be allowed to delete: then its files are written over, and others stay unseen.
        with contextlib.suppress(DeniedError):
            self._objects.remove(folder)
        self._claims.own(held, revision)
        return {}

    def remove(self, name: str, version: str) -> None:
        with self._claimed(name, version, "somebody who deletes its files") as (held, claim):
            if self._table.record(name, version) is None:  # else it was pushed again meanwhile
                self._objects.abort_all(self._address.folder(name, version))
                self._objects.remove(self._address.folder(name, version))
            self._claims.drop(held)
            claim.use_up()
