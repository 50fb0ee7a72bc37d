"""What is measured: each scenario is a few variants of setup and load, run on each gateway in each round."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

SHORT = 1024
LONG = 220_000
"""Bytes of the prompt. LONG is a size that users of gateways complain about (about 55,000 tokens of English)."""

CORES = len(os.sched_getaffinity(0))

LEAN = ("inferdock", "bare", "haproxy", "nginx", "vllm-router", "sglang-router")
ALL = ("direct", *LEAN, "litellm")


@dataclass(frozen=True)
class Variant:
    """One setup and load.

    Attributes:
        kind: mode of ``load.c``: ``json`` requests, ``run`` whole streams, ``steady`` streams that stay open.
        connections: open requests or streams.
        seconds: time of measuring; limit of a ``run``.
        pace_us: microseconds between the tokens of one stream.
        streams, tokens: number of streams of a ``run``, tokens of each stream.
        spread_s: over which the first streams start.
    """

    label: str
    kind: Literal["json", "run", "steady"] = "json"
    connections: int = 32
    prompt_bytes: int = SHORT
    seconds: float = 3.0
    warm_s: float = 0.5
    pace_us: int = 0
    streams: int = 0
    tokens: int = 16
    spread_s: float = 0.0
    replicas: int = 2
    workers: int = 1
    windows: bool = False

    def body(self) -> bytes:
        """The request's JSON."""
        wish: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text(self.prompt_bytes)}]}
        wish["max_tokens"] = self.tokens
        if self.kind != "json":
            wish["stream"] = True
        return json.dumps(wish).encode()

    def arguments(self) -> list[str]:
        """Command line of ``load``, without address, body and processes to watch."""
        parts = [self.kind, "-c", str(self.connections), "--seconds", f"{self.seconds:g}", "--warm", f"{self.warm_s:g}"]
        parts += ["--streams", str(self.streams), "--tokens", str(self.tokens), "--spread", f"{self.spread_s:g}"]
        return parts + (["--windows"] if self.windows else [])

    def scaled(self, share: float) -> Variant:
        """The same load for a share of the time."""
        streams = max(self.connections, round(self.streams * share)) if self.streams else 0
        return replace(self, seconds=self.seconds * share, streams=streams)


@dataclass(frozen=True)
class Scenario:
    """Variants that are measured in turns; ``figure`` is the one that is compared.

    Attributes:
        versus: what is compared: ``peers`` (same variant, ours to each other's), ``variants`` (same gateway, each
            variant to the first one) or ``itself`` (the figure is a comparison already).
        peers: gateways that take part unless others are asked for.
        fresh: gateways are started anew in each round.
        slow_factor: how many times ``seconds`` slow peers get (they need time to serve a few requests).
    """

    name: str
    title: str
    figure: str
    variants: tuple[Variant, ...]
    versus: Literal["peers", "variants", "itself"] = "peers"
    peers: tuple[str, ...] = ALL
    fresh: bool = False
    slow_factor: float = 3.0


@dataclass(frozen=True)
class Figure:
    """A measured quantity: unit, and whether more is better."""

    title: str
    more_is_better: bool


FIGURES: Mapping[str, Figure] = {
    "requests_per_cpu_s": Figure("requests per CPU-second", True),
    "tokens_per_cpu_s": Figure("chunks per CPU-second", True),
    "cpu_us_per_request": Figure("CPU microseconds per request", False),
    "cpu_us_per_token": Figure("CPU microseconds per chunk", False),
    "ttft_p50_ms": Figure("TTFT p50, ms", False),
    "latency_p50_us": Figure("latency p50, microseconds", False),
    "late_to_early_cpu": Figure("CPU per request after 60 s to that in the first 5 s", False),
    "requests_per_s": Figure("requests per second", True),
}


