"""What a request wants of the choice of its endpoint: the value between the gateway's pipeline and the balancer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """Wishes and limits of one request. Making one costs about 0.6 µs: where nothing differs, use one for all.

    Attributes:
        revision: only endpoints of this revision will do (a stream that is resumed); None: traffic weights decide.
        session: value of the client's session header; equal values go to the same endpoint while it can take them.
        prefix: leading bytes of the prompt as the body spells it, for the ``prefix`` policy; may be empty, and what
            is beyond :attr:`EndpointSet.prefix_bytes` is ignored.
        limit: most requests that the gateway, all workers together, holds on one endpoint; None: no limit.
    """

    revision: str | None = None
    session: bytes | None = None
    prefix: bytes = b""
    limit: int | None = None


ANY = Wanted()
"""No wishes."""
