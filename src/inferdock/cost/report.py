"""A bill as rows and as one document. Pure. Numbers are rounded only here; None is "no data"."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from inferdock.cost.amounts import ZERO
from inferdock.cost.bill import Bill, Held, Use, unit_prices
from inferdock.cost.usage import Weights

DIGITS = 12
"""Of numbers in documents, after the point: a token may cost less than a millionth of a dollar."""


def document(
    bill: Bill, *, elapsed: Fraction, weights: Weights, notes: list[str], prefix_cache_seen: bool = True
) -> dict[str, Any]:
    """Everything that a bill says, as JSON has it. Amounts in dollars, times in seconds.

    Args:
        elapsed: length of the window in seconds.
        weights: that the bill was made with.
        notes: what a reader should know.
        prefix_cache_seen: what the prefix cache saved is known.
    """
    body = _document(bill, elapsed, weights, notes)
    if not prefix_cache_seen:
        for row in (body["total"], *body["models"], *body["revisions"], *body["tenants"]):
            row["saved_dollars"]["prefix_cache"] = None
    return body


def _document(bill: Bill, elapsed: Fraction, weights: Weights, notes: list[str]) -> dict[str, Any]:
    models = sorted({key[0] for key in (*bill.uses, *bill.held)})
    return {
        "elapsed_s": _number(elapsed),
        "weights": {"prompt": _number(weights.prompt), "cached": _number(weights.cached), "output": 1.0},
        "total": _whole(bill, elapsed),
        "models": [{"model": model, **_whole(bill.of(model=model), elapsed)} for model in models],
        "revisions": [
            {"model": key[0], "revision": key[1], **_whole(bill.of(model=key[0], revision=key[1]), elapsed)}
            for key in sorted({*(line[:2] for line in bill.uses), *bill.held})
        ],
        "tenants": [
            {
                "model": model,
                "revision": revision,
                "tenant": tenant,
                **_used(use, use.total, known=bool(bill.held.get((model, revision), Held()).seconds)),
            }
            for (model, revision, tenant), use in sorted(bill.uses.items())
        ],
        "notes": notes,
    }


def _whole(bill: Bill, elapsed: Fraction) -> dict[str, Any]:
    paid, use = bill.paid, bill.use
    per_hour = paid.total * 3600 / elapsed if elapsed else None
    return {**_used(use, paid.total, known=bool(paid.seconds)), "dollars_per_hour": _number(per_hour), **_held(paid)}


def _used(use: Use, total: Fraction, *, known: bool) -> dict[str, Any]:
    prices = unit_prices(use, total, known=known)
    return {
        "tokens": {"prompt": use.tokens.prompt, "cached": use.tokens.cached, "output": use.tokens.output},
        "spared_tokens": {"prompt": use.spared.prompt, "output": use.spared.output},
        "dollars": _number(total),
        "work_dollars": {
            "prompt": _number(use.prompt),
            "cached": _number(use.cached),
            "output": _number(use.output),
        },
        "overhead_dollars": _number(use.overhead),
        "dollars_per_million": {name: _number(getattr(prices, name)) for name in prices.__dataclass_fields__},
        "saved_dollars": {
            "prefix_cache": _number(use.saved_by_prefix_cache),
            "response_cache": _number(_spared(use)),
        },
    }


def _spared(use: Use) -> Fraction | None:
    """None where tokens were spared, and nothing tells what any would have cost."""
    return None if use.unpriced and use.unpriced == use.spared.total else use.saved_by_response_cache


def _held(paid: Held) -> dict[str, Any]:
    return {
        "time_dollars": {
            "starting": _number(paid.starting),
            "idle": _number(paid.idle),
            "busy": _number(paid.busy),
            "unassigned": _number(paid.unassigned),
        },
        "purchase_dollars": {str(kind): _number(amount) for kind, amount in sorted(paid.by_purchase.items())},
        "on_demand_dollars": _number(paid.on_demand),
        "saved_by_spot_dollars": _number(_by_spot(paid)),
        "machine_seconds": _number(paid.seconds),
    }


def _by_spot(paid: Held) -> Fraction:
    return max(ZERO, paid.on_demand - paid.total)


def _number(value: Fraction | None) -> float | None:
    return None if value is None else round(float(value), DIGITS)


def money(value: float | None) -> str:
    """Dollars for people: cents where they matter, four digits below, and never an exponent."""
    if value is None:
        return "no data"
    if value >= 100:
        return f"${value:,.0f}"
    if value >= 0.1 or value == 0:
        return f"${value:.2f}"
    return f"${Decimal(f'{value:.4g}'):f}"


def shares(parts: Mapping[str, float]) -> str:
    """Parts of a whole in percent, the largest first; "" where the whole is 0."""
    whole = sum(parts.values())
    if not whole:
        return ""
    return ", ".join(
        f"{name} {part / whole:.0%}" for name, part in sorted(parts.items(), key=lambda one: -one[1]) if part
    )