def text(size: int) -> str:
    """Plain words of exactly ``size`` bytes."""
    words = "the gateway passes these words on and reads as few of them as it can, "
    return (words * (size // len(words) + 1))[:size]


def _json(name: str, title: str, **load: Any) -> Scenario:
    return Scenario(name, title, "requests_per_cpu_s", (Variant(name, **load),))


def _open_streams(count: int, chunks_per_s: int = 20_000) -> Variant:
    pace_us = count * 1_000_000 // chunks_per_s
    spread_s = max(0.2, count / 1000, pace_us / 1e6)
    return Variant(str(count), "steady", count, pace_us=pace_us, tokens=_longer_than_a_step(pace_us), spread_s=spread_s)


def _longer_than_a_step(pace_us: int) -> int:
    """Tokens of a stream that is still open when a step ends; not more, since limits count them."""
    return 60 * 1_000_000 // pace_us


def _workers(count: int) -> Variant:
    return Variant(str(count), connections=64, workers=count)


SCENARIOS: tuple[Scenario, ...] = (
    _json("c1", "1 connection, 1 KiB prompt", connections=1),
    _json("c32", "32 connections, 1 KiB prompt"),
    _json("c256", "256 connections, 1 KiB prompt", connections=256, warm_s=1.0),
    _json("prompt220k", "4 connections, 220 KB prompt", connections=4, prompt_bytes=LONG),
    Scenario(
        "paced",
        "100 streams, a chunk every 20 ms",
        "ttft_p50_ms",
        (Variant("paced", "run", 100, streams=400, tokens=50, pace_us=20_000, spread_s=1.0, seconds=30),),
    ),
    Scenario(
        "overload",
        "256 streams, a chunk every 2 ms",
        "tokens_per_cpu_s",
        (Variant("overload", "steady", 256, tokens=_longer_than_a_step(2_000), pace_us=2_000, spread_s=0.5),),
        peers=("direct", *LEAN),  # LiteLLM does not get 256 streams going
    ),
    Scenario(
        "drift",
        "32 connections for 70 s, CPU per request after 60 s to that in the first 5 s",
        "late_to_early_cpu",
        (Variant("drift", seconds=70, windows=True),),
        versus="itself",
        peers=("inferdock", "vllm-router"),
        fresh=True,
    ),
    Scenario(
        "replicas",
        "32 connections, 1 to 64 replicas",
        "cpu_us_per_request",
        tuple(Variant(str(count), replicas=count) for count in (1, 4, 16, 64)),
        versus="variants",
        peers=("inferdock", "haproxy", "vllm-router"),
    ),
    Scenario(
        "streams",
        "20,000 chunks/s over 10 to 4,000 open streams",
        "cpu_us_per_token",
        tuple(_open_streams(count) for count in (10, 100, 1000, 4000)),
        versus="variants",
        peers=("inferdock", "haproxy", "vllm-router"),
    ),
    Scenario(
        "workers",
        "64 connections, 1 and 2 workers",
        # Two workers can only be faster where replicas and load leave them two cores; elsewhere their cost is compared.
        "requests_per_s" if CORES > 2 else "cpu_us_per_request",
        (_workers(1), _workers(2)),
        versus="variants",
        peers=("inferdock", "haproxy"),
    ),
)


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """What one run of ``load`` says, as the figures above and a few more; without the CPU's where none was watched."""
    found: dict[str, float] = {}
    for unit, singular in (("requests", "request"), ("tokens", "token")):
        count = result[unit]
        if not count:
            continue
        found[f"{unit}_per_s"] = count / result["wall_s"]
        if result["cpu_s"]:
            found[f"{unit}_per_cpu_s"] = count / result["cpu_s"]
            found[f"cpu_us_per_{singular}"] = result["cpu_s"] / count * 1e6
            found.update(_user_and_system(result))
    if result["cpu_s"]:
        found["core_share"] = result["cpu_s"] / result["wall_s"]
    if result["latency_us"]["count"]:
        found["latency_p50_us"] = result["latency_us"]["p50"]
        found["latency_p99_us"] = result["latency_us"]["p99"]
    if result["ttft_us"]["count"]:
        found["ttft_p50_ms"] = result["ttft_us"]["p50"] / 1e3
        found["ttft_p99_ms"] = result["ttft_us"]["p99"] / 1e3
    if result["tokens"] and result["reads"]:
        found["chunks_per_read"] = result["tokens"] / result["reads"]
    if len(result["windows"]) > 65:
        found["late_to_early_cpu"] = late_to_early(result["windows"])
    return found


def _user_and_system(result: Mapping[str, Any]) -> dict[str, float]:
    """The kernel's tick counters say how the CPU time divides; the scheduler's counters say how much it is."""
    ticks = result["user_s"] + result["system_s"]
    return {"user_share": result["user_s"] / ticks} if ticks else {}


def late_to_early(windows: list[list[float]], early_s: float = 5, late_s: float = 60) -> float:
    """CPU per request after ``late_s`` divided by that in the first ``early_s`` seconds.

    ``windows``: seconds since the start, requests and CPU seconds until then, about once a second.
    """
    first = next(window for window in windows if window[0] >= early_s)
    before = next(window for window in windows if window[0] >= late_s)
    last = windows[-1]
    early = first[2] / first[1]
    late = (last[2] - before[2]) / (last[1] - before[1])
    return late / early
