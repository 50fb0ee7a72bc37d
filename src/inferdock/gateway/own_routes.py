"""The routes that the gateway answers itself: health, readiness, metrics and the list of models."""

from __future__ import annotations

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
JSON: Header = (b"content-type", b"application/json")
METRICS_PATH = b"/metrics"
MODELS_PATH = b"/v1/models"
_ENCODE = msgspec.json.Encoder().encode


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
            self._metrics.request_text(lambda text: respond(*_metrics_answer(text)))
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


def _metrics_answer(text: bytes | None) -> tuple[int, list[Header], bytes]:
    if text is None:
        return 503, [JSON, (b"retry-after", b"1")], b'{"status":"the figures of all workers cannot be had now"}'
    return 200, [METRICS_TYPE], text
