"""The parts of Kubernetes objects that we read, typed: `discovery.k8s.io/v1` EndpointSlices, watch events, errors.

Everything that the API may leave out has a default, and lists may be null as Go writes them. Fields that we do not
read are skipped without being built.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from inferdock.kube.errors import ApiConflict, ApiGone, ApiMissing, ApiNonsense, ApiRefused, KubeError

HTTP_GONE = 410
HTTP_CONFLICT = 409
MAX_SAID_CHARS = 300
MAX_CONFLICT_CHARS = 1000
"""A conflict names every field and its owner."""
MAX_OWNERS = 20
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not what was promised."""
LOGIN = "Is the service account's token mounted and valid, or kubectl logged in?"
GATEWAY_RIGHTS = (
    "The service account needs list and watch on endpointslices (group discovery.k8s.io) and on the ConfigMap with the "
    "traffic."
)
_MANAGER = re.compile(r'conflicts? with "([^"]*)"')


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """`metadata` of an object or of a list; ``continue_`` is the token for the rest of a list."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class TargetRef(msgspec.Struct, frozen=True, rename="camel"):
    """The object behind an endpoint, mostly a pod."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Conditions(msgspec.Struct, frozen=True):
    """State of an endpoint; null means true for ``ready`` and ``serving``, false for ``terminating``."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """One endpoint; only the first of its addresses has a meaning."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    target_ref: TargetRef | None = None


class SlicePort(msgspec.Struct, frozen=True):
    """One port that all endpoints of the slice have; a missing name is the empty one, a missing protocol TCP."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    """A part of the endpoints of a Service."""

    metadata: Meta = Meta()
    address_type: str = "IPv4"
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name, the identity of a slice."""
        return self.metadata.namespace, self.metadata.name


class ConfigMap(msgspec.Struct, frozen=True):
    """Named texts."""

    metadata: Meta
    data: dict[str, str] | None = None


class ConfigMapList(msgspec.Struct, frozen=True):
    """Answer to a list, or one page of it."""

    metadata: Meta
    items: list[ConfigMap] | None = None


class SliceList(msgspec.Struct, frozen=True):
    """Answer to a list, or one page of it."""

    metadata: Meta
    items: list[EndpointSlice] | None = None


class Status(msgspec.Struct, frozen=True):
    """Body of an error, and the object of an ERROR event."""

    message: str | None = None
    reason: str | None = None
    code: int | None = None
    details: msgspec.Raw = msgspec.Raw(b"null")


class StatusCause(msgspec.Struct, frozen=True):
    """One reason of several; of a server-side apply: one field that somebody else owns."""

    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(msgspec.Struct, frozen=True):
    """More about an error."""

    causes: list[StatusCause] | None = None


class WatchEvent(msgspec.Struct, frozen=True):
    """One change. A BOOKMARK says only how far we are: its object has nothing but a resource version."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: EndpointSlice


class ConfigMapEvent(msgspec.Struct, frozen=True):
    """One change of a ConfigMap; BOOKMARK as in :class:`WatchEvent`."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: ConfigMap


