"""Who owns which field: server-side apply and updates as the API server does them, on plain JSON.

A path is a tuple of steps; a step is ``f:NAME`` for a field and ``k:{...}`` for an item of a list with keys, as in
``managedFields``. Lists without keys and maps that are replaced as a whole are one field.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

Path = tuple[str, ...]
Manager = tuple[str, str, str]
"""Name, operation (Apply or Update), subresource."""
Owners = dict[Manager, frozenset[Path]]

LIST_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "conditions": ("type",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
ATOMIC_MAPS = {"selector", "nodeSelector", "labelSelector"}
SYSTEM = {
    ("f:apiVersion",),
    ("f:kind",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
        )
    ),
}
MISSING: Any = object()


class Conflicts(Exception):
    """Other managers own fields that the applied object would change: manager and field of each."""

    def __init__(self, found: list[tuple[Manager, str]]) -> None:
        super().__init__(found)
        self.found = found


def leaves(value: Any, builtin: bool, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that can be owned, with its value; an item of a keyed list is one too, without a value."""
    if path in SYSTEM or value is None:
        return
    name = path[-1][2:] if path and path[-1].startswith("f:") else ""
    keys = _keys_of(value, name, builtin)
    if keys is not None:
        for item in value:
            step = _step(item, keys)
            yield (*path, step), MISSING
            for key, inner in item.items():
                yield from leaves(inner, builtin, (*path, step, f"f:{key}"))
    elif isinstance(value, dict) and value and not (builtin and name in ATOMIC_MAPS):
        for key, inner in value.items():
            yield from leaves(inner, builtin, (*path, f"f:{key}"))
    elif path:
        yield path, value


def _keys_of(value: Any, name: str, builtin: bool) -> tuple[str, ...] | None:
    if not builtin or not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return None
    if name == "ports":
        keys: tuple[str, ...] = ("containerPort", "protocol") if "containerPort" in value[0] else ("port", "protocol")
    elif name in LIST_KEYS:
        keys = LIST_KEYS[name]
    else:
        return None
    return keys if all(key in item or key == "protocol" for item in value for key in keys) else None


def _step(item: dict, keys: tuple[str, ...]) -> str:
    return "k:" + json.dumps({key: item.get(key, "TCP") for key in keys}, sort_keys=True, separators=(",", ":"))


def _child(node: Any, step: str) -> Any:
    if step.startswith("f:"):
        return node.get(step[2:], MISSING) if isinstance(node, dict) else MISSING
    wanted = json.loads(step[2:])
    items = node if isinstance(node, list) else []
    return next((i for i in items if all(i.get(k, "TCP") == v for k, v in wanted.items())), MISSING)


def value_at(whole: Any, path: Path) -> Any:
    """What stands at a path; ``MISSING`` when nothing does."""
    for step in path:
        whole = _child(whole, step)
        if whole is MISSING:
            return MISSING
    return whole


def _put(whole: dict, path: Path, value: Any) -> None:
    node: Any = whole
    for step, following in zip(path, (*path[1:], ""), strict=True):
        inner = _child(node, step)
        if step.startswith("k:"):
            if inner is MISSING:
                inner = {k: v for k, v in json.loads(step[2:]).items() if (k, v) != ("protocol", "TCP")}
                node.append(inner)
        elif not following:
            if value != {} or not isinstance(inner, dict):  # an empty map only has to be there
                node[step[2:]] = copy.deepcopy(value)
        elif not isinstance(inner, list if following.startswith("k:") else dict):
            inner = node[step[2:]] = [] if following.startswith("k:") else {}
        node = inner


def _take(whole: dict, path: Path) -> None:
    """Remove what stands at a path, and parents that are empty then."""
    parent = value_at(whole, path[:-1])
    if parent is MISSING:
        return
    if path[-1].startswith("f:"):
        parent.pop(path[-1][2:], None)
    else:
        item = _child(parent, path[-1])
        if item is not MISSING:
            parent.remove(item)
    if len(path) > 2 and not parent:
        _take(whole, path[:-1])


def dotted(path: Path) -> str:
    """A path as error texts show it, for instance ``.spec.template.spec.containers[name="engine"].image``."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        else:
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(step[2:]).items()) + "]"
    return text


def applied(live: dict, owners: Owners, wish: dict, manager: Manager, *, force: bool, builtin: bool) -> tuple:
    """The object and its owners after an apply.

    Raises:
        Conflicts: see there.
    """
    wanted = dict(leaves(wish, builtin))
    others = {key: paths for key, paths in owners.items() if key != manager}
    conflicts = [
        (key, path)
        for key, paths in others.items()
        for path in sorted(paths & wanted.keys())
        if wanted[path] is not MISSING and wanted[path] != {} and value_at(live, path) != wanted[path]
    ]
    if conflicts and not force:
        raise Conflicts([(key, dotted(path)) for key, path in conflicts])
    for key, path in conflicts:
        others[key] -= {path}
    after = copy.deepcopy(live)
    _drop(after, owners.get(manager, frozenset()) - wanted.keys(), others)
    for path, value in wanted.items():
        _put(after, path, value)
    return after, {key: paths for key, paths in {**others, manager: frozenset(wanted)}.items() if paths}


def _drop(whole: dict, gone: frozenset[Path], others: Owners) -> None:
    """Take away what a manager no longer applies and nobody else owns."""
    held = [path for paths in others.values() for path in paths]
    for path in sorted(gone, key=len, reverse=True):
        if not any(other[: len(path)] == path for other in held):
            _take(whole, path)


def updated(before: dict, after: dict, owners: Owners, manager: Manager, *, builtin: bool) -> Owners:
    """Owners after a change that was no apply: who changes a field owns it alone."""
    old, new = dict(leaves(before, builtin)), dict(leaves(after, builtin))
    changed = {p for p, value in new.items() if p not in old or (value is not MISSING and old[p] != value)}
    lost = changed | (old.keys() - new.keys())
    left = {key: paths - lost if key != manager else paths - (old.keys() - new.keys()) for key, paths in owners.items()}
    left[manager] = left.get(manager, frozenset()) | changed
    return {key: paths for key, paths in left.items() if paths}


def managed_fields(owners: Owners, api: str, time: str) -> list[dict]:
    """``metadata.managedFields`` as the API writes it."""
    entries = []
    for (name, operation, subresource), paths in owners.items():
        fields: dict = {}
        for path in paths:
            node = fields
            for step in path:
                node = node.setdefault(step, {})
            if path[-1].startswith("k:"):
                node["."] = {}
        entry = {"manager": name, "operation": operation, "apiVersion": api, "time": time, "fieldsType": "FieldsV1"}
        entry |= {"fieldsV1": fields} | ({"subresource": subresource} if subresource else {})
        entries.append(entry)
    return entries


def merge_patched(value: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    after = dict(value) if isinstance(value, dict) else {}
    for key, inner in patch.items():
        if inner is None:
            after.pop(key, None)
        else:
            after[key] = merge_patched(after.get(key), inner)
    return after
