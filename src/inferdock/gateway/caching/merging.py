"""Puts together what several workers say of their response caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder().decode


def merged(name: str, answers: Sequence[bytes]) -> bytes:
    """One document out of those of several workers.

    Args:
        name: see ``operations.NAMES``.
        answers: JSON of each worker, one at least.
    """
    return _ENCODE(_merged(name, [_DECODE(answer) for answer in answers]))


def _merged(name: str, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if name == "stats":
        return _merged_stats(answers)
    if name == "evict":
        return {"evicted": any(answer["evicted"] for answer in answers)}
    if name == "explain":
        order = ("hit", "miss", "bypass", "off")
        return dict(min(answers, key=lambda answer: order.index(str(answer["outcome"]))))
    return dict(answers[0])


def _merged_stats(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = dict(answers[0])
    for name in ("entries", "bytes", "vectors", "saved_tokens", "saved_seconds"):
        total[name] = sum(answer[name] for answer in answers)
    for name in ("requests", "hits", "bypasses", "evictions"):
        sums: dict[str, float] = {}
        for answer in answers:
            for key, value in answer[name].items():
                sums[key] = sums.get(key, 0) + value
        total[name] = sums
    total["audits"] = [row for answer in answers for row in answer["audits"]]
    return total
