"""The service levels, and the rules that follow from them: prometheus/rules/slo.yaml.

A burn rate is how many times faster than allowed the error budget is used up. Each alert looks at a long window, so
that a moment does not wake anybody, and at a short one, so that it ends soon after the trouble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from inferdock.telemetry import names

BY: Final = "namespace, model"
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
RUNBOOKS: Final = "docs/runbooks"
"""Where runbooks are; set the address of your copy of this repository before it for links that can be followed."""
_ASKED: Final = 'model!="unknown"'
"""What is refused before its model is known, and probes, are nobody's errors."""


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows.

    Attributes:
        factor: burn rate above which it fires.
        lasting: how long it must hold.
    """

    long: str
    short: str
    factor: float
    severity: str
    lasting: str


@dataclass(frozen=True, slots=True)
class Slo:
    """One service level.

    Attributes:
        name: part of names of series.
        alert: name of its alerts.
        goal: in words.
        budget: the part of requests that may miss it.
        burns: pairs of windows.
    """

    name: str
    alert: str
    goal: str
    budget: float
    burns: tuple[Burn, ...]

    def series(self, window: str) -> str:
        """The recorded part of requests that missed it."""
        return f"inferdock:slo_{self.name}_missed:ratio_rate{window}"


USUAL: Final = (
    Burn("1h", "5m", 14.4, "critical", "2m"),
    Burn("6h", "30m", 6, "critical", "15m"),
    Burn("1d", "2h", 3, "warning", "1h"),
    Burn("3d", "6h", 1, "warning", "3h"),
)
"""Two, five, ten and ten per cent of the budget of 30 days."""
OF_A_MEDIAN: Final = (
    Burn("1h", "5m", 1.8, "critical", "2m"),
    Burn("6h", "30m", 1.5, "critical", "15m"),
    Burn("1d", "2h", 1.2, "warning", "1h"),
    Burn("3d", "6h", 1, "warning", "3h"),
)
"""Half of the requests may miss a median, so nothing burns faster than twice the budget."""

SLOS: Final = (
    Slo("ttft", "InferdockTtftBurn", "95 % of streams begin within 500 ms", 0.05, USUAL),
    Slo("tpot", "InferdockTpotBurn", "half of the streams need at most 50 ms per token", 0.5, OF_A_MEDIAN),
    Slo("errors", "InferdockErrorBurn", "99.5 % of requests are answered without an error", 0.005, USUAL),
)


def _slow(metric: str, bound: float, window: str) -> str:
    within = f'sum by ({BY}) (rate({metric}_bucket{{le="{bound}"}}[{window}]))'
    return f"1 - {within}\n  / (sum by ({BY}) (rate({metric}_count[{window}])) > 0)\n"


def _failed(window: str) -> str:
    every = f"sum by ({BY}) (rate({names.REQUESTS}{{{_ASKED}}}[{window}]))"
    failed = f'sum by ({BY}) (rate({names.REQUESTS}{{{_ASKED},status=~"5.."}}[{window}]))'
    broken = f"sum by ({BY}) (rate({names.BROKEN}[{window}]))"
    return f"(\n  ({failed} or 0 * {every})\n  + ({broken} or 0 * {every})\n) / ({every} > 0)\n"


def missed(slo: Slo, window: str) -> str:
    """The query of the part of requests that missed it."""
    match slo.name:
        case "ttft":
            return _slow(names.TTFT, 0.5, window)
        case "tpot":
            return _slow(names.TPOT, 0.05, window)
        case _:
            return _failed(window)


def _alert(slo: Slo, burn: Burn) -> dict[str, Any]:
    limit = f"{burn.factor:g} * {slo.budget:g}"
    told = f"{burn.long} is {{{{ $value | humanizePercentage }}}}"
    return {
        "alert": slo.alert,
        "expr": f"{slo.series(burn.long)} > {limit}\n  and {slo.series(burn.short)} > {limit}\n",
        "for": burn.lasting,
        "labels": {"severity": burn.severity, "slo": slo.name, "window": burn.long},
        "annotations": {
            "summary": f"{{{{ $labels.model }}}} misses its goal: {slo.goal}.",
            "description": f"The part of requests that missed it over {told}; {slo.budget:.1%} may.",
            "runbook_url": f"{RUNBOOKS}/{slo.alert}.md",
        },
    }


def document() -> dict[str, Any]:
    """The file of rules."""
    records = [{"record": slo.series(w), "expr": missed(slo, w)} for slo in SLOS for w in WINDOWS]
    alerts = [_alert(slo, burn) for slo in SLOS for burn in slo.burns]
    return {"groups": [{"name": "inferdock-slo", "rules": records}, {"name": "inferdock-slo-alerts", "rules": alerts}]}
