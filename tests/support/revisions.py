"""Stands in for what revisions are made of: replicas that the test makes ready, a gateway that remembers its offers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

from inferdock.domain.errors import ModelError
from inferdock.supervisor.model_folder import Model
from inferdock.supervisor.replica import ReplicaState, replica_name


def version(number: str, *, name: str = "m", weight_bytes: int = 0, arguments: tuple[str, ...] = ()) -> Model:
    """A version in the registry that was looked up."""
    return Model(
        source=f"{name}@{number}",
        name="m",
        folder=None,
        revision=f"{number}-abc",
        max_model_len=4096,
        weight_bytes=weight_bytes,
        digest=number,
        arguments=arguments,
        reference=f"{name}@{number}",
    )


class FakeReplica:
    """Lives until it is cancelled; becomes ready when the test says so."""

    def __init__(self, index: int, revision: str, launch) -> None:
        self.index, self.name, self.revision, self.launch = index, replica_name(index), revision, launch
        self.state = ReplicaState.STOPPED
        self.url = f"http://127.0.0.1:{9000 + index}"
        self.alive = self.serves = False
        self.failed_starts = self.restarts = 0
        self.problem = ""
        self.history: list[str] = []

    async def run(self) -> None:
        self.alive = True
        if not self.serves:
            self.state = ReplicaState.STARTING
        self.history.append("started")
        await asyncio.Event().wait()

    def be_ready(self) -> None:
        self.serves, self.state = True, ReplicaState.READY

    def drain(self) -> None:
        self.serves, self.state = False, ReplicaState.DRAINING
        self.history.append("drained")

    async def stop(self, within_s: float) -> None:
        self.alive, self.state = False, ReplicaState.STOPPED
        self.history.append("stopped")


class FakeGateway:
    """Takes every offer, and remembers it; holds what the test says."""

    def __init__(self) -> None:
        self.offer = lambda: None
        self.offers: list = []
        self.answers = True
        self.in_flight: int | None = 0
        self.settings = SimpleNamespace(drain_timeout_s=30.0)

    def tell_soon(self) -> None:
        self.offers.append(self.offer())

    async def told(self, within_s: float) -> bool:
        await asyncio.sleep(0)
        if self.answers:
            self.tell_soon()
        return self.answers

    async def held(self, names: set[str]) -> int | None:
        return self.in_flight


class FakeFinder:
    """Knows some versions by their reference; what is put into ``failures`` cannot be fetched."""

    def __init__(self, *models: Model) -> None:
        self.models = {model.source: model for model in models}
        self.failures: dict[str, Exception] = {}
        self.found: list[str] = []

    def look(self, reference: str) -> Model:
        if reference not in self.models:
            raise ModelError(f"There is no {reference}.")
        return self.models[reference]

    def find(self, reference: str, cancelled) -> Model:
        self.found.append(reference)
        if reference in self.failures:
            raise self.failures[reference]
        model = self.models[reference]
        return Model(**{name: getattr(model, name) for name in model.__slots__} | {"folder": Path("/pulled")})
