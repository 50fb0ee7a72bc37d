"""The admin API, on its own port at 127.0.0.1: what the gateway holds, its endpoints, its cache, and its reload.

``PUT /admin/endpoints`` replaces the whole set, so a supervisor that says the same thing twice changes nothing; so
does ``PUT /admin/figures``, which is what ``/metrics`` says of the platform.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from inferdock.balance.endpoints import Endpoint
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import InferdockError, RequestError
from inferdock.domain.shadow import Shadow
from inferdock.gateway.answer import respond_error
from inferdock.gateway.http_server import ClientConnection, Limits, Request, Turn
from inferdock.gateway.listening import cannot_listen
from inferdock.gateway.own_routes import JSON, METRICS_TYPE, OPENMETRICS_TYPE, wants_openmetrics
from inferdock.telemetry.published import Figure

_ENCODE = msgspec.json.Encoder().encode
NO_ID = b"admin"


class EndpointDocument(msgspec.Struct, forbid_unknown_fields=True):
    """One endpoint as the admin API spells it."""

    name: str
    url: str
    model: str
    revision: str = ""
    digest: str = ""


class EndpointsDocument(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /admin/endpoints``."""

    endpoints: list[EndpointDocument]
    models: list[str] = []


class ShadowDocument(msgspec.Struct, forbid_unknown_fields=True):
    """Which share of the requests is copied, and to which revision."""

    revision: str
    share: float


