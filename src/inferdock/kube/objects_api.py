"""The client of the Kubernetes API for objects of any kind: what releases read and write.

One request is one call here, and nothing is tried again: who asks knows whether asking twice does harm. Answers are
JSON objects whose ``metadata`` is what the API promises; the inside of the rest is for the reader to check.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import msgspec

from inferdock.kube.access import ClusterAccess
from inferdock.kube.errors import ApiGone, ApiMissing, ApiNonsense
from inferdock.kube.objects import UNREADABLE, Meta, read_raw_event
from inferdock.kube.resources import PODS, KubeObject, Resource, segment
from inferdock.kube.transport import Transport

MANAGER = "inferdock-release"
"""Field manager of releases, unless a call names another."""
RIGHTS = "An administrator of the cluster has to grant this right (docs/kubernetes-releases.md lists all)."
APPLY = "application/apply-patch+yaml"
"""JSON is YAML too."""
MERGE = "application/merge-patch+json"
LISTS = 3
"""How often a list is begun anew when it grew old between its pages."""
_PARTS = {"scale": ("autoscaling/v1", "Scale")}


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """One change of a watched object; of a BOOKMARK the object has nothing but a resource version."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: KubeObject


class _Shape(msgspec.Struct):
    """What every object must have; decoded only to check it."""

    metadata: Meta


class _List(msgspec.Struct):
    metadata: Meta
    items: list[msgspec.Raw] | None = None


_SHAPE = msgspec.json.Decoder(_Shape)
_LIST = msgspec.json.Decoder(_List)
_OBJECT = msgspec.json.Decoder(dict[str, object])


