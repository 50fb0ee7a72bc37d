"""Grafana's JSON from short descriptions: panels, variables, annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from inferdock.telemetry import names
from scripts.monitoring.slo import RUNBOOKS

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
MODEL: Final = 'namespace=~"$namespace",model=~"$model"'
PLACE: Final = 'namespace=~"$namespace"'
REVISION: Final = f'{MODEL},revision=~"$revision"'
RATE: Final = "$__rate_interval"
WIDTH: Final = 24


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: with the statistic in it.
        unit: Grafana's name of it.
        queries: (expression, legend).
        text: what it shows and what to make of it.
        limits: (yellow from, red from), in the unit.
        kind: ``timeseries``, ``stat`` or ``bargauge``.
        width: in 24ths of the page.
        stacked: whether the series add up.
        runbook: name of the page to look at when it is bad.
        only: what must be there before there is data; empty when traffic is enough.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    text: str
    limits: tuple[float, float] | None = None
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    runbook: str = ""
    only: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page.

    Attributes:
        name: of its file and in its address.
        variables: besides those that all have.
        runbooks: pages that it links to.
    """

    name: str
    title: str
    text: str
    panels: tuple[Panel, ...]
    runbooks: tuple[str, ...]
    variables: tuple[str, ...] = ()


_WITH_EXEMPLARS: Final = tuple(
    f"histogram_quantile({q:g}, sum by (model, le) (rate({name}_bucket"
    for name in (names.TTFT, names.DURATION)
    for q in (0.5, 0.95, 0.99)
)
"""Queries of latencies whose buckets lead to traces."""


def quantile(q: float, metric: str, labels: str, by: str) -> str:
    """An estimate from a histogram."""
    return f"histogram_quantile({q:g}, sum by ({by}, le) (rate({metric}_bucket{{{labels}}}[{RATE}])))"


def per_second(metric: str, labels: str, by: str) -> str:
    """How fast a counter grows."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[{RATE}]))"


def recorded(name: str, labels: str = MODEL) -> str:
    """A recorded series of what is chosen."""
    return f"{name}{{{labels}}}"


_VARIABLES: Final = {
    "namespace": "label_values(llm_gateway_workers, namespace)",
    "model": 'label_values(llm_gateway_requests_total{namespace=~"$namespace",model!="unknown"}, model)',
    "revision": 'label_values(llm_gateway_requests_total{namespace=~"$namespace",model=~"$model"}, revision)',
    "tenant": 'label_values(llm_gateway_tenant_tokens_total{namespace=~"$namespace",model=~"$model"}, tenant)',
}


def _variable(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": _VARIABLES[name], "refId": name},
        "definition": _VARIABLES[name],
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _templating(names: Sequence[str]) -> dict[str, Any]:
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}
    runbooks = {
        "name": "runbooks",
        "label": "Runbooks at",
        "type": "textbox",
        "query": RUNBOOKS,
        "current": {"text": RUNBOOKS, "value": RUNBOOKS},
    }
    return {"list": [source, *(_variable(name) for name in names), runbooks]}


NEW_REVISION: Final = (
    f"count by (model, revision) (llm_gateway_replica_seconds_total{{{REVISION}}})"
    f" unless count by (model, revision) (llm_gateway_replica_seconds_total{{{REVISION}}} offset 2m)"
)
"""A revision that was not there two minutes ago."""

RELEASE_STATE: Final = (
    'max by (model, state) (llm_release_state{model=~"$model"}) == 1'
    ' unless max by (model, state) (llm_release_state{model=~"$model"} offset 1m) == 1'
)
"""A release that has come to another state within a minute; only `inferdock up` says so."""


def _annotation(name: str, expression: str, text: str, color: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "expr": expression,
        "iconColor": color,
        "titleFormat": name,
        "textFormat": text,
        "step": "60s",
    }


def shown_events() -> list[dict[str, Any]]:
    """Releases, and alerts that fire."""
    alerts = 'ALERTS{alertname=~"Inferdock.*",alertstate="firing"}'
    return [
        _annotation("Release", NEW_REVISION, "{{model}}: revision {{revision}} begins", "blue"),
        _annotation("Release state", RELEASE_STATE, "{{model}}: the release is {{state}}", "purple"),
        _annotation("Alert", alerts, "{{alertname}} {{model}}", "red"),
    ]


def _link(runbook: str) -> dict[str, Any]:
    return {"title": f"Runbook: {runbook}", "url": f"${{runbooks}}/{runbook}.md", "targetBlank": True}


def _thresholds(limits: tuple[float, float] | None) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if limits is not None:
        steps += [{"color": "yellow", "value": limits[0]}, {"color": "red", "value": limits[1]}]
    return {"mode": "absolute", "steps": steps}


def _custom(panel: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "off" if panel.limits is None else "line"},
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "orientation": "auto"}


def _panel(panel: Panel, number: int, x: int, y: int, height: int) -> dict[str, Any]:
    needs = f"\n\nNeeds {panel.only}." if panel.only else ""
    instant = panel.kind != "timeseries"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text + needs,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                **({"exemplar": True} if not instant and expression.startswith(_WITH_EXEMPLARS) else {}),
            }
            for place, (expression, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "noValue": "no data",
                "min": 0,
                "thresholds": _thresholds(panel.limits),
                "custom": _custom(panel) if panel.kind == "timeseries" else {},
            },
            "overrides": [],
        },
        "options": _options(panel.kind),
        "links": [_link(panel.runbook)] if panel.runbook else [],
    }


def _placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """In rows from left to right; a row is as high as its first panel asks."""
    made: list[dict[str, Any]] = []
    x = y = 0
    height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH:
            x, y = 0, y + height
        if x == 0:
            height = 8 if panel.kind == "timeseries" else 4
        made.append(_panel(panel, number, x, y, height))
        x += panel.width
    return made


def text_of(board: Dashboard) -> str:
    """The file of a dashboard."""
    whole = {
        "uid": f"inferdock-{board.name}",
        "title": f"Inferdock: {board.title}",
        "description": board.text,
        "tags": ["inferdock"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": _templating(("namespace", "model", "revision", *board.variables)),
        "annotations": {"list": shown_events()},
        "links": [
            {"title": "Inferdock", "type": "dashboards", "tags": ["inferdock"], "asDropdown": True, "keepTime": True},
            *({**_link(name), "type": "link"} for name in board.runbooks),
        ],
        "panels": _placed(board.panels),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