class TrafficDocument(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /admin/traffic``: all that holds from now on. Without weights all endpoints share, without a
    shadow nothing is copied."""

    model: str
    weights: dict[str, float]
    shadow: ShadowDocument | None = None


class FiguresDocument(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /admin/figures``: all that is shown from now on."""

    figures: list[Figure]


def endpoint_spec(name: str, url: str, model: str, revision: str, digest: str = "") -> EndpointSpec:
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
    return EndpointSpec(name=name, host=parts.hostname, port=port or 80, model=model, revision=revision, digest=digest)


def endpoint_row(endpoint: Endpoint) -> dict[str, object]:
    """One endpoint as the admin API shows it."""
    spec = endpoint.spec
    return {
        "name": spec.name,
        "url": spec.url,
        "model": spec.model,
        "revision": spec.revision,
        "digest": spec.digest,
        "state": str(endpoint.state),
        "in_flight": endpoint.held,
        "running": endpoint.running,
        "waiting": endpoint.waiting,
        "kv_cache_usage_ratio": endpoint.kv_cache_usage_ratio,
    }


class AdminApi(Protocol):
    """What the admin port shows and moves: a gateway of one process, or the parent of several."""

    def when_fresh(self, ready: Callable[[], None]) -> None:
        """Call ``ready``, now or soon, when figures are as fresh as they can be had."""

    def status(self) -> dict[str, object]:
        """Everything in one document."""

    def metrics_text(self, *, openmetrics: bool = False) -> bytes:
        """The Prometheus text, or OpenMetrics."""

    def replace_endpoints(self, specs: list[EndpointSpec], models: Iterable[str] = ()) -> None:
        """Use exactly these; ValueError when they cannot be used."""

    def set_traffic(self, model: str, weights: Mapping[str, float], shadow: Shadow | None = None) -> None:
        """Divide requests among revisions, and copy some; ValueError when the weights make no sense."""

    def publish(self, figures: Iterable[Figure]) -> None:
        """Show these in ``/metrics``; ValueError when they are none of the platform's."""

    def ask_cache(self, name: str, body: bytes, reply: Callable[[bytes | RequestError], None]) -> None:
        """Answer a question of ``inferdock cache``, now or later, as JSON."""

    def reload(self) -> dict[str, object]:
        """Read the configuration again; InferdockError when it cannot be used, and then nothing has changed."""


class Admin:
    """Handler of the admin port."""

    def __init__(self, api: AdminApi) -> None:
        self._api = api

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
                self._status(turn)
            case (b"PUT", b"/admin/endpoints"):
                self._put_endpoints(request)
                self._status(turn)
            case (b"PUT", b"/admin/traffic"):
                self._put_traffic(request)
                self._status(turn)
            case (b"PUT", b"/admin/figures"):
                self._put_figures(request)
                turn.respond(200, [JSON], b"{}")
            case (b"POST", b"/admin/reload"):
                turn.respond(200, [JSON], _ENCODE(self._reload()))
            case (b"GET", b"/admin/cache"):
                self._cache("stats", request, turn)
            case (b"POST", b"/admin/cache/flush" | b"/admin/cache/evict" | b"/admin/cache/explain"):
                self._cache(request.path.rpartition(b"/")[2].decode(), request, turn)
            case (b"GET", b"/metrics"):
                kind = OPENMETRICS_TYPE if wants_openmetrics(request) else METRICS_TYPE
                self._api.when_fresh(
                    lambda: turn.respond(200, [kind], self._api.metrics_text(openmetrics=kind is OPENMETRICS_TYPE))
                )
            case (b"GET", b"/health"):
                turn.respond(200, [JSON], b'{"status":"ok"}')
            case _:
                raise RequestError(404, "There is no such admin route.", code="route_not_found")

    def _status(self, turn: Turn) -> None:
        self._api.when_fresh(lambda: turn.respond(200, [JSON], _ENCODE(self._api.status())))

    def _cache(self, name: str, request: Request, turn: Turn) -> None:
        def reply(answer: bytes | RequestError) -> None:
            if isinstance(answer, RequestError):
                respond_error(turn, answer, NO_ID)
            else:
                turn.respond(200, [JSON], answer)

        self._api.ask_cache(name, request.body, reply)

    def _reload(self) -> dict[str, object]:
        try:
            return self._api.reload()
        except InferdockError as exc:
            raise RequestError(400, f"Nothing has changed: {exc}", code="bad_configuration") from exc

    def _put_endpoints(self, request: Request) -> None:
        try:
            document = msgspec.json.decode(request.body, type=EndpointsDocument)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise RequestError(400, f"The body is not a list of endpoints: {exc}.") from exc
        specs = [endpoint_spec(d.name, d.url, d.model, d.revision, d.digest) for d in document.endpoints]
        try:
            self._api.replace_endpoints(specs, document.models)
        except ValueError as exc:
            raise RequestError(400, f"The endpoints cannot be used: {exc}.") from exc

    def _put_figures(self, request: Request) -> None:
        try:
            self._api.publish(msgspec.json.decode(request.body, type=FiguresDocument).figures)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            raise RequestError(400, f"The figures cannot be shown: {exc}.") from exc

    def _put_traffic(self, request: Request) -> None:
        try:
            document = msgspec.json.decode(request.body, type=TrafficDocument)
            asked = document.shadow
            shadow = Shadow(asked.revision, asked.share) if asked is not None else None
            self._api.set_traffic(document.model, document.weights, shadow)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise RequestError(400, f"The body is no traffic: {exc}.") from exc
        except ValueError as exc:
            raise RequestError(400, f"The traffic cannot be divided so: {exc}.") from exc


def _refuse_browsers(request: Request) -> None:
    """A page in the operator's browser could send requests to 127.0.0.1; browsers always name their origin."""
    host = (request.header(b"host") or b"").rpartition(b":")[0]
    if request.header(b"origin") is not None or host not in (b"127.0.0.1", b"localhost", b"[::1]"):
        raise RequestError(403, "The admin API takes no requests from browsers or by other host names.")


class AdminPort:
    """Listens for the admin API.

    Attributes:
        port: in use once :meth:`listen` has returned.
    """

    def __init__(self, api: AdminApi, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = Admin(api)
        self._limits = limits
        self._loop = loop
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self, port: int) -> None:
        """Take the port.

        Raises:
            ResourceError: it is taken.
        """
        host = "127.0.0.1"

        def connection() -> ClientConnection:
            return ClientConnection(self._handler, self._limits, self._connections, self._loop)

        try:
            self._server = await self._loop.create_server(connection, host, port)
        except OSError as exc:
            raise cannot_listen(host, port, exc) from exc
        self.port = int(self._server.sockets[0].getsockname()[1])

    def check_time(self) -> None:
        """Chore of about once a second: closes idle connections and slow senders."""
        for connection in list(self._connections):
            connection.check_time(self._loop.time())

    def close(self) -> None:
        """Stop."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
