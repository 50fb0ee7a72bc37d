"""What a run leaves: one JSON document that scenarios are added to, a Markdown table, a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.gateway.scenarios import FIGURES
from inferdock.bench.report import machine, pyplot, write_json

MARKS = ("<!-- figures -->", "<!-- end of figures -->")
BESIDES = ("cpu_us_per_request", "cpu_us_per_token", "latency_p50_us", "ttft_p50_ms")
"""Figures that the table shows besides the one that is compared."""


def begin(path: Path) -> dict[str, Any]:
    """The document that scenarios are added to: the existing one if it was measured on a machine like this."""
    here = {name: found for name, found in machine().items() if name not in ("commit", "versions")}
    if path.exists():
        document = load(path)
        if document["machine"] == here:
            return document
        print(f"{path} is of another machine: written anew", file=sys.stderr)
    return {"machine": here, "scenarios": {}}


def load(path: Path) -> dict[str, Any]:
    """An earlier document."""
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def save(path: Path, document: Mapping[str, Any]) -> None:
    """Write the document."""
    write_json(path, document)


def table(document: Mapping[str, Any]) -> str:
    """All scenarios as Markdown."""
    parts = []
    for name, scenario in document["scenarios"].items():
        rows = _variant_rows(scenario) if scenario["versus"] == "variants" else _peer_rows(scenario)
        parts.append(f"### `{name}`: {scenario['title']}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def write_page(path: Path, document: Mapping[str, Any]) -> None:
    """Put the table between the two marks of a page.

    Raises:
        ValueError: the page has no marks.
    """
    before, start, rest = path.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not start or not end:
        raise ValueError(f"{path} has no {MARKS[0]} ... {MARKS[1]}")
    path.write_text(f"{before}{start}\n{_origin(document)}\n\n{table(document)}\n{end}{after}")


def _origin(document: Mapping[str, Any]) -> str:
    """Machine, versions, commits and times in a few words."""
    machine, scenarios = document["machine"], document["scenarios"].values()
    versions = {name: version for found in scenarios for name, version in found["versions"].items()}
    ours = sorted({_ours(found) for found in scenarios})
    others = ", ".join(f"{name} {version}" for name, version in versions.items() if not name.startswith("inferdock"))
    times = sorted(found["started"] for found in scenarios)
    return (
        f"Measured from {times[0]} to {times[-1]} on {machine['processor']}, {machine['cpus']} cores, "
        f"{machine['system']}, Python {machine['python']}. "
        f"Inferdock {', '.join(ours)}; {others}."
    )


def _ours(scenario: Mapping[str, Any]) -> str:
    """Commit of Inferdock that a scenario was measured on."""
    version = next((v for name, v in scenario["versions"].items() if name.startswith("inferdock")), "not measured")
    return str(scenario["commit"] if version == "working tree" else version[:12])


def _peer_rows(scenario: Mapping[str, Any]) -> list[str]:
    figure = scenario["figure"]
    (cells,) = scenario["summary"].values()
    shown = [name for name in BESIDES if name != figure and any(name in cell for cell in cells.values())]
    titles = [FIGURES[name].title for name in (figure, *shown)]
    ratio = ["Inferdock to it"] if scenario["versus"] == "peers" else []
    rows = [_row("gateway", titles[0], *ratio, *titles[1:], "RSS, MB")]
    rows.append("|---" * (len(shown) + len(ratio) + 3) + "|")
    for peer, cell in cells.items():
        ours = [_ratio(cell.get("ours_to_this", {}).get(figure))] if ratio else []
        others = (_median(cell.get(name)) for name in (*shown, "rss_mb"))
        rows.append(_row(peer, _range(cell.get(figure)), *ours, *others))
    return rows


def _variant_rows(scenario: Mapping[str, Any]) -> list[str]:
    figure, variants = scenario["figure"], scenario["summary"]
    first = next(iter(variants))
    heads = [f"{label}: {FIGURES[figure].title}" if label == first else f"{label}, to {first}" for label in variants]
    rows = [_row("gateway", *heads), "|---" * (len(heads) + 1) + "|"]
    for peer in variants[first]:
        cells = [variants[label].get(peer, {}) for label in variants]
        ratios = [_ratio(cell.get("this_to_first", {}).get(figure)) for cell in cells[1:]]
        rows.append(_row(peer, _range(cells[0].get(figure)), *ratios))
    return rows


def _row(*columns: str) -> str:
    return "| " + " | ".join(columns) + " |"


def number(value: float) -> str:
    """Three digits at most, thousands with a comma."""
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _range(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{number(found['median'])} [{number(found['min'])}-{number(found['max'])}]"


def _ratio(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"**{number(found['median'])}x** [{number(found['min'])}-{number(found['max'])}]"


def _median(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else number(found["median"])


def plot(path: Path, document: Mapping[str, Any]) -> None:
    """Ratios of Inferdock to each gateway, one picture for each scenario that compares gateways.

    Raises:
        ResourceError: matplotlib is missing.
    """
    plt = pyplot()
    shown = {name: found for name, found in document["scenarios"].items() if found["versus"] == "peers"}
    columns = 3
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(13, 3.0 * lines), constrained_layout=True, squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, (name, found) in zip(axes.flat, shown.items(), strict=False):
        _draw(axis, name, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _draw(axis: Any, name: str, scenario: Mapping[str, Any]) -> None:
    measure = scenario["figure"]
    (cells,) = scenario["summary"].values()
    bars = [(peer, cell[measure]) for peer, cell in cells.items() if measure in cell][::-1]
    middles = [cell["median"] for _, cell in bars]
    errors = [[cell["median"] - cell["min"] for _, cell in bars], [cell["max"] - cell["median"] for _, cell in bars]]
    colors = ["#1f5fbf" if peer.startswith("inferdock") else "#b8bec8" for peer, _ in bars]
    axis.barh([peer for peer, _ in bars], middles, xerr=errors, color=colors, error_kw={"lw": 1, "ecolor": "#555"})
    better = "more is better" if FIGURES[measure].more_is_better else "less is better"
    axis.set_title(f"{name}: {scenario['title']}", fontsize=9)
    axis.set_xlabel(f"{FIGURES[measure].title} ({better})", fontsize=8)
    axis.tick_params(labelsize=8)
    if not FIGURES[measure].more_is_better and max(middles) > 30 * min(middles):
        axis.set_xscale("log")
    axis.margins(x=0.2)
    for place, (_, cell) in enumerate(bars):
        axis.annotate(f"  {number(cell['median'])}", (cell["max"], place), va="center", fontsize=7)
    axis.spines[["top", "right"]].set_visible(False)
