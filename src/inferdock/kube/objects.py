"""The parts of Kubernetes objects that we read, typed: `discovery.k8s.io/v1` EndpointSlices and watch events.

Everything that the API may leave out has a default, and lists may be null as Go writes them. Fields that we do not
read are skipped without being built.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from inferdock.kube.errors import ApiGone, ApiNonsense, ApiRefused, KubeError

HTTP_GONE = 410


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


class SliceList(msgspec.Struct, frozen=True):
    """Answer to a list, or one page of it."""

    metadata: Meta
    items: list[EndpointSlice] | None = None


class Status(msgspec.Struct, frozen=True):
    """Body of an error, and the object of an ERROR event."""

    message: str | None = None
    reason: str | None = None
    code: int | None = None


class WatchEvent(msgspec.Struct, frozen=True):
    """One change. A BOOKMARK says only how far we are: its object has nothing but a resource version."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: EndpointSlice


class _RawEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


_LIST = msgspec.json.Decoder(SliceList)
_RAW_EVENT = msgspec.json.Decoder(_RawEvent)
_SLICE = msgspec.json.Decoder(EndpointSlice)
_STATUS = msgspec.json.Decoder(Status)


def read_list(data: bytes) -> SliceList:
    """Decode a list.

    Raises:
        ApiNonsense: it is not a list of EndpointSlices.
    """
    try:
        return _LIST.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ApiNonsense(f"The Kubernetes API sent no list of EndpointSlices: {exc}.") from exc


def read_event(line: bytes) -> WatchEvent | None:
    """Decode one line of a watch; None for a type of event that came after this code was written.

    Raises:
        ApiGone, ApiRefused: the line is an ERROR event.
        ApiNonsense: it is no event.
    """
    try:
        event = _RAW_EVENT.decode(line)
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK":
                return WatchEvent(event.type, _SLICE.decode(event.object))
            case "ERROR":
                status = _STATUS.decode(event.object)
            case _:
                return None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ApiNonsense(f"The Kubernetes API sent no watch event: {exc}.") from exc
    raise refusal(status.code or 500, status)


def read_status(data: bytes) -> Status:
    """Decode the body of an error; an empty one when it is something else (proxies answer with HTML)."""
    try:
        return _STATUS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Status()


def refusal(code: int, status: Status, retry_after_s: float | None = None) -> KubeError:
    """The error that stands for a status code and what was said with it."""
    said = " ".join((status.message or status.reason or "no reason given").split())[:300]
    if code == HTTP_GONE:
        return ApiGone(f"The Kubernetes API no longer has the history asked for: {said}.")
    cure = ""
    if code == 401:
        cure = "Is the service account's token mounted and valid?"
    elif code == 403:
        cure = "The service account needs get, list and watch on endpointslices (group discovery.k8s.io)."
    return ApiRefused(
        f"The Kubernetes API answered {code}: {said}.", status=code, retry_after_s=retry_after_s, cure=cure
    )
