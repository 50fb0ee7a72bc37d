"""Endpoint sets for tests, on a clock that only the test moves."""

from __future__ import annotations

from inferdock.balance.board import Board
from inferdock.balance.endpoints import Endpoint, EndpointSet, Lease, State, Wanted
from inferdock.balance.policy import Policy
from inferdock.config.settings import BalanceSettings
from inferdock.domain.endpoint import EndpointSpec


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def spec(name: str, *, model: str = "m", port: int = 1, revision: str = "r1") -> EndpointSpec:
    """A spec of which only the name matters."""
    return EndpointSpec(name=name, host="127.0.0.1", port=port, model=model, revision=revision)


def ready_set(
    *specs: str | EndpointSpec,
    policy: Policy | str = "least_outstanding",
    board: Board | None = None,
    clock: Clock | None = None,
    **settings: object,
) -> EndpointSet:
    """Ready endpoints; without slow start unless ``settings`` (of ``BalanceSettings``) say so."""
    chosen = BalanceSettings.model_validate({"slow_start_s": 0, **settings})
    clock = clock or Clock()
    if isinstance(policy, str):
        chosen = chosen.model_copy(update={"policy": policy})
        endpoints = EndpointSet.build(chosen, board=board, clock=clock)
    else:
        endpoints = EndpointSet(policy, board=board, settings=chosen, clock=clock)
    endpoints.replace([spec(s) if isinstance(s, str) else s for s in specs])
    for endpoint in endpoints:
        endpoint.state = State.READY
    return endpoints


def lease(endpoints: EndpointSet, wanted: Wanted | None = None, avoid: tuple[Endpoint, ...] = ()) -> Lease:
    """A lease on model ``m`` that must succeed."""
    found = endpoints.lease("m", wanted or Wanted(), avoid)
    assert found is not None
    return found


def named(endpoints: EndpointSet, name: str) -> Endpoint:
    """The endpoint of that name."""
    return next(endpoint for endpoint in endpoints if endpoint.spec.name == name)


def visit(endpoints: EndpointSet, wanted: Wanted | None = None) -> str:
    """Name of the endpoint that a request which ends at once goes to."""
    found = lease(endpoints, wanted)
    found.release()
    return found.endpoint.spec.name
