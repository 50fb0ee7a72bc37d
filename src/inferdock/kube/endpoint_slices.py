"""EndpointSlices to endpoints: pure functions, and the set of slices that list and watch keep up to date.

The rules, from the comments of `k8s.io/api/discovery/v1` and of Kubernetes' own EndpointSlice controller:

- ``ready`` null means ready; ``terminating`` null means not terminating. A terminating endpoint is left out even if
  it is still ready, so it takes no new requests and finishes those it has.
- Of an endpoint's addresses only the first has a meaning.
- While endpoints move between slices, one may stand in several at once, with old and new conditions. That a pod
  terminates is never taken back, so it wins; else ready wins.
- A pod with IPv4 and IPv6 stands in a slice of each; it is one replica, reached by IPv4.

Slices carry the labels of their Service, so the model and the revision are written there. Labels take no slash:
``SliceRules.model_names`` translates them, and annotations of a slice, where somebody makes slices by hand, come first
(Kubernetes copies a Service's labels to its slices, not its annotations).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from inferdock.domain.endpoint import EndpointSpec
from inferdock.kube.objects import EndpointSlice, SliceEndpoint, WatchEvent

MODEL_KEY = "inferdock.io/model"
REVISION_KEY = "inferdock.io/revision"
MAX_NAME_CHARS = 200
MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class SliceRules:
    """How slices are read.

    Attributes:
        port_name: name of the Service's port that the engine listens on; None takes the only TCP port.
        model_names: value of the label to the model name that clients ask for.
        revision_names: value of the label to the revision, for those whose name no label can hold.
    """

    port_name: str | None = None
    model_names: Mapping[str, str] = field(default_factory=dict)
    revision_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a set of slices says.

    Attributes:
        specs: endpoints to use, sorted by name; no two share a name or an address.
        models: every model that a slice names, sorted, also those without an endpoint now (Kubernetes keeps an empty
            slice for a Service without pods): their requests may wait for one.
        problems: why slices or endpoints were left out, sorted; at most :data:`MAX_PROBLEMS`.
    """

    specs: list[EndpointSpec]
    models: list[str]
    problems: tuple[str, ...]


class _Unusable(Exception):
    """A slice or an endpoint cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One endpoint of one slice; ``replica`` is equal for all that mean the same server."""

    replica: tuple[str, str, int]
    spec: EndpointSpec
    ready: bool
    terminating: bool


def endpoint_specs(slices: Iterable[EndpointSlice], rules: SliceRules) -> list[EndpointSpec]:
    """The endpoints that take requests, whatever the order of the slices."""
    return read_slices(slices, rules).specs


def read_slices(slices: Iterable[EndpointSlice], rules: SliceRules) -> Reading:
    """The endpoints that take requests, and what could not be used."""
    problems: set[str] = set()
    models: set[str] = set()
    candidates: list[_Candidate] = []
    for one in slices:
        try:
            model, revision = _names(one, rules)
            models.add(model)
            candidates += _candidates(one, rules, model, revision, problems)
        except _Unusable as reason:
            problems.add(f"EndpointSlice {one.metadata.name} {reason}")
    leaving = {candidate.replica for candidate in candidates if candidate.terminating}
    by_replica: dict[tuple[str, str, int], EndpointSpec] = {}
    for candidate in candidates:
        if candidate.ready and candidate.replica not in leaving:
            known = by_replica.get(candidate.replica, candidate.spec)
            by_replica[candidate.replica] = min(known, candidate.spec, key=_preference)
    by_address: dict[tuple[str, int], EndpointSpec] = {}
    for spec in by_replica.values():
        by_address[spec.host, spec.port] = min(by_address.get((spec.host, spec.port), spec), spec, key=_preference)
    specs = sorted(_with_unique_names(list(by_address.values())), key=lambda spec: spec.name)
    return Reading(specs, sorted(models), tuple(sorted(problems)[:MAX_PROBLEMS]))


def _preference(spec: EndpointSpec) -> tuple[bool, str, str, str, str, int]:
    return ":" in spec.host, spec.model, spec.revision, spec.name, spec.host, spec.port


