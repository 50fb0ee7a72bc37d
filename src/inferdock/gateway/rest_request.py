"""Finds out what to ask another replica for when a stream is to go on there; asks it for texts where that is needed."""

from __future__ import annotations

import asyncio
from typing import Protocol

from inferdock.balance.endpoints import Endpoint
from inferdock.gateway.relay import FollowedStream
from inferdock.gateway.seam import text_of_ids
from inferdock.gateway.upstream import UpstreamPool
from inferdock.wire.continuation import Continuation, NotResumable


class Asker(Protocol):
    """Who wants to go on."""

    def rest_ready(self, rest: Continuation, lead: bytes) -> None:
        """Ask for this, and write ``lead`` to the client before. ``rest.ended``: nothing is to be asked."""

    def rest_failed(self, reason: str) -> None:
        """This replica could not say what has to be known; another one may."""

    def rest_impossible(self, reason: str) -> None:
        """The stream cannot go on anywhere."""


class RestRequest:
    """One attempt to go on; answers at once, or later when the replica has to be asked for a text."""

    __slots__ = ("_asker", "_model", "_pool", "_relay", "_task")

    def __init__(self, asker: Asker, relay: FollowedStream, pool: UpstreamPool, model: str) -> None:
        self._asker = asker
        self._relay = relay
        self._pool = pool
        self._model = model
        self._task: asyncio.Task[None] | None = None

    def make(self, endpoint: Endpoint, seam: str | None = None) -> None:
        """Make the request for ``endpoint``; ``seam`` is the text of all ids, once that is known."""
        relay = self._relay
        try:
            rest = relay.rest_request(endpoint.max_model_len)
            if relay.needs_seam and seam is None and not rest.replay and not rest.ended:
                self._task = self._pool.loop.create_task(self._find_seam(endpoint))
                return
            guard = relay.seam(seam) if seam is not None and not rest.replay and not rest.ended else None
        except NotResumable as exc:
            self._asker.rest_impossible(str(exc))
            return
        lead = b"" if rest.ended else relay.go_on(replay=rest.replay, guard=guard)
        self._asker.rest_ready(rest, lead)

    async def _find_seam(self, endpoint: Endpoint) -> None:
        try:
            text = await text_of_ids(self._pool, endpoint, self._relay.tracker, self._model)
        except NotResumable as exc:
            self._task = None
            self._asker.rest_failed(str(exc))
            return
        self._task = None
        self.make(endpoint, text)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
