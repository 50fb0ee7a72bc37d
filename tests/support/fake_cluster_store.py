"""The objects of a fake cluster: versions, history, selectors, and what the API server refuses."""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from inferdock.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HPAS,
    NODES,
    PDBS,
    PODS,
    SCALED_OBJECTS,
    SERVICES,
    KubeObject,
    Resource,
)
from tests.support import fake_cluster_fields as fields

Key = tuple[str, str, str]
"""Full name of the resource, namespace, name."""
WITH_STATUS = {DEPLOYMENTS, HPAS, PDBS, SCALED_OBJECTS, PODS, NODES}
SERVER_SET = ("uid", "creationTimestamp", "generation", "namespace", "deletionTimestamp")
PRECONDITIONS = {
    "resourceVersion": "the object has been modified; please apply your changes to the latest version and try again",
    "uid": "Precondition failed: UID in precondition differs",
}
MAX_CONFIG_MAP_BYTES = 1024 * 1024
LABEL = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]|")
DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


class Refused(Exception):
    """The API server says no: status code, reason, sentence, causes."""

    def __init__(self, code: int, reason: str, message: str, causes: list[dict] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.causes = code, reason, message, causes


@dataclass
class Record:
    """An object and who owns its fields."""

    body: KubeObject
    owners: fields.Owners = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One entry of the history."""

    version: int
    resource: str
    type: str
    body: KubeObject
    before: KubeObject | None


def now() -> str:
    """As the API writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All objects. Changes are made between two awaits, so each is seen whole.

    Attributes:
        version: of the newest change.
        oldest: watches from before this version get 410.
        history: changes since.
    """

    def __init__(self) -> None:
        self.version = 100
        self.oldest = 0
        self.history: list[Change] = []
        self._records: dict[Key, Record] = {}
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()

    # -- Reading ---------------------------------------------------------------------------------------------

    def record(self, resource: Resource, namespace: str, name: str) -> Record | None:
        """One object with its owners."""
        return self._records.get(_key(resource, namespace, name))

    def get(self, resource: Resource, namespace: str, name: str) -> KubeObject | None:
        """One object, a copy; None when it is not there."""
        found = self.record(resource, namespace, name)
        return copy.deepcopy(found.body) if found is not None else None

    def all(self, resource: Resource, namespace: str, selector: str = "", fields_: str = "") -> list[KubeObject]:
        """Copies of all objects that match, by name."""
        found = (
            r.body
            for (kind, ns, _), r in sorted(self._records.items(), key=lambda pair: pair[0])
            if kind == resource.full_name and (ns == namespace or not namespace or not resource.namespaced)
        )
        return [copy.deepcopy(body) for body in found if matches(body, selector, fields_)]

    async def news(self) -> None:
        """Wait until something happens."""
        await self._changed.wait()

    def since(self, version: int) -> list[Change]:
        """What has happened after a version."""
        return [change for change in self.history if change.version > version]

    # -- Changes ---------------------------------------------------------------------------------------------

    def apply(
        self, resource: Resource, namespace: str, name: str, body: KubeObject, manager: fields.Manager, *, force: bool
    ) -> tuple[KubeObject, bool]:
        """Server-side apply; the object afterwards, and whether it is new."""
        record = self.record(resource, namespace, name)
        _check_preconditions(resource, name, record, body)
        live = record.body if record is not None else {}
        if body.get("metadata", {}).get("managedFields"):
            raise Refused(400, "BadRequest", "metadata.managedFields must be nil")
        builtin = _builtin(resource)
        try:
            after, owners = fields.applied(
                live, record.owners if record else {}, body, manager, force=force, builtin=builtin
            )
        except fields.Conflicts as exc:
            raise _conflict(exc.found, resource.api) from None
        after = {"apiVersion": resource.api, "kind": resource.kind, **after}
        after.setdefault("metadata", {})["name"] = name
        return self._write(resource, namespace, record, after, owners), record is None

    def create(self, resource: Resource, namespace: str, body: KubeObject, manager: str = "test") -> KubeObject:
        """Make an object."""
        body = copy.deepcopy(body)
        meta = body.setdefault("metadata", {})
        name = meta.get("name") or f"{meta.pop('generateName', '')}{next(self._numbers):05x}"
        meta["name"] = name
        if self.record(resource, namespace, name) is not None:
            raise Refused(409, "AlreadyExists", f'{resource.full_name} "{name}" already exists')
        body = {**body, "apiVersion": resource.api, "kind": resource.kind}
        owners = fields.updated({}, body, {}, (manager, "Update", ""), builtin=_builtin(resource))
        return self._write(resource, namespace, None, body, owners)

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[KubeObject], KubeObject],
        manager: str = "test",
        subresource: str = "",
        precondition: KubeObject | None = None,
    ) -> KubeObject:
        """Change an object that is there; ``change`` gets a copy and returns what it shall be."""
        record = self.record(resource, namespace, name)
        if record is None:
            raise not_found(resource, name)
        _check_preconditions(resource, name, record, precondition or {})
        after = change(copy.deepcopy(record.body))
        after["metadata"] = {**after["metadata"], **_kept(record.body["metadata"])}
        who = (manager, "Update", subresource)
        owners = fields.updated(record.body, after, record.owners, who, builtin=_builtin(resource))
        return self._write(resource, namespace, record, after, owners)

    def patch(self, resource: Resource, namespace: str, name: str, patch: KubeObject, manager: str = "test",
              subresource: str = "") -> KubeObject:  # fmt: skip
        """Merge patch of an object that is there."""
        return self.update(
            resource, namespace, name, lambda body: fields.merge_patched(body, patch), manager, subresource, patch
        )

    def delete(self, resource: Resource, namespace: str, name: str, uid: str | None = None) -> KubeObject:
        """Take an object away."""
        record = self.record(resource, namespace, name)
        if record is None:
            raise not_found(resource, name)
        have = record.body["metadata"]["uid"]
        if uid is not None and uid != have:
            said = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"
            raise Refused(409, "Conflict", f'Operation cannot be fulfilled on {resource.full_name} "{name}": {said}')
        del self._records[_key(resource, namespace, name)]
        self._happened(resource.full_name, "DELETED", record.body, record.body)
        return record.body

    def take(self, resource: Resource, namespace: str, name: str, record: Record) -> None:
        """Hold a copy of another store's object."""
        self._records[_key(resource, namespace, name)] = copy.deepcopy(record)

    def bookmark(self, resource: Resource) -> None:
        """Things elsewhere raise the version, and watches of this kind hear of it."""
        self._happened(resource.full_name, "BOOKMARK", {"metadata": {}}, None)

    def compact(self) -> None:
        """Forget the history."""
        self.oldest = self.version + 1
        self.history.clear()

    def _write(
        self, resource: Resource, namespace: str, record: Record | None, after: KubeObject, owners: fields.Owners
    ) -> KubeObject:
        """Store it as the next version; the very same again changes nothing."""
        meta = after["metadata"]
        if resource.namespaced and meta.setdefault("namespace", namespace) != namespace:
            raise Refused(400, "BadRequest", "the namespace of the object does not match the namespace on the request")
        _default(resource, after)
        _check(resource, after, record)
        if record is not None:
            meta.update({k: v for k, v in record.body["metadata"].items() if k in SERVER_SET and v is not None})
            meta["resourceVersion"] = record.body["metadata"]["resourceVersion"]
            if {**after, "metadata": {**meta, "managedFields": 0}} == {
                **record.body, "metadata": {**record.body["metadata"], "managedFields": 0}
            } and owners == record.owners:  # fmt: skip
                return copy.deepcopy(record.body)
            if "generation" in meta and _essence(after) != _essence(record.body):
                meta["generation"] += 1
        else:
            number = next(self._numbers)
            meta |= {"uid": f"00000000-0000-4000-8000-{number:012x}", "creationTimestamp": now()}
            meta |= {"generation": 1} if "spec" in after else {}
        meta["managedFields"] = fields.managed_fields(owners, resource.api, now())
        name = meta["name"]
        self._records[_key(resource, namespace, name)] = Record(after, owners)
        kind, before = ("ADDED", None) if record is None else ("MODIFIED", record.body)
        return copy.deepcopy(self._happened(resource.full_name, kind, after, before))

    def _happened(self, resource: str, kind: str, body: KubeObject, before: KubeObject | None) -> KubeObject:
        self.version += 1
        if kind != "DELETED":
            body["metadata"]["resourceVersion"] = str(self.version)
            after = body
        else:
            after = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self.history.append(Change(self.version, resource, kind, copy.deepcopy(after), before))
        self.wake()
        return body

    def wake(self) -> None:
        """Whoever waits for changes looks again."""
        self._changed.set()
        self._changed = asyncio.Event()


def _builtin(resource: Resource) -> bool:
    group = resource.api.rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def _key(resource: Resource, namespace: str, name: str) -> Key:
    return resource.full_name, namespace if resource.namespaced else "", name


def _kept(meta: KubeObject) -> KubeObject:
    return {key: meta[key] for key in ("name", *SERVER_SET) if key in meta}


def _essence(body: KubeObject) -> KubeObject:
    return {key: value for key, value in body.items() if key not in ("metadata", "status")}


def not_found(resource: Resource, name: str) -> Refused:
    """404 as the API server says it."""
    return Refused(404, "NotFound", f'{resource.full_name} "{name}" not found')


def _conflict(found: list[tuple[fields.Manager, str]], api: str) -> Refused:
    def who(manager: fields.Manager) -> str:
        sub = f' with subresource "{manager[2]}"' if manager[2] else ""
        return f'conflict with "{manager[0]}"{sub} using {api}'

    causes = [{"reason": "FieldManagerConflict", "message": who(m), "field": path} for m, path in found]
    many = "s" if len(found) > 1 else ""
    listed = "; ".join(f"{who(manager)}: {path}" for manager, path in found)
    return Refused(409, "Conflict", f"Apply failed with {len(found)} conflict{many}: {listed}", causes)


def _check_preconditions(resource: Resource, name: str, record: Record | None, body: KubeObject) -> None:
    meta = body.get("metadata") or {}
    for key, why in PRECONDITIONS.items():
        have = record.body["metadata"][key] if record is not None else None
        if meta.get(key) and meta[key] != have:
            raise Refused(409, "Conflict", f'Operation cannot be fulfilled on {resource.full_name} "{name}": {why}')


def _default(resource: Resource, body: KubeObject) -> None:
    """Defaults that nobody owns; what an apply gives up falls back to them."""
    spec = body.setdefault("spec", {}) if resource in (DEPLOYMENTS, SERVICES) else body.get("spec", {})
    if resource == DEPLOYMENTS:
        spec.setdefault("replicas", 1)
        spec.setdefault("progressDeadlineSeconds", 600)
        spec.setdefault("strategy", {"type": "RollingUpdate"})
    elif resource == HPAS:
        spec.setdefault("minReplicas", 1)
    elif resource == SERVICES:
        spec.setdefault("type", "ClusterIP")


def _check(resource: Resource, body: KubeObject, record: Record | None) -> None:
    """The rules that a template or a driver is likely to break."""
    meta, name = body["metadata"], body["metadata"]["name"]

    def invalid(field_: str, value: object, why: str) -> Refused:
        return Refused(
            422, "Invalid", f'{resource.kind} "{name}" is invalid: {field_}: Invalid value: "{value}": {why}'
        )

    pattern, longest = (SERVICE_NAME, 63) if resource == SERVICES else (SUBDOMAIN, 253)
    if not pattern.fullmatch(name) or len(name) > longest:
        raise invalid("metadata.name", name, "a lowercase RFC 1123 name is needed")
    template = (body.get("spec") or {}).get("template") or {}
    pod_labels = (template.get("metadata") or {}).get("labels") or {}
    for labels in (meta.get("labels") or {}, pod_labels):
        for key, value in labels.items():
            if not isinstance(value, str) or len(value) > 63 or not LABEL.fullmatch(value):
                raise invalid(f"metadata.labels[{key}]", value, "a valid label must be 63 characters or less")
    for key, value in (meta.get("annotations") or {}).items():
        if not isinstance(value, str):
            raise Refused(400, "BadRequest", f"annotation {key}: cannot unmarshal into Go value of type string")
    if resource == CONFIG_MAPS:
        data = body.get("data") or {}
        for key, value in data.items():
            if not isinstance(value, str):
                raise Refused(400, "BadRequest", f"ConfigMap.data.{key}: cannot unmarshal into type string")
            if not DATA_KEY.fullmatch(key) or key in (".", ".."):
                raise invalid(f"data[{key}]", key, "a valid config key must consist of [-._a-zA-Z0-9]+")
        if sum(len(k) + len(v.encode()) for k, v in data.items()) > MAX_CONFIG_MAP_BYTES:
            raise Refused(422, "Invalid", f'ConfigMap "{name}" is invalid: []: Too long: may not be more than 1048576')
    if resource == DEPLOYMENTS:
        _check_deployment(body, record, pod_labels, invalid)


def _check_deployment(body: KubeObject, record: Record | None, pod_labels: dict, invalid: Callable) -> None:
    selector = (body["spec"].get("selector") or {}).get("matchLabels") or {}
    if not selector or any(pod_labels.get(key) != value for key, value in selector.items()):
        raise invalid("spec.template.metadata.labels", pod_labels, "`selector` does not match template `labels`")
    if record is not None and record.body["spec"].get("selector") != body["spec"].get("selector"):
        raise invalid("spec.selector", selector, "field is immutable")
    if not body["spec"]["template"].get("spec", {}).get("containers"):
        raise Refused(422, "Invalid", "spec.template.spec.containers: Required value")


def matches(body: KubeObject, selector: str, fields_: str = "") -> bool:
    """Whether an object matches a label selector and a field selector."""
    labels = body["metadata"].get("labels") or {}
    return all(_has(labels, term) for term in _terms(selector)) and all(
        _field(body, term) for term in fields_.split(",") if term
    )


def _terms(selector: str) -> list[str]:
    """Commas within parentheses belong to a term."""
    return [term.strip() for term in re.split(r",(?![^(]*\))", selector) if term.strip()]


def _has(labels: dict, term: str) -> bool:
    among = re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", term)
    if among:
        inside = labels.get(among[1]) in [value.strip() for value in among[3].split(",")]
        return inside if among[2] == "in" else not inside
    if "!=" in term:
        key, _, value = term.partition("!=")
        return labels.get(key) != value
    if "=" in term:
        key, _, value = term.replace("==", "=").partition("=")
        return labels.get(key) == value
    return term[1:] not in labels if term.startswith("!") else term in labels


def _field(body: KubeObject, term: str) -> bool:
    path, equals, value = term.replace("==", "=").partition("=")
    negated = path.endswith("!")
    found: object = body
    for step in path.removesuffix("!").split("."):
        found = found.get(step, "") if isinstance(found, dict) else ""
    assert equals
    return (str(found) == value) is not negated
