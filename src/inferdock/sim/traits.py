"""What a model's folder says about how its simulated replicas behave: a file ``sim.json`` beside the weights.

So two versions of a model differ under ``inferdock up --engine sim`` as versions do: in their answers, in how fast they
are, in what they get wrong. What stands there wins over the command line, which is the same for all versions::

    {"weights": 2, "ttft_s": 0.4, "itl_s": 0.02, "startup_s": 1, "faults": ["status:500%10"]}
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inferdock.domain.errors import ModelError
from inferdock.sim.options import MOST_WEIGHTS, SimOptions

FILE: Final = "sim.json"
MAX_BYTES: Final = 64 * 1024

Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class Traits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version's ways; None leaves what the command line says.

    Attributes:
        weights, ttft_s, itl_s, startup_s: as in :class:`SimOptions`.
        faults: as `inferdock sim --fault` takes them; they come before those.
    """

    weights: Annotated[int, Meta(ge=0, le=MOST_WEIGHTS)] | None = None
    ttft_s: Seconds | None = None
    itl_s: Seconds | None = None
    startup_s: Seconds | None = None
    faults: Annotated[tuple[Annotated[str, Meta(max_length=100)], ...], Meta(max_length=20)] = ()

    def over(self, options: SimOptions) -> SimOptions:
        """The options with these ways in them."""
        given = {name: getattr(self, name) for name in ("weights", "ttft_s", "itl_s", "startup_s")}
        return replace(options, **{name: value for name, value in given.items() if value is not None})


def read_traits(model: str) -> Traits:
    """The ways of a model; none where it is a name, or a folder that says nothing.

    Raises:
        ModelError: the file is there and makes no sense.
    """
    path = Path(model) / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError):
        return Traits()
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES} bytes")
        return msgspec.json.decode(data, type=Traits)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ModelError(f"{path} makes no sense: {str(exc)[:300]}.", cure="Mend it, or remove it.") from exc
