"""The options of ``inferdock plan`` that say how large a model is, and what they mean for a kind of machine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Final, TypeVar, cast

import click

from inferdock.app.model_size import ModelSize, model_size
from inferdock.cli.output import note
from inferdock.config.settings import RegistrySettings
from inferdock.cost.gpus import memory_gib, product
from inferdock.domain.errors import ConfigError
from inferdock.simulation.fleet import Machine
from inferdock.simulation.memory import (
    DEFAULT_MODEL_LEN,
    DEFAULT_UTILIZATION,
    GIB,
    Footprint,
    Room,
    gpus_to_fit,
)

F = TypeVar("F", bound=Callable[..., Any])
_KV_CURE: Final = "Give --kv-bytes-per-token: 2 x layers x KV heads x head size x 2 bytes; 131072 for Mistral-7B."


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeOptions:
    """What a person said of the model's size; None: nothing.

    Attributes:
        model: reference to a version in the registry.
        registry: its address, instead of the settings'.
        weights_gib: instead of the version's weight files.
        kv_bytes_per_token: instead of what the version's config says.
        max_model_len: instead of what the version says.
        gpu_memory_gib: at most so much of a GPU.
        gpu_memory_utilization: share of it that vLLM may take.
    """

    model: str | None
    registry: str | None
    weights_gib: float | None
    kv_bytes_per_token: float | None
    max_model_len: int | None
    gpu_memory_gib: float | None
    gpu_memory_utilization: float

    def footprint(self, settings: RegistrySettings, environment: Mapping[str, str]) -> Footprint | None:
        """What the model takes; None where nothing was said of it.

        Raises:
            ConfigError: too little was said, or something that is no size.
            InferdockError: as :func:`~inferdock.app.model_size.model_size`.
        """
        figures = (self.weights_gib, self.kv_bytes_per_token, self.gpu_memory_gib, self.gpu_memory_utilization)
        if not all(figure is None or isfinite(figure) for figure in figures):
            raise ConfigError("A size is not a finite number.", cure="Give GiB or bytes, for instance 3.9.")
        if self.model is None and self.weights_gib is None:
            self._refuse_lone()
            return None
        known = model_size(settings, environment, self.model) if self.model is not None else None
        return self._joined(known)

    def _refuse_lone(self) -> None:
        lone = {
            "--kv-bytes-per-token": self.kv_bytes_per_token,
            "--max-model-len": self.max_model_len,
            "--gpu-memory-gib": self.gpu_memory_gib,
            "--registry": self.registry,
        }
        for flag, value in lone.items():
            if value is not None:
                raise ConfigError(f"{flag} says nothing without a model.", cure="Add --model or --weights-gib.")

    def _joined(self, known: ModelSize | None) -> Footprint:
        token = self.kv_bytes_per_token or (known.kv_bytes_per_token if known else None)
        if token is None:
            of = f"{known.reference} do not say plainly" if known else "The weights alone do not say"
            config = "Config and arguments of " if known else ""
            raise ConfigError(f"{config}{of} how many bytes of KV cache a token takes.", cure=_KV_CURE)
        length = self.max_model_len or (known.max_model_len if known else None)
        weights = self.weights_gib if self.weights_gib is not None else (known.weight_bytes / GIB if known else 0.0)
        return Footprint(
            weights_gib=weights,
            kv_bytes_per_token=token,
            max_model_len=length or DEFAULT_MODEL_LEN,
            utilization=self.gpu_memory_utilization,
        )

    def on(self, machine: Machine, footprint: Footprint) -> Machine | str:
        """The machine with the KV cache that there is room for; or, where the model does not fit, why.

        Raises:
            ConfigError: the memory of its GPUs is not known.
        """
        memory = self._memory(machine)
        kind = machine.price.instance_type
        room = Room(footprint=footprint, gpus=machine.gpus, memory_gib=memory)
        if not room.fits:
            more = gpus_to_fit(footprint, memory, machine.price.gpus)
            there = f" {more} of its {machine.price.gpus} GPUs would do (--gpus-per-replica {more})." if more else ""
            return f"{kind}: the model does not fit: {room.sum}.{there}"
        if room.kv_cache_tokens < machine.profile.kv_cache_tokens:
            note(
                f"{kind}: beside the weights there is room for {room.kv_cache_tokens:,} tokens of KV cache; they count "
                f"instead of the profile's {machine.profile.kv_cache_tokens:,}."
            )
        return replace(machine, kv_room=room.kv_cache_tokens)

    def _memory(self, machine: Machine) -> float:
        known = memory_gib().get(product(machine.price.gpu))
        if known is None and self.gpu_memory_gib is None:
            raise ConfigError(
                f"The memory of the GPUs of {machine.price.instance_type} ({machine.price.gpu}) is not known.",
                cure="Give --gpu-memory-gib.",
            )
        return min(one for one in (known, self.gpu_memory_gib) if one is not None)


def size_options(command: F) -> F:
    """Add the options, passed to the command as ``size``."""

    @functools.wraps(command)
    def called(**arguments: Any) -> Any:
        size = SizeOptions(**{name: arguments.pop(name) for name in SizeOptions.__slots__})
        return command(size=size, **arguments)

    for option in reversed(_OPTIONS):
        called = option(called)
    return cast(F, called)


_POSITIVE: Final = click.FloatRange(min=0, min_open=True, max=1e9)
_OPTIONS: Final = (
    click.option("--model", metavar="NAME[@VERSION]",
                 help="A version in the registry: its weights and KV cache must fit."),
    click.option("--registry", metavar="URL", help="A folder or s3://bucket; default: `registry.url`."),
    click.option("--weights-gib", type=_POSITIVE,
                 help="GiB of the weight files; instead of --model, or of what it says."),
    click.option("--kv-bytes-per-token", type=_POSITIVE, help="KV cache of a token; default: by the model's config."),
    click.option("--max-model-len", type=click.IntRange(min=16, max=10**9),
                 help=f"Longest prompt plus answer; default: the model's, or {DEFAULT_MODEL_LEN}."),
    click.option("--gpu-memory-gib", type=_POSITIVE, help="Count with at most so much of a GPU."),
    click.option("--gpu-memory-utilization", type=click.FloatRange(min=0, min_open=True, max=0.98),
                 default=DEFAULT_UTILIZATION, help="Share of a GPU that vLLM may take."),
)  # fmt: skip
