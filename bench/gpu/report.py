"""The result: a JSON document with everything, and Markdown tables made of nothing but that document. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from bench.gpu.criteria import PLAN, Finding, Step, dollars_per_million, find, find_price, knee
from bench.gpu.device import HourlyPrice
from bench.gpu.engines import Engine
from bench.gpu.load import SIDES, Runs, Sweep
from bench.gpu.shape import Awq, Shape, weight_bytes
from bench.gpu.share import share

_GIB: Final = 1024**3
_NOTHING: Final = "-"


def section(
    *,
    engine: Engine,
    shape: Shape,
    awq: Awq | None,
    found: Sweep,
    pair_rate: float | None,
    pairs: Sequence[Runs],
    price: HourlyPrice | None,
) -> dict[str, Any]:
    """The document's part on one kind of weights."""
    return {
        "engine": {
            "arguments": engine.arguments,
            "environment": engine.environment,
            "quantisation": asdict(awq) if awq else None,
            "start_s": engine.start_s,
        },
        "memory": {
            "computed_weight_bytes": weight_bytes(shape, awq),
            "computed_kv_bytes_per_token": shape.kv_bytes_per_token,
            "reported": asdict(engine.reported),
        },
        "stopped": found.stopped,
        "sides": {side: _side(found.steps[side], price) for side in SIDES},
        "gateway_share": _shares(pair_rate, pairs),
    }


