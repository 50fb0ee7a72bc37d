"""The set of endpoints, their live state, and leases on them.

The set is replaced declaratively: a source says what should be there, and endpoints that are gone drain (they take
no new requests; leases that are out stay valid). One event loop owns it; nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

from inferdock.balance.policy import Policy
from inferdock.domain.endpoint import EndpointSpec


class State(StrEnum):
    """Whether an endpoint may take requests."""

    UNREADY = "unready"
    READY = "ready"
    DRAINING = "draining"


class Endpoint:
    """One replica as the balancer sees it.

    Attributes:
        spec: what it was told to be.
        state: see :class:`State`.
        in_flight: requests that we hold on it.
        running, waiting: the engine's own figures at the last health check.
        kv_cache_usage_ratio: share of KV cache in use, 0-1; None before the first check.
        max_model_len: longest prompt plus answer in tokens, once known.
        failures: health checks or attempts failed in a row.
        served: requests leased so far.
    """

    __slots__ = (
        "failures",
        "in_flight",
        "kv_cache_usage_ratio",
        "max_model_len",
        "running",
        "served",
        "spec",
        "state",
        "waiting",
    )

    def __init__(self, spec: EndpointSpec) -> None:
        self.spec = spec
        self.state = State.UNREADY
        self.in_flight = 0
        self.running = 0
        self.waiting = 0
        self.kv_cache_usage_ratio: float | None = None
        self.max_model_len: int | None = None
        self.failures = 0
        self.served = 0

    @property
    def outstanding(self) -> int:
        """Requests that stand before a new one: ours, and those that others queue in the engine."""
        return self.in_flight + self.waiting


class Lease:
    """The right to send one request to one endpoint; :meth:`release` gives it back, once."""

    __slots__ = ("_held", "endpoint")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._held = True
        endpoint.in_flight += 1
        endpoint.served += 1

    def release(self) -> None:
        """Give the lease back; further calls do nothing."""
        if self._held:
            self._held = False
            self.endpoint.in_flight -= 1


class EndpointSet:
    """All endpoints, by model, with a policy that picks among the ready ones."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._by_name: dict[str, Endpoint] = {}
        self._by_model: dict[str, list[Endpoint]] = {}

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._by_name.values())

    @property
    def models(self) -> list[str]:
        """Models with at least one endpoint, ready or not, in order of arrival."""
        return list(self._by_model)

    def of_model(self, model: str) -> list[Endpoint]:
        """Every endpoint of a model; empty when the model is unknown."""
        return self._by_model.get(model, [])

    def any_ready(self) -> bool:
        """Whether some endpoint may take requests."""
        return any(endpoint.state is State.READY for endpoint in self)

    def replace(self, specs: Iterable[EndpointSpec]) -> list[Endpoint]:
        """Make the set equal to ``specs`` and return the endpoints that are gone, now draining.

        An endpoint whose spec did not change keeps its state and its leases. Names must be unique.

        Raises:
            ValueError: two specs share a name.
        """
        wanted = list(specs)
        if len({spec.name for spec in wanted}) != len(wanted):
            raise ValueError("two endpoints share a name")
        old = self._by_name
        self._by_name = {}
        for spec in wanted:
            known = old.get(spec.name)
            self._by_name[spec.name] = known if known is not None and known.spec == spec else Endpoint(spec)
        self._by_model = {}
        for endpoint in self:
            self._by_model.setdefault(endpoint.spec.model, []).append(endpoint)
        gone = [endpoint for name, endpoint in old.items() if self._by_name.get(name) is not endpoint]
        for endpoint in gone:
            endpoint.state = State.DRAINING
        return gone

    def lease(self, model: str, *, avoid: Iterable[Endpoint] = ()) -> Lease | None:
        """Choose a ready endpoint of ``model``.

        Args:
            model: name that the client asked for.
            avoid: endpoints that already failed this request; taken only if nothing else is ready.

        Returns:
            A lease, or None when no endpoint of the model is ready.
        """
        ready = [endpoint for endpoint in self.of_model(model) if endpoint.state is State.READY]
        if not ready:
            return None
        fresh = [endpoint for endpoint in ready if endpoint not in avoid] if avoid else ready
        return Lease(self._policy.pick(fresh or ready))