class RawEvent(msgspec.Struct):
    """One change whose object is not decoded yet."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: msgspec.Raw


class _AnyEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


_LIST = msgspec.json.Decoder(SliceList)
_ANY_EVENT = msgspec.json.Decoder(_AnyEvent)
_SLICE = msgspec.json.Decoder(EndpointSlice)
_CONFIG_MAPS = msgspec.json.Decoder(ConfigMapList)
_CONFIG_MAP = msgspec.json.Decoder(ConfigMap)
_STATUS = msgspec.json.Decoder(Status)
_DETAILS = msgspec.json.Decoder(StatusDetails)


def read_list(data: bytes) -> SliceList:
    """Decode a list.

    Raises:
        ApiNonsense: it is not a list of EndpointSlices.
    """
    try:
        return _LIST.decode(data)
    except UNREADABLE as exc:
        raise ApiNonsense(f"The Kubernetes API sent no list of EndpointSlices: {exc}.") from exc


def read_event(line: bytes) -> WatchEvent | None:
    """Decode one line of a watch of slices; None for a type of event that came after this code was written.

    Raises:
        ApiGone, ApiRefused: the line is an ERROR event.
        ApiNonsense: it is no event.
    """
    event = read_raw_event(line, rights=GATEWAY_RIGHTS)
    if event is None:
        return None
    try:
        return WatchEvent(event.type, _SLICE.decode(event.object))
    except UNREADABLE as exc:
        raise ApiNonsense(f"The Kubernetes API sent no watch event: {exc}.") from exc


def read_config_maps(data: bytes) -> ConfigMapList:
    """Decode a list.

    Raises:
        ApiNonsense: it is not a list of ConfigMaps.
    """
    try:
        return _CONFIG_MAPS.decode(data)
    except UNREADABLE as exc:
        raise ApiNonsense(f"The Kubernetes API sent no list of ConfigMaps: {exc}.") from exc


def read_config_map_event(line: bytes) -> ConfigMapEvent | None:
    """Decode one line of a watch of ConfigMaps; as :func:`read_event`."""
    event = read_raw_event(line, rights=GATEWAY_RIGHTS)
    if event is None:
        return None
    try:
        return ConfigMapEvent(event.type, _CONFIG_MAP.decode(event.object))
    except UNREADABLE as exc:
        raise ApiNonsense(f"The Kubernetes API sent no watch event: {exc}.") from exc


def read_raw_event(line: bytes, *, rights: str = "") -> RawEvent | None:
    """Decode one line of a watch but for its object; None as in :func:`read_event`.

    Raises:
        ApiGone, ApiRefused: the line is an ERROR event.
        ApiNonsense: it is no event.
    """
    try:
        event = _ANY_EVENT.decode(line)
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK":
                return RawEvent(event.type, event.object)
            case "ERROR":
                status = _STATUS.decode(event.object)
            case _:
                return None
    except UNREADABLE as exc:
        raise ApiNonsense(f"The Kubernetes API sent no watch event: {exc}.") from exc
    raise refusal(status.code or 500, status, rights=rights)


def read_status(data: bytes) -> Status:
    """Decode the body of an error; an empty one when it is something else (proxies answer with HTML)."""
    try:
        return _STATUS.decode(data)
    except UNREADABLE:
        return Status()


def refusal(code: int, status: Status, retry_after_s: float | None = None, *, rights: str = "") -> KubeError:
    """The error that stands for a status code and what was said with it; ``rights``: the cure of a 403."""
    said = " ".join((status.message or status.reason or "no reason given").split()).rstrip(".")
    if code == HTTP_CONFLICT:
        return _conflict(status, said[:MAX_CONFLICT_CHARS], retry_after_s)
    said = said[:MAX_SAID_CHARS]
    if code == HTTP_GONE:
        return ApiGone(f"The Kubernetes API no longer has the history asked for: {said}.")
    kind = ApiMissing if code == 404 else ApiRefused
    cure = {401: LOGIN, 403: rights}.get(code, "")
    return kind(f"The Kubernetes API answered {code}: {said}.", status=code, retry_after_s=retry_after_s, cure=cure)


def _conflict(status: Status, said: str, retry_after_s: float | None) -> ApiConflict:
    return ApiConflict(
        f"The Kubernetes API answered 409: {said}.",
        said=said,
        exists=status.reason == "AlreadyExists",
        owners=_owners(status.details),
        retry_after_s=retry_after_s,
    )


def _owners(details: msgspec.Raw) -> tuple[tuple[str, str], ...]:
    """Manager and field of each conflict; nothing where the details are not what we know."""
    try:
        causes = _DETAILS.decode(details).causes or []
    except UNREADABLE:
        return ()
    found = (
        (_MANAGER.search(cause.message), cause.field) for cause in causes if cause.reason == "FieldManagerConflict"
    )
    return tuple((manager[1][:128], field[:256]) for manager, field in found if manager is not None)[:MAX_OWNERS]
