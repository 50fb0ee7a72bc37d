"""What the servers behind the console share: the feed of live documents, and answers in sentences."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from inferdock.app.console.records import ENCODE
from inferdock.domain.errors import InferdockError, RequestError

EVERY_S: Final = 1.0
MOST_VIEWERS: Final = 20


class Feed:
    """Sends a document a second to all pages that are open; while none is, nothing is looked at.

    Args:
        document: makes it.
    """

    def __init__(self, document: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._document = document
        self._viewers: set[asyncio.Queue[bytes]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events until the page is closed.

        Raises:
            RequestError: 503, too many pages are open.
        """
        if len(self._viewers) >= MOST_VIEWERS:
            raise RequestError(503, f"{MOST_VIEWERS} pages are open already.", code="too_many_pages")
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=2)
        self._viewers.add(queue)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            while True:
                await response.write(b"event: live\ndata: %b\n\n" % await queue.get())
        except ConnectionError:
            return response
        finally:
            self._viewers.discard(queue)

    async def _watch(self) -> None:
        """One look a second, for all pages together, until none is left; a slow page misses some."""
        while self._viewers:
            data = ENCODE(await self._document())
            for queue in self._viewers:
                with contextlib.suppress(asyncio.QueueFull):
                    queue.put_nowait(data)
            await asyncio.sleep(EVERY_S)

    async def close(self) -> None:
        """Stop looking."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)


def json_answer(document: dict[str, Any], status: int = 200) -> web.Response:
    """A document as JSON."""
    return web.Response(body=ENCODE(document), status=status, content_type="application/json")


@web.middleware
async def in_sentences(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """Errors as the page shows them."""
    try:
        answer: web.StreamResponse = await handler(request)
    except RequestError as exc:
        return json_answer({"error": {"message": exc.message, "code": exc.code}}, exc.status)
    except InferdockError as exc:
        return json_answer({"error": {"message": str(exc), "code": "cannot_be_read"}}, 503)
    except web.HTTPException as exc:
        return json_answer({"error": {"message": "The console asks nothing of this kind.", "code": "bad"}}, exc.status)
    return answer
