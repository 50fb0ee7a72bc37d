"""From the template of a model to the objects of one revision. Pure.

The template is YAML: a list of objects with placeholders in their texts. The chart writes it from the very thing that
it renders its first revision from. Everything in it is checked: what an object lacks here would only be missed when a
revision is to be found again, or taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml

from inferdock.domain.errors import ConfigError
from inferdock.kube.naming import label_value
from inferdock.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HPAS,
    PDBS,
    POD_MONITORS,
    SCALED_OBJECTS,
    SERVICES,
    KubeObject,
    Resource,
    of_kind,
)
from inferdock.release.records.cluster_names import MODEL, REFERENCE, REVISION, revision_name
from inferdock.release.steps import Target

OBJECTS: Final = "objects.yaml"
"""Key of the template ConfigMap."""
ALLOWED: Final = (CONFIG_MAPS, SERVICES, PDBS, POD_MONITORS, DEPLOYMENTS, HPAS, SCALED_OBJECTS)
"""Kinds that a revision may be made of, in the order in which they are made."""
MAX_OBJECTS: Final = 50
MAX_DEPTH: Final = 60
_NAME, _REVISION, _REFERENCE = "@@NAME@@", "@@REVISION@@", "@@REFERENCE@@"
_CURE: Final = "The chart writes it: `helm upgrade`, or `inferdock install`."


@dataclass(frozen=True, slots=True)
class Part:
    """One object of a revision.

    Attributes:
        resource: its kind.
        name: its name.
        body: the object.
    """

    resource: Resource
    name: str
    body: KubeObject


def revision_parts(text: str, target: Target, *, model_label: str, namespace: str) -> tuple[Part, ...]:
    """The objects of a revision, in the order in which they are to be made.

    Args:
        text: the template.
        target: which revision.
        model_label: the model, as its objects are labelled.
        namespace: where they are made.

    Raises:
        ConfigError: the template is none, or not one that revisions can be made of.
    """
    values = {
        _REVISION: label_value(target.revision),
        _REFERENCE: target.reference,
        _NAME: revision_name(target.revision),
    }
    parts = [_part(raw, values, model_label=model_label, namespace=namespace) for raw in _read(text)]
    named = [(part.resource.kind, part.name) for part in parts]
    if twice := next((one for one in named if named.count(one) > 1), None):
        raise _wrong(f"{twice[0]} {twice[1]} stands there twice")
    if not any(part.resource == DEPLOYMENTS for part in parts):
        raise _wrong("it has no Deployment")
    for part in parts:
        if REVISION in _texts(part.body["metadata"].get("annotations")):
            raise _wrong(f"{part.name} has an annotation {REVISION}; releases set it")
        part.body["metadata"].setdefault("annotations", {})[REVISION] = target.revision
    return tuple(sorted(parts, key=lambda part: ALLOWED.index(part.resource)))


def _read(text: str) -> list[Any]:
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise _wrong("it has aliases")
        found = msgspec.json.decode(msgspec.json.encode(yaml.safe_load(text)))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, msgspec.MsgspecError) as exc:
        raise _wrong(f"it is no YAML: {str(exc)[:200]}") from exc
    if not isinstance(found, list) or not found or len(found) > MAX_OBJECTS:
        raise _wrong(f"it is no list of 1 to {MAX_OBJECTS} objects")
    return found


def _part(raw: object, values: Mapping[str, str], *, model_label: str, namespace: str) -> Part:
    if not isinstance(raw, dict):
        raise _wrong("an entry is no object")
    resource = of_kind(str(raw.get("apiVersion")), str(raw.get("kind")))
    if resource not in ALLOWED or resource is None:
        raise _wrong(f"a {str(raw.get('kind'))[:60]} of {str(raw.get('apiVersion'))[:60]} is not for a revision")
    meta = raw.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(name, str) or _NAME not in name:
        raise _wrong(f"the name of a {resource.kind} does not contain {_NAME}, so revisions would share it")
    if meta.get("namespace", namespace) != namespace:
        raise _wrong(f"{resource.kind} {name} is for namespace {meta['namespace']!r}, not {namespace}")
    body = _filled(raw, values, MAX_DEPTH)
    _check_labels(body["metadata"], f"{resource.kind} {name}", model_label, values[_REVISION])
    if resource == DEPLOYMENTS:
        _check_deployment(body, name, model_label, values[_REVISION])
    return Part(resource, body["metadata"]["name"], body)


def _filled(value: Any, values: Mapping[str, str], depth: int) -> Any:
    """The same with the placeholders in its texts replaced; keys stay as they are."""
    if not depth:
        raise _wrong("it is too deep")
    match value:
        case str():
            for placeholder, text in values.items():
                value = value.replace(placeholder, text)
            return value
        case dict():
            return {key: _filled(one, values, depth - 1) for key, one in value.items()}
        case list():
            return [_filled(one, values, depth - 1) for one in value]
        case _:
            return value


def _check_labels(meta: object, what: str, model_label: str, revision: str) -> None:
    labels = _texts(meta.get("labels")) if isinstance(meta, dict) else {}
    for key, wanted in ((MODEL, model_label), (REVISION, revision)):
        if labels.get(key) != wanted:
            raise _wrong(f"{what} is labelled {key}={labels.get(key)!r}, not {wanted!r}")


def _check_deployment(body: KubeObject, name: str, model_label: str, revision: str) -> None:
    spec = body.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(template, dict):
        raise _wrong(f"Deployment {name} has no pod template")
    if "replicas" in spec:
        raise _wrong(f"Deployment {name} sets `replicas`, which belong to releases or to an autoscaler")
    _check_labels(template.get("metadata"), f"the pod template of Deployment {name}", model_label, revision)
    _check_texts(body["metadata"].get("annotations"), name)


def _check_texts(annotations: object, name: str) -> None:
    if annotations is not None and REFERENCE not in _texts(annotations):
        raise _wrong(f"Deployment {name} has no annotation {REFERENCE}")


def _texts(labels: object) -> dict[str, Any]:
    return labels if isinstance(labels, dict) else {}


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"The model's template ({OBJECTS}) cannot be used: {why}.", cure=_CURE)
