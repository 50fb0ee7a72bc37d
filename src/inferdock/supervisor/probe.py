"""HTTP questions that the supervisor asks of replicas and of the gateway's admin port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from inferdock.domain.shadow import Shadow
from inferdock.telemetry import names
from inferdock.telemetry.published import Figure
from inferdock.wire.prometheus_text import read_sums


class Probe:
    """A small HTTP client; every method answers None or False instead of raising when nobody is there."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def healthy(self, url: str) -> bool:
        """Whether ``GET /health`` answers 200."""
        try:
            async with self._session.get(f"{url}/health", timeout=_limit(5)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def serves(self, url: str, model: str) -> bool:
        """Whether the replica lists ``model`` and completes one token with it."""
        body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        try:
            async with self._session.get(f"{url}/v1/models", timeout=_limit(10)) as response:
                listed = [card.get("id") for card in (await response.json()).get("data", [])]
            if model not in listed:
                return False
            async with self._session.post(f"{url}/v1/completions", json=body, timeout=_limit(120)) as response:
                # 404: a model that does not generate (embeddings) has no such route; its health must do.
                return response.status in (200, 404)
        except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, AttributeError):
            return False

    async def put_endpoints(self, admin_url: str, endpoints: list[dict[str, str]], models: list[str]) -> bool:
        """Tell the gateway its endpoints, and the models that are served even while they have none; False when it
        did not take them."""
        body = {"endpoints": endpoints, "models": models}
        try:
            async with self._session.put(f"{admin_url}/admin/endpoints", json=body, timeout=_limit(5)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def put_traffic(
        self, admin_url: str, model: str, weights: Mapping[str, float], shadow: Shadow | None = None
    ) -> bool:
        """Tell the gateway how to divide a model's requests among its revisions, and which to copy; False when it did
        not take it."""
        copied = {"revision": shadow.revision, "share": shadow.share} if shadow is not None else None
        body = {"model": model, "weights": dict(weights), "shadow": copied}
        try:
            async with self._session.put(f"{admin_url}/admin/traffic", json=body, timeout=_limit(5)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def put_figures(self, admin_url: str, figures: Sequence[Figure]) -> int | None:
        """Have the gateway show these figures of the platform; its status, None when it does not answer."""
        body = msgspec.json.encode({"figures": figures})
        try:
            async with self._session.put(f"{admin_url}/admin/figures", data=body, timeout=_limit(5)) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def requests_in(self, url: str) -> int | None:
        """Requests that a replica's engine runs or lets wait; None when it does not say."""
        try:
            async with self._session.get(f"{url}/metrics", timeout=_limit(5)) as response:
                text = (await response.read()).decode("utf-8", "replace")
        except (aiohttp.ClientError, TimeoutError):
            return None
        sums = read_sums(text, (names.ENGINE_RUNNING, names.ENGINE_WAITING))
        return round(sum(sums.values())) if names.ENGINE_RUNNING in sums else None

    async def reload_gateway(self, admin_url: str) -> dict[str, Any] | None:
        """Have the gateway read its configuration again; its answer, None when it did not take it."""
        try:
            async with self._session.post(f"{admin_url}/admin/reload", timeout=_limit(10)) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return answer if response.status == 200 and isinstance(answer, dict) else None

    async def gateway_status(self, admin_url: str) -> dict[str, Any] | None:
        """The gateway's status, None when it does not answer."""
        try:
            async with self._session.get(f"{admin_url}/admin/status", timeout=_limit(2)) as response:
                status = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return status if isinstance(status, dict) else None


def _limit(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)
