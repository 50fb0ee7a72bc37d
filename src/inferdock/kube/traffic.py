"""Weights of revisions in the traffic ConfigMap: what releases write and gateways read. No I/O here.

One key of the ConfigMap is one model::

    data:
      demo-1a2b3c4d.json: '{"model": "org/demo", "weights": {"1.0.0-abcdef012345": 90, "1.1.0-fedcba543210": 10}}'

With ``"shadow": {"revision": "1.1.0-fedcba543210", "share": 0.1}`` a tenth of the requests is also copied there.

What is malformed changes nothing: the weights that the key held before go on, and the problem says why. A key that is
gone takes its model's weights along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, NamedTuple

import msgspec

from inferdock.domain.shadow import Shadow
from inferdock.kube.naming import label_value, traffic_key
from inferdock.kube.objects import UNREADABLE

SUFFIX = ".json"
"""Other keys are not ours."""
MAX_MODELS = 1000
MAX_REVISIONS = 100
MAX_NAME_CHARS = 200
MAX_PROBLEMS = 20

Weights = dict[str, float]


class Division(NamedTuple):
    """How the requests of one model are divided, and which are copied."""

    weights: Weights
    shadow: Shadow | None = None


UNDIVIDED: Final = Division({})


class _Value(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    weights: Weights
    shadow: Shadow | None = None


_VALUE = msgspec.json.Decoder(_Value)


class _Unusable(Exception):
    """A value cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class TrafficState:
    """What the ConfigMap said last of each key, as far as it could be used.

    Attributes:
        keys: key to model and how it is divided.
        problems: why keys were left out, sorted; at most :data:`MAX_PROBLEMS`.
    """

    keys: Mapping[str, tuple[str, Division]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def divisions(self) -> dict[str, Division]:
        """Of each model; where two keys name one model, the key that is made of the model's name counts."""
        found: dict[str, Division] = {}
        for key, (model, division) in sorted(self.keys.items()):
            if model not in found or key == traffic_key(model):
                found[model] = division
        return {model: division for model, division in found.items() if division != UNDIVIDED}

    @property
    def weights(self) -> dict[str, Weights]:
        """Model to its weights."""
        return {model: division.weights for model, division in self.divisions.items() if division.weights}

    @property
    def revision_names(self) -> dict[str, str]:
        """Value of the label to the revision, for all those whose name no label can hold."""
        every = {revision for _, division in self.keys.values() for revision in division.weights}
        every |= {division.shadow.revision for _, division in self.keys.values() if division.shadow is not None}
        return {label: revision for revision in sorted(every) if (label := label_value(revision)) != revision}

    def without(self, model: str, before: TrafficState, why: str) -> TrafficState:
        """As before for a model whose weights somebody refused."""
        refused = {key for key, (one, _) in self.keys.items() if one == model}
        kept = {key: value for key, value in self.keys.items() if key not in refused}
        kept |= {key: before.keys[key] for key in refused if key in before.keys}
        return TrafficState(kept, _some([*self.problems, *(f"{key}: {why}" for key in refused)]))


def read_traffic(data: Mapping[str, str], before: TrafficState) -> TrafficState:
    """What the ConfigMap says now, given what held before; nothing at all where it is gone (``data`` is empty)."""
    keys: dict[str, tuple[str, Division]] = {}
    problems: list[str] = []
    for key, text in sorted(data.items()):
        if not key.endswith(SUFFIX):
            continue
        try:
            keys[key] = _read(text)
        except _Unusable as reason:
            problems.append(f"{key[:MAX_NAME_CHARS]} {reason}")
            if key in before.keys:
                keys[key] = before.keys[key]
        if len(keys) >= MAX_MODELS:
            problems.append(f"there are more than {MAX_MODELS} models")
            break
    return TrafficState(keys, _some([*problems, *_twice(keys)]))


def traffic_value(model: str, weights: Mapping[str, float], shadow: Shadow | None = None) -> str:
    """The value of a model's key.

    Raises:
        ValueError: a gateway would not take it.
    """
    text = msgspec.json.encode(_Value(model, dict(weights), shadow), order="sorted").decode()
    try:
        _read(text)
    except _Unusable as exc:
        raise ValueError(f"this traffic {exc}") from None
    return text


def _read(text: str) -> tuple[str, Division]:
    try:
        value = _VALUE.decode(text)
    except UNREADABLE as exc:
        raise _Unusable(f"is no traffic: {exc}") from None
    if not _is_name(value.model):
        raise _Unusable("names no model that could be one")
    if len(value.weights) > MAX_REVISIONS:
        raise _Unusable(f"has more than {MAX_REVISIONS} revisions")
    for revision, weight in value.weights.items():
        _check_revision(revision)
        if not isfinite(weight) or weight < 0:
            raise _Unusable(f"gives {revision} the weight {weight}, not a number >= 0")
    if value.weights and not any(value.weights.values()):
        raise _Unusable("gives no revision a weight above 0")
    if value.shadow is not None:
        _check_revision(value.shadow.revision)
    return value.model, Division(value.weights, value.shadow)


def _check_revision(revision: str) -> None:
    if not _is_name(revision) or not revision.isascii() or " " in revision:
        raise _Unusable("names a revision that is not ASCII without spaces")


def _is_name(text: str) -> bool:
    """Names go into headers and metrics."""
    return 0 < len(text) <= MAX_NAME_CHARS and text.isprintable()


def _twice(keys: Mapping[str, tuple[str, Division]]) -> list[str]:
    """Two keys of one model: somebody else writes into our ConfigMap."""
    models = [model for model, _ in keys.values()]
    return [
        f"{key} names {model}, as {traffic_key(model)} does"
        for key, (model, _) in keys.items()
        if models.count(model) > 1 and key != traffic_key(model)
    ]


def _some(problems: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(problems))[:MAX_PROBLEMS])
