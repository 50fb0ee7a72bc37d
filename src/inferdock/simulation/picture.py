"""A result as a picture: replicas, requests, and times to first tokens. Needs the extra ``plot``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

from inferdock.config.pictures import write_picture
from inferdock.domain.percentile import percentile
from inferdock.simulation.scenario import Result


def draw(path: Path, result: Result, title: str) -> None:
    """Write a PNG.

    Raises:
        ResourceError: the file cannot be written.
    """
    unit, name = _unit(result.duration_s)
    at = [sample.at / unit for sample in result.history]
    figure, axes = pyplot.subplots(3, 1, figsize=(10, 8), sharex=False, constrained_layout=True)
    axes[0].step(at, [sample.wanted for sample in result.history], where="post", label="wanted")
    axes[0].step(at, [sample.ready for sample in result.history], where="post", label="ready")
    axes[0].set(ylabel="replicas", xlabel=name)
    axes[1].plot(at, [sample.running for sample in result.history], label="running")
    axes[1].plot(at, [sample.waiting + sample.held for sample in result.history], label="waiting")
    axes[1].set(ylabel="requests", xlabel=name)
    ordered = sorted(result.ttft)
    shares = [step / 400 for step in range(1, 400)]
    axes[2].plot([percentile(ordered, share) * 1e3 for share in shares], shares)
    axes[2].set(xlabel="TTFT, ms", ylabel="share of requests", ylim=(0, 1))
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.set_xlim(left=0)
    for axis in axes[:2]:
        axis.set_ylim(bottom=0)
        axis.legend(loc="upper right")
    figure.suptitle(title)
    write_picture(path, figure, pyplot)


def _unit(seconds: float) -> tuple[float, str]:
    if seconds > 2 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds > 300 else (1.0, "seconds")