class KubeObjects:
    """Reads and writes objects of one API server; use as ``async with``.

    Every method raises ``KubeError`` (see the module ``kube.errors``) when the API does not do what was asked, and
    ``ConfigError`` for a name that cannot be one.

    Args:
        access: where the API is and how we show who we are.
        answer_timeout_s: longest time for an answer.
        watch_timeout_s: the server ends a watch after one to two times this; then it is resumed.
    """

    def __init__(
        self, access: ClusterAccess, *, answer_timeout_s: float = 30.0, watch_timeout_s: float = 150.0
    ) -> None:
        self.access = access
        self._transport = Transport(
            access, answer_timeout_s=answer_timeout_s, watch_timeout_s=watch_timeout_s, rights=RIGHTS
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    # -- Reading ---------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> KubeObject | None:
        """One object; None when it is not there."""
        try:
            return _read(await self._transport.ask("GET", resource.path(namespace, _some(name), subresource)))
        except ApiMissing:
            return None

    async def list(
        self, resource: Resource, namespace: str, *, selector: str = "", fields: str = ""
    ) -> tuple[list[KubeObject], str]:
        """All objects that match, and the resource version to watch from.

        Args:
            resource: which kind.
            namespace: where.
            selector: label selector, for instance ``inferdock.io/model=demo,inferdock.io/revision``.
            fields: field selector, for instance ``metadata.name=inferdock-traffic``.
        """
        params = _selected(selector, fields)
        for left in reversed(range(LISTS)):
            try:
                items, version = await self._transport.list_all(
                    resource.path(namespace), params, _read_page, f"list of {resource.full_name}"
                )
            except ApiGone:
                if not left:
                    raise
            else:  # the items of built-in kinds do not say what they are
                return [{"apiVersion": resource.api, "kind": resource.kind, **item} for item in items], version
        raise AssertionError("unreachable")

    async def watch(
        self, resource: Resource, namespace: str, *, selector: str = "", fields: str = "", version: str
    ) -> AsyncGenerator[Sequence[ObjectEvent], None]:
        """Changes after ``version``, as many at a time as arrived together, until the server ends the watch.

        The first item is empty: it says that the server took the watch. Close the iterator (``aclosing``) when
        leaving it early. ``ApiGone`` asks for a new list.
        """
        params = {"resourceVersion": version, **_selected(selector, fields)}
        async with contextlib.aclosing(self._transport.watch(resource.path(namespace), params)) as batches:
            async for lines in batches:
                events = [event for line in lines if (event := _read_event(line)) is not None]
                if events or not lines:
                    yield events

    def pod_proxy(self, namespace: str, pod: str, port: int) -> str:
        """Base URL under which the API server passes requests on to a port of a pod."""
        return f"{self.access.base_url}/api/v1/namespaces/{segment(namespace)}/pods/http:{segment(pod)}:{port}/proxy"

    async def read_pod(self, namespace: str, pod: str, port: int, path: str, *, most: int) -> bytes:
        """What a pod answers to ``GET path``, at most so many bytes, by way of the API server."""
        at = f"{PODS.path(namespace)}/http:{segment(pod)}:{port}/proxy/{path.lstrip('/')}"
        return await self._transport.ask("GET", at, most=most, what=f"answer of pod {pod}")

    # -- Writing ---------------------------------------------------------------------------------------------

    async def create(
        self, resource: Resource, namespace: str, body: Mapping[str, object], *, manager: str = MANAGER
    ) -> KubeObject:
        """Make an object; ``ApiConflict`` with ``exists`` when there is one of this name."""
        whole = {"apiVersion": resource.api, "kind": resource.kind, **body}
        params = {"fieldManager": manager}
        return _read(await self._transport.ask("POST", resource.path(namespace), params, body=_encoded(whole)))

    async def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Mapping[str, object],
        *,
        manager: str,
        force: bool = False,
        subresource: str = "",
        dry_run: bool = False,
    ) -> KubeObject:
        """Server-side apply: the object has these fields afterwards, and ``manager`` owns them.

        Fields that the manager applied before and no longer does go away unless somebody else owns them too.

        Args:
            resource: which kind.
            namespace: where.
            name: of the object; it is made when it is not there.
            body: the fields; kind and name are added. A ``metadata.resourceVersion`` is a precondition.
            manager: who we are to the API.
            force: take fields over that others own; without, ``ApiConflict`` names the owners.
            subresource: for instance ``scale``.
            dry_run: only have the server say what it would do.
        """
        api, kind = _PARTS.get(subresource, (resource.api, resource.kind))
        meta = {**_meta_of(body), "name": name}
        whole = {"apiVersion": api, "kind": kind, **body, "metadata": meta}
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        params |= {"dryRun": "All"} if dry_run else {}
        path = resource.path(namespace, _some(name), subresource)
        return _read(await self._transport.ask("PATCH", path, params, body=_encoded(whole), content_type=APPLY))

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Mapping[str, object],
        *,
        subresource: str = "",
        manager: str = MANAGER,
    ) -> KubeObject:
        """Merge patch: null takes a field away. With ``metadata.resourceVersion`` in it, only if the object is still
        at that version; else ``ApiConflict``."""
        path = resource.path(namespace, _some(name), subresource)
        params = {"fieldManager": manager}
        return _read(await self._transport.ask("PATCH", path, params, body=_encoded(body), content_type=MERGE))

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str | None = None, propagation: str = "Background"
    ) -> bool:
        """Delete an object; False when it is not there. With ``uid`` only this very one, else ``ApiConflict``."""
        options: dict[str, object] = {"propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        body = _encoded({"apiVersion": "v1", "kind": "DeleteOptions", **options})
        try:
            await self._transport.ask("DELETE", resource.path(namespace, _some(name)), body=body)
        except ApiMissing:
            return False
        return True


def _some(name: str) -> str:
    """Without a name a path means the whole collection."""
    segment(name)
    return name


def _selected(selector: str, fields: str) -> dict[str, str]:
    given = {"labelSelector": selector, "fieldSelector": fields}
    return {key: value for key, value in given.items() if value}


def _meta_of(body: Mapping[str, object]) -> Mapping[str, object]:
    meta = body.get("metadata")
    return meta if isinstance(meta, dict) else {}


def _encoded(body: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(body)


def _read(data: bytes | msgspec.Raw) -> KubeObject:
    try:
        _SHAPE.decode(data)
        return _OBJECT.decode(data)
    except UNREADABLE as exc:
        raise ApiNonsense(f"The Kubernetes API sent no object: {exc}.") from exc


def _read_page(body: bytes) -> tuple[Meta, Sequence[KubeObject]]:
    try:
        page = _LIST.decode(body)
    except UNREADABLE as exc:
        raise ApiNonsense(f"The Kubernetes API sent no list: {exc}.") from exc
    return page.metadata, [_read(item) for item in page.items or ()]


def _read_event(line: bytes) -> ObjectEvent | None:
    event = read_raw_event(line, rights=RIGHTS)
    return ObjectEvent(event.type, _read(event.object)) if event is not None else None
