"""The routes that the gateway answers itself: health, readiness, metrics and the list of models."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import msgspec

from inferdock.balance.endpoints import EndpointSet, State
from inferdock.domain.errors import RequestError
from inferdock.gateway.auth import model_not_found
from inferdock.gateway.http_server import Request, Turn
from inferdock.gateway.metrics import UNKNOWN, GatewayMetrics
from inferdock.keys.key import ANONYMOUS, Key
from inferdock.wire.http1 import Header

METRICS_TYPE: Header = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
OPENMETRICS = b"application/openmetrics-text"
OPENMETRICS_TYPE: Header = (b"content-type", OPENMETRICS + b"; version=1.0.0; charset=utf-8")
JSON: Header = (b"content-type", b"application/json")
METRICS_PATH = b"/metrics"
MODELS_PATH = b"/v1/models"
_ENCODE = msgspec.json.Encoder().encode
_NUMBER = re.compile(rb"[01](\.[0-9]{0,3})?")


class OwnRoutes:
    """Answers ``/health``, ``/ready``, ``/metrics`` and ``/v1/models``."""

    def __init__(
        self,
        *,
        endpoints: EndpointSet,
        metrics: GatewayMetrics,
        is_draining: Callable[[], bool],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._metrics = metrics
        self._is_draining = is_draining
        self._started = int(wall_clock())
        self._answers: dict[bytes, Callable[[], tuple[int, list[Header], bytes]]] = {
            b"/health": self._health,
            b"/ready": self._ready,
        }

    def answers(self, request: Request) -> bool:
        """Whether the path is one of ours."""
        path = request.path
        return path in self._answers or path in (METRICS_PATH, MODELS_PATH) or path.startswith(b"/v1/models/")

    def answer(self, request: Request, turn: Turn, request_id: bytes, key: Key = ANONYMOUS) -> None:
        """Answer a request for which :meth:`answers` is true, and count it; metrics may be answered later.

        Raises:
            RequestError: 405 for another method than GET or HEAD, 404 for an unknown model.
        """
        if request.method not in (b"GET", b"HEAD"):
            raise RequestError(405, "This route only takes GET and HEAD.", code="method_not_allowed")
        bodiless = request.method == b"HEAD"

        def respond(status: int, fields: list[Header], body: bytes) -> None:
            self._metrics.requests.cell(UNKNOWN, "", "own", str(status)).value += 1
            turn.respond(status, [*fields, (b"x-request-id", request_id)], body, bodiless=bodiless)

        if request.path == METRICS_PATH:
            openmetrics = wants_openmetrics(request)
            kind = OPENMETRICS_TYPE if openmetrics else METRICS_TYPE
            self._metrics.request_text(openmetrics, lambda text: respond(*_metrics_answer(text, kind)))
            return
        if request.path == MODELS_PATH:
            respond(200, [JSON], self._models(key))
            return
        make = self._answers.get(request.path)
        if make is None:
            name = request.path.removeprefix(b"/v1/models/").decode("utf-8", "replace")
            if not self._endpoints.knows(name) or not key.may_use(name):
                raise model_not_found(name)
            respond(200, [JSON], _ENCODE(self._card(name)))
        else:
            respond(*make())

    def _health(self) -> tuple[int, list[Header], bytes]:
        return 200, [JSON], b'{"status":"ok"}'

    def _ready(self) -> tuple[int, list[Header], bytes]:
        ready = sum(endpoint.state is State.READY for endpoint in self._endpoints)
        if self._is_draining():
            return 503, [JSON, (b"retry-after", b"1")], b'{"status":"draining"}'
        if not ready:
            return 503, [JSON, (b"retry-after", b"2")], b'{"status":"no ready replica"}'
        return 200, [JSON], _ENCODE({"status": "ready", "endpoints": ready})

    def _models(self, key: Key) -> bytes:
        cards = [self._card(model) for model in self._endpoints.models if key.may_use(model)]
        return _ENCODE({"object": "list", "data": cards})

    def _card(self, model: str) -> dict[str, object]:
        endpoints = self._endpoints.of_model(model)
        lengths = [e.max_model_len for e in endpoints if e.max_model_len is not None]
        return {
            "id": model,
            "object": "model",
            "created": self._started,
            "owned_by": "inferdock",
            "parent": None,
            "max_model_len": min(lengths, default=None),
            "revisions": sorted({e.spec.revision for e in endpoints}),
        }


def wants_openmetrics(request: Request) -> bool:
    """Whether the client would rather have OpenMetrics than the older text format, which is what it gets else."""
    shares = {OPENMETRICS: 0.0, b"text/plain": 0.0}
    for entry in (request.header(b"accept") or b"").lower().split(b","):
        kind, *parameters = (part.strip() for part in entry.split(b";"))
        if kind in shares:
            shares[kind] = max(shares[kind], _weight(parameters))
    return shares[OPENMETRICS] > 0 and shares[OPENMETRICS] >= shares[b"text/plain"]


def _weight(parameters: list[bytes]) -> float:
    """``q`` of an entry in ``Accept``, 0-1; 0 where it cannot be read."""
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            number = _NUMBER.fullmatch(value.strip())
            return float(number.group()) if number else 0.0
    return 1.0


def _metrics_answer(text: bytes | None, kind: Header) -> tuple[int, list[Header], bytes]:
    if text is None:
        return 503, [JSON, (b"retry-after", b"1")], b'{"status":"the figures of all workers cannot be had now"}'
    return 200, [kind], text
