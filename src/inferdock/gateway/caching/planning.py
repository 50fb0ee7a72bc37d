"""What the cache makes of a request, before it is admitted: may it be cached, under which key, on which terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from inferdock.balance.endpoints import EndpointSet
from inferdock.cache.canonical import KINDS, Refusal, read
from inferdock.cache.directives import opted_out, without_aliases
from inferdock.cache.policy import CachePolicy, why_not
from inferdock.cache.response_cache import ResponseCache
from inferdock.cache.scope import exact_key, partition
from inferdock.domain.endpoint import EndpointSpec
from inferdock.gateway.ask import SESSION_HEADER
from inferdock.gateway.caching.plan import Bypass, Plan, Terms
from inferdock.gateway.http_server import Request

if TYPE_CHECKING:
    from inferdock.config.settings import CacheSettings, GatewaySettings

_MAX_MODELS = 4096


class Planner:
    """Makes plans by the settings of the moment."""

    def __init__(self, *, endpoints: EndpointSet, cache: ResponseCache, chance: Callable[[], float]) -> None:
        """``chance``: from 0 to 1; decides among the revisions that might answer."""
        self._endpoints = endpoints
        self._cache = cache
        self._chance = chance

    def configure(self, settings: CacheSettings, gateway: GatewaySettings) -> None:
        """Use these from now on."""
        self._settings = settings
        self._models = gateway.models
        self._terms: dict[str, Terms | None] = {}

    def terms(self, model: str) -> Terms | None:
        """How a model uses the cache, None when it does not."""
        if model not in self._terms:
            if len(self._terms) > _MAX_MODELS:
                self._terms.clear()
            self._terms[model] = self._make_terms(model)
        return self._terms[model]

    def _make_terms(self, model: str) -> Terms | None:
        common, route = self._settings, self._models.get(model)
        own = route.cache if route is not None else None

        def chosen(name: str) -> object:
            value = getattr(own, name) if own is not None else None
            return getattr(common, name) if value is None else value

        if not chosen("enabled"):
            return None
        return Terms(
            policy=CachePolicy(
                any_temperature=bool(chosen("any_temperature")),
                semantic=bool(chosen("semantic")),
                max_messages=common.max_messages,
                max_prompt_bytes=common.max_prompt_bytes,
                max_answer_bytes=common.max_answer_bytes,
            ),
            threshold=float(chosen("threshold")),  # type: ignore[arg-type]
            ttl_s=float(chosen("ttl_s")),  # type: ignore[arg-type]
            ttl_jitter=common.ttl_jitter,
            wrong_bound=float(chosen("wrong_bound")),  # type: ignore[arg-type]
        )

    def plan(self, request: Request, named: Mapping[bytes, bytes], model: str, tenant: str) -> Plan | Bypass | None:
        """What the cache makes of a request; None when its model or route does not use the cache.

        Raises:
            RequestError: 400, a field of the body that is for the cache is wrong.
        """
        if request.method != b"POST" or request.path not in KINDS:
            return None
        terms = self.terms(model)
        if terms is None:
            return None
        canonical = read(request.body, request.path)
        if isinstance(canonical, Refusal):
            return Bypass(canonical.reason, request.body)
        directives = opted_out(_all(request, named, b"cache-control"), named.get(b"pragma"), canonical.body)
        body = without_aliases(request.body) if canonical.aliased else request.body
        if directives.no_store and not directives.only_if_cached:
            return Bypass(directives.reason, body)
        reason = why_not(canonical, terms.policy)
        if not reason and request.target != request.path:
            reason = "query"
        if not reason and canonical.stream and request.http10:
            reason = "http10"
        session = named.get(SESSION_HEADER)
        spec = None if reason else self._endpoints.likely(model, session, self._chance())
        if spec is None or not (spec.digest or spec.revision):
            return Bypass(reason or "revision", body)
        identity = identity_of(spec)
        return Plan(
            request=canonical,
            directives=directives,
            terms=terms,
            body=body,
            tenant=tenant,
            identity=identity,
            key=exact_key(tenant, identity, canonical),
            partition=partition(tenant, identity, canonical, self._cache.fingerprint),
            epoch=self._cache.epoch(tenant, model),
        )


def identity_of(spec: EndpointSpec) -> str:
    """What answers depend on, besides the request."""
    return f"{spec.model}\n{spec.identity}"


def _all(request: Request, named: Mapping[bytes, bytes], name: bytes) -> bytes | None:
    """All values of a header that may come several times; they are one list."""
    if name not in named:
        return None
    return b", ".join([value for field, value in request.headers if field == name])
