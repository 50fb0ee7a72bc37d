"""Which processors and GPUs a replica may use, where replicas of several revisions run at once.

Processors: the replicas of *one* revision share all of them equally, as they would alone. Two revisions that run beside
each other therefore use the same processors, but on equal terms: a canary on half the processors of the stable revision
would look slow, and would stay slow once it has been promoted, for an engine's threads are set at its start. The share
is that of the moment of the start: a replica that was started before its revision was scaled keeps its own until it
starts again.

GPUs: a replica that runs keeps its GPUs, and a new one gets those that nobody uses. Where none is left, it is refused
(``no_spare_gpu``): engines take most of a GPU's memory at their start, so the second would die. A release then takes a
replica away first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inferdock.config.settings import EngineSettings
from inferdock.domain.errors import RequestError
from inferdock.supervisor.engine import Machine, fair_share

_SPLITS = (
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
    ("--data-parallel-size", "-dp"),
)
"""Arguments of vLLM that multiply the GPUs of one replica."""
_MEMORY_SHARE = ("--gpu-memory-utilization",)


@dataclass(frozen=True, slots=True)
class Seat:
    """What one replica may use.

    Attributes:
        index, replicas: of the processors, share number ``index`` of ``replicas`` equal ones.
        gpu_names: its GPUs; none on a machine without.
    """

    index: int
    replicas: int
    gpu_names: tuple[str, ...] = ()


class Seats:
    """Hands out GPUs, by the name of a replica; one that has none may use no GPU."""

    def __init__(self, machine: Machine, engine: EngineSettings) -> None:
        self._names = machine.gpu_names if engine.kind == "vllm" else ()
        self._engine = engine
        self._held: dict[str, tuple[str, ...]] = {}
        self._used: dict[str, tuple[str, ...]] = {}

    def take_all(self, replicas: Sequence[str], arguments: Sequence[str]) -> None:
        """The first revision: its replicas share all GPUs equally, as there is nobody else.

        Args:
            replicas: their names.
            arguments: of the version, for the engine. They say how many of its GPUs a replica does use.
        """
        if not self._names:
            return
        needed = gpus_needed((*arguments, *self._engine.extra_args))
        for index, name in enumerate(replicas):
            share = tuple(fair_share(index, len(replicas), self._names).split(","))
            self._held[name] = share
            self._used[name] = share[:needed] if needed is not None else share

    def take(self, replicas: Sequence[str], arguments: Sequence[str]) -> None:
        """Replicas beside others: each gets as many spare GPUs as it needs, or none of them gets any.

        Raises:
            RequestError: 409 ``no_spare_gpu``.
        """
        if not self._names:
            return
        given = (*arguments, *self._engine.extra_args)
        found = dict(zip(replicas, self._free(given), strict=False))
        if len(found) < len(replicas):
            raise _no_spare(len(replicas), gpus_needed(given), len(self._names))
        self._held |= found
        self._used |= found

    def spare(self, arguments: Sequence[str]) -> tuple[int, str] | None:
        """How many replicas :meth:`take` would find GPUs for now, and why so many; None where GPUs do not matter."""
        if not self._names:
            return None
        given = (*arguments, *self._engine.extra_args)
        needed, found = gpus_needed(given), sum(1 for _ in self._free(given))
        if needed is None:
            return 0, "the engine's arguments do not tell how many GPUs a replica takes"
        taken = len({gpu for used in self._used.values() for gpu in used})
        return found, f"{taken} of {len(self._names)} GPUs are in use and a replica takes {needed}"

    def _free(self, given: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """GPUs for one replica after the other, as long as there are any."""
        needed = gpus_needed(given)
        room = Counter(dict.fromkeys(self._names, sharers(given)))
        for used in self._used.values():
            room.subtract(used)
        while needed is not None:
            spare = sorted((gpu for gpu in self._names if room[gpu] > 0), key=lambda gpu: -room[gpu])
            if len(spare) < needed:
                return
            yield tuple(spare[:needed])
            room.subtract(spare[:needed])

    def leave(self, replica: str) -> None:
        """Its process has ended."""
        self._held.pop(replica, None)
        self._used.pop(replica, None)

    def gpus(self, replica: str) -> tuple[str, ...]:
        """The GPUs of a replica."""
        return self._held.get(replica, ())


def _no_spare(replicas: int, needed: int | None, gpus: int) -> RequestError:
    each = f"{needed} GPU(s) each" if needed is not None else "GPUs that their arguments do not tell"
    text = f"There is no spare GPU: {replicas} more replica(s) need {each}, and those of the {gpus} here are in use."
    return RequestError(409, f"{text} Take a replica of another revision away first.", code="no_spare_gpu")


def gpus_needed(arguments: Sequence[str]) -> int | None:
    """How many GPUs one replica of vLLM uses with these arguments; None where they do not say."""
    if any(argument.split("=")[0] == "--config" for argument in arguments):
        return None  # a file may say more
    product = 1
    for names in _SPLITS:
        value = _value(arguments, names)
        if value is None:
            continue
        if not value.isascii() or not value.isdigit() or not 0 < len(value) < 5 or int(value) == 0:
            return None
        product *= int(value)
    return product


def sharers(arguments: Sequence[str]) -> int:
    """How many replicas fit on one GPU: several only where each was told to take less than half of its memory."""
    value = _value(arguments, _MEMORY_SHARE)
    try:
        share = float(value) if value is not None else 1.0
    except ValueError:
        return 1
    return max(1, min(64, math.floor(1 / share + 1e-9))) if 0 < share <= 1 else 1


def _value(arguments: Sequence[str], names: Sequence[str]) -> str | None:
    """Value of the last of these arguments, as ``--name value`` or ``--name=value``; underscores are dashes to vLLM."""
    found = None
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") in names:
            found = value if equals else next(iter(arguments[position + 1 : position + 2]), "")
    return found
