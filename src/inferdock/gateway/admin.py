"""The admin API, on its own port at 127.0.0.1: what the gateway holds, and which endpoints it uses.

``PUT /admin/endpoints`` replaces the whole set, so a supervisor that says the same thing twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from inferdock.balance.endpoints import Endpoint
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import RequestError
from inferdock.gateway.exchange import respond_error
from inferdock.gateway.http_server import Request, Turn
from inferdock.gateway.own_routes import JSON

_ENCODE = msgspec.json.Encoder().encode
NO_ID = b"admin"


class EndpointDocument(msgspec.Struct, forbid_unknown_fields=True):
    """One endpoint as the admin API spells it."""

    name: str
    url: str
    model: str
    revision: str = ""


class EndpointsDocument(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /admin/endpoints``."""

    endpoints: list[EndpointDocument]


def endpoint_spec(name: str, url: str, model: str, revision: str) -> EndpointSpec:
    """Build a spec from a base URL.

    Raises:
        RequestError: 400, the URL is not ``http://host:port``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise RequestError(400, f"`{url}` is not a URL: {exc}.", param="url") from exc
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise RequestError(400, f"`{url}` is not of the form http://host:port.", param="url")
    return EndpointSpec(name=name, host=parts.hostname, port=port or 80, model=model, revision=revision)


def endpoint_row(endpoint: Endpoint) -> dict[str, object]:
    """One endpoint as the admin API shows it."""
    spec = endpoint.spec
    return {
        "name": spec.name,
        "url": spec.url,
        "model": spec.model,
        "revision": spec.revision,
        "state": str(endpoint.state),
        "in_flight": endpoint.in_flight,
        "running": endpoint.running,
        "waiting": endpoint.waiting,
        "kv_cache_usage_ratio": endpoint.kv_cache_usage_ratio,
    }


class Admin:
    """Handler of the admin port."""

    def __init__(
        self,
        *,
        status: Callable[[], dict[str, object]],
        replace_endpoints: Callable[[list[EndpointSpec]], None],
        metrics_text: Callable[[], bytes],
    ) -> None:
        self._status = status
        self._replace_endpoints = replace_endpoints
        self._metrics_text = metrics_text

    def handle(self, request: Request, turn: Turn) -> None:
        """Answer one request of the admin port."""
        try:
            _refuse_browsers(request)
            self._answer(request, turn)
        except RequestError as error:
            respond_error(turn, error, NO_ID)

    def refused(self, status: int) -> None:
        """Nothing to count: the admin port is not part of the service's figures."""

    def _answer(self, request: Request, turn: Turn) -> None:
        match (request.method, request.path):
            case (b"GET", b"/admin/status"):
                turn.respond(200, [JSON], _ENCODE(self._status()))
            case (b"PUT", b"/admin/endpoints"):
                self._put_endpoints(request)
                turn.respond(200, [JSON], _ENCODE(self._status()))
            case (b"GET", b"/metrics"):
                turn.respond(200, [(b"content-type", b"text/plain; version=0.0.4")], self._metrics_text())
            case (b"GET", b"/health"):
                turn.respond(200, [JSON], b'{"status":"ok"}')
            case _:
                raise RequestError(404, "There is no such admin route.", code="route_not_found")

    def _put_endpoints(self, request: Request) -> None:
        try:
            document = msgspec.json.decode(request.body, type=EndpointsDocument)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise RequestError(400, f"The body is not a list of endpoints: {exc}.") from exc
        specs = [endpoint_spec(d.name, d.url, d.model, d.revision) for d in document.endpoints]
        try:
            self._replace_endpoints(specs)
        except ValueError as exc:
            raise RequestError(400, f"The endpoints cannot be used: {exc}.") from exc


def _refuse_browsers(request: Request) -> None:
    """A page in the operator's browser could send requests to 127.0.0.1; browsers always name their origin."""
    host = (request.header(b"host") or b"").rpartition(b":")[0]
    if request.header(b"origin") is not None or host not in (b"127.0.0.1", b"localhost", b"[::1]"):
        raise RequestError(403, "The admin API takes no requests from browsers or by other host names.")
