"""What is kept beside a release's journal in a cluster: commands for its runner, and notes; ConfigMaps too."""

from __future__ import annotations

from typing import Final

import msgspec

from inferdock.domain.errors import ConfigError, ResourceError
from inferdock.kube.errors import ApiConflict, ApiMissing, ApiRefused, KubeError
from inferdock.kube.naming import label_value
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import CONFIG_MAPS, KubeObject
from inferdock.release.records.cluster_names import BESIDE, MANAGER, MODEL, beside_name
from inferdock.release.records.journal import checked_id
from inferdock.release.records.mailbox import MAX_REQUESTS, Request, name_of, read_request

REQUESTS: Final = "requests"
_NOTE: Final = "note.json"


class Beside:
    """One ConfigMap beside a journal: a key is put into it, or taken away, whatever else is in it.

    Args:
        api: the cluster.
        namespace: where the model is.
        model: name that clients use.
        release: id.
        what: it is for.
    """

    def __init__(self, api: KubeObjects, *, namespace: str, model: str, release: str, what: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = beside_name(checked_id(release), what)
        self._labels = {MODEL: label_value(model), BESIDE: release}

    async def put(self, key: str, text: str) -> None:
        """Write a key.

        Raises:
            ResourceError: the ConfigMap is full, or may not be written.
            UnreachableError: the cluster does not answer.
        """
        try:
            await self._put(key, text)
        except ApiRefused as exc:
            if exc.status in (400, 403, 413, 422):
                raise ResourceError(f"{self._name} cannot be written: {exc.message}", cure=exc.cure) from exc
            raise

    async def _put(self, key: str, text: str) -> None:
        while True:
            try:
                await self._api.patch(CONFIG_MAPS, self._namespace, self._name, {"data": {key: text}}, manager=MANAGER)
                return
            except ApiMissing:
                pass
            try:
                body = {"metadata": {"name": self._name, "labels": self._labels}, "data": {key: text}}
                await self._api.create(CONFIG_MAPS, self._namespace, body, manager=MANAGER)
                return
            except ApiConflict as exc:  # made meanwhile
                if not exc.exists:
                    raise

    async def take(self, key: str) -> None:
        """Take a key away."""
        try:
            await self._api.patch(CONFIG_MAPS, self._namespace, self._name, {"data": {key: None}}, manager=MANAGER)
        except ApiMissing:
            return

    async def all(self) -> dict[str, str]:
        """Everything in it, by key."""
        there = await self._api.get(CONFIG_MAPS, self._namespace, self._name)
        return _texts(there) if there is not None else {}


class ClusterMailbox:
    """The commands for one release."""

    def __init__(self, beside: Beside) -> None:
        self._beside = beside

    async def post(self, request: Request) -> None:
        """See `mailbox.Mailbox`."""
        await self._beside.put(_key(name_of(request)), msgspec.json.encode(request).decode())

    async def waiting(self) -> list[Request]:
        """See `mailbox.Mailbox`; while nobody answers, nothing is known to wait."""
        try:
            found = sorted((await self._beside.all()).items())[:MAX_REQUESTS]
            return [request for key, text in found if (request := await self._read(key, text)) is not None]
        except KubeError:
            return []

    async def remove(self, request: Request) -> None:
        """See `mailbox.Mailbox`; what stays is known to be answered."""
        try:
            await self._beside.take(_key(name_of(request)))
        except KubeError:
            return

    async def _read(self, key: str, text: str) -> Request | None:
        request = read_request(text.encode("utf-8", "replace"))
        if request is not None and _key(name_of(request)) == key:
            return request
        await self._beside.take(key)
        return None


class ClusterNotes:
    """Notes beside the journals of one model."""

    def __init__(self, api: KubeObjects, *, namespace: str, model: str) -> None:
        self._api = api
        self._namespace = namespace
        self._model = model

    async def keep(self, release: str, name: str, data: bytes) -> None:
        """See `notes.Notes`."""
        await self._beside(release, name).put(_NOTE, data.decode())

    async def read(self, release: str, name: str) -> bytes | None:
        """See `notes.Notes`."""
        found = await self._beside(release, name).all()
        if not found:
            return None
        if _NOTE not in found:
            raise ConfigError(f"{beside_name(release, name)} has no {_NOTE}.", cure="Restore it, or delete it.")
        return found[_NOTE].encode()

    def _beside(self, release: str, name: str) -> Beside:
        return Beside(self._api, namespace=self._namespace, model=self._model, release=release, what=name)


def _key(name: str) -> str:
    """A command's name as a key: no colons there."""
    return name.replace(":", ".")


def _texts(body: KubeObject) -> dict[str, str]:
    data = body.get("data")
    return {key: text for key, text in data.items() if isinstance(text, str)} if isinstance(data, dict) else {}
