"""Draws every panel of every dashboard from a Prometheus: `python -m scripts.look_at_dashboards URL FOLDER [MINUTES]`.

For those who have no Grafana at hand, and for tests: one PNG for each dashboard. Needs the extra `plot`.
"""

from __future__ import annotations

import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from scripts.render_monitoring import DASHBOARDS

ANYTHING: Final = ".*"
VARIABLES: Final = ("namespace", "model", "revision", "tenant")
COLUMNS: Final = 3
TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a panel.

    Attributes:
        legend: as Grafana would write it.
        points: (seconds since 1970, value), without those that are no number.
    """

    legend: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is shown, in seconds since 1970; a point each ``step`` seconds, rates over ``rate``."""

    start: float
    end: float
    step: float = 15.0
    rate: str = "1m"


def expression(text: str, span: Span) -> str:
    """A panel's query as Grafana would send it with everything selected."""
    for name in VARIABLES:
        text = text.replace(f"${name}", ANYTHING)
    shown = f"{max(1, round(span.end - span.start))}s"
    return text.replace("$__rate_interval", span.rate).replace("$__range", shown)


def lines(url: str, target: dict[str, Any], span: Span) -> list[Line]:
    """What one query of a panel gives.

    Raises:
        ValueError: Prometheus refuses the query; the message is its own.
    """
    asked = {"query": expression(target["expr"], span), "start": span.start, "end": span.end, "step": span.step}
    found = []
    for row in _ask(f"{url}/api/v1/query_range", asked):
        points = ((float(at), float(value)) for at, value in row["values"])
        real = tuple((at, value) for at, value in points if math.isfinite(value))
        found.append(Line(_legend(target["legendFormat"], row["metric"]), real))
    return [line for line in found if line.points]


def _ask(address: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    body = urllib.parse.urlencode(query).encode()
    try:
        with urllib.request.urlopen(address, body, timeout=TIMEOUT_S) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return result
    except urllib.error.HTTPError as exc:
        raise ValueError(f"{query['query']}: {exc.read().decode(errors='replace')}") from exc


def _legend(template: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template.strip()


def boards() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and contents of the dashboards."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def draw(url: str, board: dict[str, Any], span: Span, file: Path) -> None:
    """One dashboard as a picture."""
    panels = board["panels"]
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(6 * COLUMNS, 3.2 * rows), layout="constrained")
    figure.suptitle(board["title"])
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.set_title(f"{panel['title']} [{panel['fieldConfig']['defaults']['unit']}]", fontsize=9)
        shown = [line for target in panel["targets"] for line in lines(url, target, span)]
        for line in shown:
            last = line.points[-1][1]
            values = [value for _, value in line.points]
            axes.plot([at - span.start for at, _ in line.points], values, label=f"{line.legend} ({last:.4g})")
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=step["color"], linestyle=":", linewidth=1)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        if shown:
            axes.legend(fontsize=6)
        else:
            axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")
    figure.savefig(file, dpi=80)


def main(url: str, folder: Path, minutes: float) -> None:
    """Draw them all."""
    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    for name, board in boards():
        draw(url, board, Span(now - 60 * minutes, now), folder / f"{name}.png")
        print(f"wrote {folder / name}.png")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 60.0)
