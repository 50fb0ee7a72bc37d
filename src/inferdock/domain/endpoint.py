"""What an endpoint is told to be: the value that sources (supervisor, files, clusters) hand to the balancer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One replica that requests may be sent to.

    Attributes:
        name: unique among all endpoints, for instance ``replica-0``.
        host: address without scheme.
        port: TCP port.
        model: name that clients ask for.
        revision: identity of the weights behind it, as people and headers spell it.
        digest: of all that decides what it answers: weights, tokenizer, chat template, engine and its arguments;
            "" where the source does not know more than the revision.
    """

    name: str
    host: str
    port: int
    model: str
    revision: str
    digest: str = ""

    @property
    def identity(self) -> str:
        """What answers depend on: replicas of equal identity answer alike."""
        return self.digest or f"revision {self.revision}"

    @property
    def url(self) -> str:
        """Base URL, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"
