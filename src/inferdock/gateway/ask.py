"""A client's request after the pipeline's checks: what an exchange or a flight is made from."""

from __future__ import annotations

from dataclasses import dataclass

from inferdock.balance.wanted import Wanted
from inferdock.gateway.answer import Answer
from inferdock.gateway.http_server import Request
from inferdock.gateway.limits import Admission
from inferdock.keys.key import Key
from inferdock.telemetry.tracing import Trace
from inferdock.wire.openai import RequestFields

SESSION_HEADER = b"x-session-id"
"""Requests of one session stay with one replica and one revision."""


@dataclass(slots=True)  # made by position: one for each request
class Ask:
    """One request that is to be answered.

    Attributes:
        request: as it came, but for what only concerns the cache.
        answer: where the answer goes.
        request_id: checked: needs no escapes.
        route: label of the metrics.
        model: that was asked for, and exists.
        fields: of the body.
        key, admission: whose request it is, and what its limits said.
        wanted, priority, deadline: of the choice of a replica and the queue.
        trace: None while nobody traces.
    """

    request: Request
    answer: Answer
    request_id: bytes
    route: str
    model: str
    fields: RequestFields
    key: Key
    admission: Admission
    wanted: Wanted
    priority: int
    deadline: float
    trace: Trace | None
