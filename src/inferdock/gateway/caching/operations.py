"""What ``inferdock cache`` asks of the gateway: figures, flushes, and why a request hits or misses.

One process answers for itself; the parent of several workers asks all of them and puts their answers together
(``caching.merging``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from inferdock.cache.audit import Line
from inferdock.cache.entry import Entry
from inferdock.cache.match import Match
from inferdock.cache.store import EVERYTHING, Scope
from inferdock.domain.errors import RequestError
from inferdock.gateway.caching.plan import Bypass
from inferdock.gateway.http_server import Request
from inferdock.telemetry.instruments import Counter
from inferdock.wire.openai import CHAT, COMPLETIONS
from inferdock.wire.request_head import RequestHead

if TYPE_CHECKING:
    from inferdock.gateway.caching.door import Door

NAMES = ("stats", "flush", "evict", "explain")
_ENCODE = msgspec.json.Encoder().encode


class FlushWish(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /admin/cache/flush``: of one model, of one tenant, or of all."""

    model: str = ""
    tenant: str = ""


class EvictWish(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /admin/cache/evict``: the key of an entry, as ``explain`` shows it."""

    key: str


class ExplainWish(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /admin/cache/explain``: a request as a client of this tenant would send it."""

    model: str
    body: msgspec.Raw
    tenant: str = ""
    path: Literal["/v1/chat/completions", "/v1/completions"] = "/v1/chat/completions"


class Operations:
    """Answers for one process."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def answer(self, name: str, body: bytes) -> bytes:
        """The document for one of :data:`NAMES`, as JSON.

        Raises:
            RequestError: 400, the body is not what the route takes; 404, there is no such route.
        """
        match name:
            case "stats":
                document = await self.stats()
            case "flush":
                document = await self._flush(_read(body or b"{}", FlushWish))
            case "evict":
                document = await self._evict(_read(body, EvictWish))
            case "explain":
                document = await self._explain(_read(body, ExplainWish))
            case _:
                raise RequestError(404, "There is no such admin route.", code="route_not_found")
        return _ENCODE(document)

    # -- Figures ---------------------------------------------------------------------------------------------

    async def stats(self) -> dict[str, Any]:
        """What the process holds and has done."""
        door, cache, metrics = self._door, self._door.cache, self._door.metrics
        entries, size, vectors = cache.size()
        tier = cache.tier
        now = door.now()
        return {
            "entries": entries,
            "bytes": size,
            "vectors": vectors,
            "requests": _sums(metrics.requests),
            "hits": _sums(metrics.hits),
            "bypasses": _sums(metrics.bypasses),
            "saved_tokens": metrics.saved_tokens.total(),
            "saved_seconds": metrics.saved_seconds.total(),
            "evictions": _sums(metrics.evictions),
            "semantic": {
                "state": tier.state if tier is not None else "off",
                "problem": tier.problem if tier is not None else "",
                "max_tokens": tier.fast_tokens if tier is not None else 0,
            },
            "redis": await cache.shared_stats(),
            "audits": [_audit_row(line) for audit in cache.audits for line in audit.report(now)],
        }

    # -- Invalidation ----------------------------------------------------------------------------------------

    async def _flush(self, wish: FlushWish) -> dict[str, Any]:
        scopes = [Scope("model", wish.model)] if wish.model else []
        scopes += [Scope("tenant", wish.tenant)] if wish.tenant else []
        for scope in scopes or [EVERYTHING]:
            await self._door.cache.flush(scope)
        return {
            "flushed": [scope.kind if not scope.name else f"{scope.kind} {scope.name}" for scope in scopes] or ["all"]
        }

    async def _evict(self, wish: EvictWish) -> dict[str, Any]:
        try:
            key = bytes.fromhex(wish.key)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise RequestError(
                400, "The key must be 64 hex digits, as `inferdock cache explain` shows it.", param="key"
            )
        return {"evicted": await self._door.cache.evict(key)}

    # -- Explanation -----------------------------------------------------------------------------------------

    async def _explain(self, wish: ExplainWish) -> dict[str, Any]:
        path = wish.path.encode()
        assert path in (CHAT, COMPLETIONS)
        head = RequestHead(b"POST", path, [], http10=False, keep_alive=True)
        plan = self._door.plan(Request(head, bytes(wish.body), 0.0), {}, wish.model, wish.tenant)
        if plan is None:
            return {"outcome": "off", "reason": "this model does not use the cache"}
        if isinstance(plan, Bypass):
            return {"outcome": "bypass", "reason": plan.reason}
        shown = {
            "key": plan.key.hex(),
            "partition": plan.partition.hex(),
            "tenant": plan.tenant,
            "identity": plan.identity.replace("\n", " "),
            "text": plan.text,
        }
        entry = self._door.cache.get(plan.key)
        if entry is not None:
            return {**shown, "outcome": "hit", "tier": "exact", "reason": "equal", **self._entry(entry)}
        found = await self._door.cache.find(plan.question(wish.model))
        if found.match is not None:
            shown |= self._match(found.match)
        if found.entry is None:
            reason = found.match.reason if found.match is not None else "no equal request, and none that is compared"
            return {**shown, "outcome": "miss", "reason": reason}
        return {**shown, "outcome": "hit", "tier": found.tier, **self._entry(found.entry)}

    def _entry(self, entry: Entry) -> dict[str, Any]:
        now = self._door.wall()
        return {
            "revision": entry.revision,
            "age_s": round(now - entry.created_at, 1),
            "expires_in_s": round(entry.expires_at - now, 1),
            "answer": entry.answer.text[:200],
        }

    def _match(self, match: Match) -> dict[str, Any]:
        return {
            "reason": match.reason,
            "detail": match.detail,
            "entries": match.entries,
            "score": round(match.score, 4),
            "threshold": round(match.threshold, 4),
            "candidate": match.candidate_text or None,
            "candidate_key": match.candidate.hex() if match.candidate is not None else None,
        }


def _sums(counter: Counter) -> dict[str, float]:
    """By the last label, over all others."""
    sums: dict[str, float] = {}
    for labels, (count,) in counter.samples():
        sums[labels[-1]] = sums.get(labels[-1], 0) + count
    return sums


def _audit_row(line: Line) -> dict[str, Any]:
    interval = line.interval
    return {
        "model": line.model,
        "partitions": line.size,
        "wrong": None if interval is None else [round(x, 5) for x in (interval.low, interval.point, interval.high)],
        "unsure": line.unsure,
        "strictness": line.action.kind,
        "reason": line.action.reason,
    }


def _read(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise RequestError(400, f"The body is not what this route takes: {exc}.") from exc