def _side(steps: Sequence[Step], price: HourlyPrice | None) -> dict[str, Any]:
    best = knee(steps)
    findings = [find(objective, steps) for objective in PLAN]
    findings += [find_price(steps, price.dollars)] if price else []
    return {
        "steps": [
            {"rate": step.rate, "summary": step.summary.as_dict()} for step in sorted(steps, key=lambda step: step.rate)
        ],
        "knee_rate": best.rate if best else None,
        "dollars_per_million_tokens_at_knee": dollars_per_million(best.summary, price.dollars)
        if best and price
        else None,
        "criteria": [_finding(one) for one in findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"verdict": finding.verdict.value}


def _shares(rate: float | None, pairs: Sequence[Runs]) -> dict[str, Any]:
    values = {
        name: {side: [getattr(runs[side], name).p50 for runs in pairs] for side in SIDES} for name in ("ttft", "tpot")
    }
    shares = {f"{name}_p50_s": share(by["direct"], by["gateway"]) for name, by in values.items()}
    return {
        "rate": rate,
        "runs": [{side: runs[side].as_dict() for side in SIDES} for runs in pairs],
        **{name: asdict(one) if one else None for name, one in shares.items()},
    }


def pair_rate(found: Sweep) -> float | None:
    """Half the gateway's knee: busy, and far enough from it that queues do not hide what the gateway adds."""
    best = knee(found.steps["gateway"])
    return best.rate / 2 if best else None


def render(document: Mapping[str, Any]) -> str:
    """The document's tables."""
    weights: Mapping[str, Any] = document["weights"]
    parts = [_head(document), _memory(weights)]
    parts += [_sweep(name, part) for name, part in weights.items()]
    parts += [_criteria(document, weights), _share_lines(weights)]
    return "\n\n".join(parts) + "\n"


def _head(document: Mapping[str, Any]) -> str:
    machine, asked = document["machine"], document["configuration"]
    where = machine["gpu"]["name"] if machine["gpu"] else f"{machine['processor']}, {machine['cpus']} cores, no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = " and ".join(f"{one:.1f}" for one in machine["load_average"])
    return (
        f"**{document['note']}** Measured on {document['date']} on {where} ({versions}; commit {machine['commit']}; "
        f"load average before and after: {load}). Shape: {asked['shape']['name']}, {asked['shape']['layers']} layers, "
        f"hidden size {asked['shape']['hidden']}. Prompts of {asked['prompt_tokens']} tokens, answers of "
        f"{asked['output_tokens']}, Poisson arrivals, runs of {asked['seconds_per_run']:.1f} s or longer, seed "
        f"{asked['seed']}."
    )


def _memory(weights: Mapping[str, Any]) -> str:
    rows = []
    for name, part in weights.items():
        memory = part["memory"]
        said = memory["reported"]
        rows.append(
            [
                name,
                f"{memory['computed_weight_bytes'] / _GIB:.3f}",
                _number(said["weight_gib"], ".2f"),
                _number(said["kv_tokens"], ","),
                f"{memory['computed_kv_bytes_per_token']:,}",
                said["kernel"] or _NOTHING,
                f"{part['engine']['start_s']:.0f}",
            ]
        )
    head = [
        "weights",
        "GiB by the shape",
        "GiB the engine reports",
        "KV tokens the engine reports",
        "KV bytes per token",
    ]
    return _table([*head, "kernel for packed weights", "start, s"], rows)


def _sweep(name: str, part: Mapping[str, Any]) -> str:
    rows = []
    for direct, through in zip(*(part["sides"][side]["steps"] for side in SIDES), strict=True):
        rows += [_step(side, step) for side, step in zip(SIDES, (direct, through), strict=True)]
    head = ["requests/s offered", "side", "TTFT p50 / p95 / p99, ms", "TPOT p50 / p95, ms", "requests/s", "goodput/s"]
    knees = ", ".join(f"{side} {_number(part['sides'][side]['knee_rate'], 'g')}" for side in SIDES)
    table = _table([*head, "tokens/s", "failed"], rows)
    late = max(step["summary"]["send_lag_p99_s"] for side in SIDES for step in part["sides"][side]["steps"])
    told = f"{name}; the sweep ended because: {part['stopped']}. Knee, requests/s offered: {knees}. "
    return f"{told}The load was at most {late * 1e3:.1f} ms late (p99 of the worst run).\n\n{table}"


def _step(side: str, step: Mapping[str, Any]) -> list[str]:
    summary = step["summary"]
    return [
        f"{step['rate']:g}",
        side,
        " / ".join(_milliseconds(summary["ttft"][name]) for name in ("p50", "p95", "p99")),
        " / ".join(_milliseconds(summary["tpot"][name]) for name in ("p50", "p95")),
        f"{summary['requests_per_s']:.1f}",
        f"{summary['goodput_per_s']:.1f}",
        f"{summary['total_tokens_per_s']:,.0f}",
        f"{summary['requests'] - summary['succeeded']} of {summary['requests']}",
    ]


def _criteria(document: Mapping[str, Any], weights: Mapping[str, Any]) -> str:
    rows = [
        [name, side, one["criterion"], one["verdict"], _number(one["value"], ".4g"), _number(one["rate"], "g")]
        for name, part in weights.items()
        for side in SIDES
        for one in part["sides"][side]["criteria"]
    ]
    head = ["weights", "side", "criterion", "verdict", "value there (s, 1/s, $)", "met up to requests/s offered"]
    price = document["configuration"]["price"]
    told = f"Price: ${price['dollars']:.4f} an hour, {price['source']}." if price else "No price, so none is judged."
    return f"{_table(head, rows)}\n\n{told}"


def _share_lines(weights: Mapping[str, Any]) -> str:
    rows = []
    for name, part in weights.items():
        found = part["gateway_share"]
        for label, key in (("TTFT p50", "ttft_p50_s"), ("TPOT p50", "tpot_p50_s")):
            one = found[key]
            if one:
                between = f"{one['low'] * 1e3:+.2f} to {one['high'] * 1e3:+.2f}"
                median = f"{one['median'] * 1e3:+.2f}"
                rows.append(
                    [name, label, f"{found['rate']:g}", median, between, f"{one['confidence']:.0%}", str(one["pairs"])]
                )
    if not rows:
        return "The gateway's share was not measured: nothing was served well enough."
    head = [
        "weights",
        "gateway less direct",
        "requests/s offered",
        "median, ms",
        "interval, ms",
        "its confidence",
        "pairs",
    ]
    return _table(head, rows)


def _milliseconds(value: float | None) -> str:
    return _NOTHING if value is None else f"{value * 1e3:.1f}"


def _number(value: float | None, form: str) -> str:
    return _NOTHING if value is None else format(value, form)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