def _with_unique_names(specs: list[EndpointSpec]) -> Iterator[EndpointSpec]:
    """A pod with two ports, or one that a stale slice still holds under an old address, needs longer names."""
    count = Counter(spec.name for spec in specs)
    for spec in specs:
        yield spec if count[spec.name] == 1 else replace(spec, name=f"{spec.name}@{spec.url.removeprefix('http://')}")


def _names(one: EndpointSlice, rules: SliceRules) -> tuple[str, str]:
    """Model and revision of a slice."""
    model = _word(one, MODEL_KEY)
    if not model:
        raise _Unusable(f"has no label {MODEL_KEY}")
    revision = _word(one, REVISION_KEY)
    if not revision.isascii() or " " in revision:
        raise _Unusable(f"has a {REVISION_KEY} that is not ASCII without spaces")
    return rules.model_names.get(model, model), rules.revision_names.get(revision, revision)


def _candidates(
    one: EndpointSlice, rules: SliceRules, model: str, revision: str, problems: set[str]
) -> Iterator[_Candidate]:
    if not one.endpoints:
        return  # such a slice need not have ports
    port = _port(one, rules.port_name)
    for endpoint in one.endpoints:
        try:
            yield _candidate(endpoint, _host(endpoint, one.address_type), port, model, revision)
        except _Unusable as reason:
            problems.add(f"an endpoint of EndpointSlice {one.metadata.name} {reason}")


def _word(one: EndpointSlice, key: str) -> str:
    """Annotation, else label. It goes into headers and metrics, so it may hold no line ends."""
    for source in (one.metadata.annotations, one.metadata.labels):
        value = (source or {}).get(key, "")
        if len(value) > MAX_NAME_CHARS or not value.isprintable():
            raise _Unusable(f"has a {key} that is too long or unprintable")
        if value:
            return value
    return ""


def _port(one: EndpointSlice, name: str | None) -> int:
    ports = [port for port in one.ports or () if (port.protocol or "TCP") == "TCP"]
    if name is not None:
        ports = [port for port in ports if (port.name or "") == name]
    if len(ports) != 1:
        wanted = "TCP port" if name is None else f"TCP port named {name}"
        raise _Unusable(f"has {len(ports)} {wanted}s" if ports else f"has no {wanted}")
    number = ports[0].port
    if number is None or not 0 < number < 65536:
        raise _Unusable(f"has the port {number}")
    return number


def _host(endpoint: SliceEndpoint, address_type: str) -> str:
    text = (endpoint.addresses or [""])[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _Unusable(f"has no IP address but {text[:80]!r}") from None
    if address_type != f"IPv{address.version}":
        raise _Unusable(f"has an IPv{address.version} address among {address_type[:20]}")
    return str(address)


def _candidate(endpoint: SliceEndpoint, host: str, port: int, model: str, revision: str) -> _Candidate:
    ref, conditions = endpoint.target_ref, endpoint.conditions
    if ref is not None and ref.name and ref.kind in ("", "Pod"):
        name, replica = ref.name, (ref.name, ref.uid, port)
    else:
        name, replica = f"[{host}]:{port}" if ":" in host else f"{host}:{port}", ("", host, port)
    return _Candidate(
        replica=replica,
        spec=EndpointSpec(name=name, host=host, port=port, model=model, revision=revision),
        ready=conditions is None or conditions.ready is not False,
        terminating=conditions is not None and conditions.terminating is True,
    )


class SliceSet:
    """All slices as last heard of: a list replaces them, the events of a watch change one at a time."""

    def __init__(self) -> None:
        self._slices: dict[tuple[str, str], EndpointSlice] = {}

    def __iter__(self) -> Iterator[EndpointSlice]:
        return iter(self._slices.values())

    def replace(self, slices: Iterable[EndpointSlice]) -> None:
        """Take exactly these slices."""
        self._slices = {one.key: one for one in slices}

    def apply(self, event: WatchEvent) -> None:
        """Take one change; a bookmark is none."""
        match event.type:
            case "ADDED" | "MODIFIED":
                self._slices[event.object.key] = event.object
            case "DELETED":
                self._slices.pop(event.object.key, None)
