"""What a copy of a request is made of."""

from __future__ import annotations

from dataclasses import dataclass

from inferdock.gateway.ask import Ask
from inferdock.gateway.waiting_room import LAST
from inferdock.wire.openai import STREAMING_PATHS, USAGE_WISH, RequestFields, raw, raw_number, with_wishes
from inferdock.wire.request_head import RequestHead


@dataclass(frozen=True, slots=True)
class Order:
    """One request that is to be copied.

    Attributes:
        head: of the client's request.
        body: as the copy carries it.
        request_id: of the copy.
        model: that was asked for.
        revision: that is to get it.
        stream: the client wants events.
        comparable: the answer hangs on nothing but the model and the request.
    """

    head: RequestHead
    body: bytes
    request_id: bytes
    model: str
    revision: str
    stream: bool
    comparable: bool


def may_be_copied(ask: Ask) -> bool:
    """Chats and completions do nothing but answer; of everything else nobody knows what it does twice."""
    return ask.request.path in STREAMING_PATHS and not raw(ask.fields.kv_transfer_params) and ask.priority < LAST


def order_of(ask: Ask, revision: str) -> Order:
    """The copy of a request that is about to be sent, from its body as the client wrote it."""
    fields, body = ask.fields, ask.request.body
    if fields.stream and fields.stream_options is None:
        body = with_wishes(body, USAGE_WISH)
    return Order(
        head=ask.request.head,
        body=body,
        request_id=ask.request_id + b"-shadow",
        model=ask.model,
        revision=revision,
        stream=bool(fields.stream),
        comparable=_repeatable(fields),
    )


def _repeatable(fields: RequestFields) -> bool:
    return raw_number(fields.temperature) == 0 or raw_number(fields.seed) is not None
