"""The language of limits: ``bleu >= -2%``, ``held-out:exact >= -0.05``, ``kl <= 0.1``. Pure.

::

    [GROUP:]METRIC >= VALUE   or   <= VALUE

A value with a sign is a change against the champion: with ``%`` in percent of the champion's value, without in the
metric's own unit. A value without a sign is the candidate's own. Metrics that compare with the champion have one value
only; there a sign is just a sign. ``*:`` stands for each group by itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from inferdock.domain.errors import ConfigError
from inferdock.evaluation.metrics import METRICS, Metric

EACH_GROUP: Final = "*"
_FORM: Final = re.compile(
    r"\s*(?:(?P<group>\*|[A-Za-z0-9_.-]{1,64})\s*:)?\s*(?P<metric>[a-z_]+)\s*(?P<op>[<>]=)\s*"
    r"(?P<sign>[+-]?)(?P<number>\d{1,9}(?:\.\d{1,9})?)\s*(?P<percent>%?)\s*"
)
_SIGNS: Final = str.maketrans({"−": "-", "≥": ">=", "≤": "<="})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a metric may be.

    Attributes:
        text: as it was written.
        group: "" for all tasks, ``*`` for each group by itself.
        metric: key of `metrics.METRICS`.
        least: True for ``>=``, False for ``<=``.
        number: bound, percent already divided by 100.
        of: what is bounded: the candidate's ``value``, its ``difference`` from the champion's, or the ``relative``
            change.
    """

    text: str
    group: str
    metric: str
    least: bool
    number: float
    of: Literal["value", "difference", "relative"]

    def holds(self, value: float) -> bool:
        """True on the right side of the bound, and on it. Rounding of floats does not count."""
        slack = 1e-9 * max(1.0, abs(self.number))
        return value >= self.number - slack if self.least else value <= self.number + slack


def parse_limit(text: str) -> Limit:
    """Read a limit.

    Raises:
        ConfigError: it is none, names no metric, or means nothing; the cure says what it could be.
    """
    found = _FORM.fullmatch(text.translate(_SIGNS))
    if found is None:
        raise ConfigError(
            f"{text[:100]!r} is no limit.",
            cure="Write [GROUP:]METRIC >= VALUE or <= VALUE, for instance 'bleu >= -2%' or 'agreement >= 90%'.",
        )
    metric = METRICS.get(found["metric"])
    if metric is None:
        near = difflib.get_close_matches(found["metric"], METRICS, n=1)
        raise ConfigError(
            f"There is no metric {found['metric'][:40]!r}.",
            cure=f"Do you mean {near[0]}?" if near else f"There are {', '.join(METRICS)}.",
        )
    signed, percent = bool(found["sign"]), bool(found["percent"])
    number = float(found["sign"] + found["number"]) / (100 if percent else 1)
    limit = Limit(
        text=" ".join(text.split()),
        group=found["group"] or "",
        metric=metric.name,
        least=found["op"] == ">=",
        number=number,
        of=_bounded(metric, signed=signed, percent=percent),
    )
    _refuse_senseless(limit, metric, percent=percent)
    return limit


def _bounded(metric: Metric, *, signed: bool, percent: bool) -> Literal["value", "difference", "relative"]:
    if metric.pair is not None or not signed:
        return "value"
    return "relative" if percent else "difference"


def _refuse_senseless(limit: Limit, metric: Metric, *, percent: bool) -> None:
    """What would always hold, never, or means something else than it says."""
    if limit.of == "value" and percent and metric.unit != "share":
        signed = metric.pair is None
        raise ConfigError(
            f"{limit.text!r}: {metric.name} is counted in {metric.unit}, and percent of that means nothing.",
            cure="Write a sign for a change against the champion." if signed else "Leave out the percent sign.",
        )
    if limit.of == "value" and limit.least and limit.number <= 0 and metric.name != "logprob":
        raise ConfigError(
            f"{limit.text!r} always holds.",
            cure="For 'not worse than the champion' write a sign, as in 'exact >= -0%'."
            if metric.pair is None
            else f"{metric.name} is never below 0.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a verdict is reached by.

    Attributes:
        limits: all must hold.
        least_samples: tasks below which a limit is not decided.
        given: False for the defaults, of which those are passed over that the tasks have nothing to measure with.
    """

    limits: tuple[Limit, ...]
    least_samples: int = 30
    given: bool = True


DEFAULTS: Final = (
    "bleu >= -2%",
    "chrf >= -2%",
    "exact >= -5%",
    "contains >= -5%",
    "regex >= -5%",
    "refusal <= +0.02",
    "length >= -20%",
    "length <= +20%",
    "failed <= 1%",
)
"""What holds without ``--limit``; docs/evaluation.md says why these numbers."""


def default_rules() -> Rules:
    """The rules when none are given."""
    return Rules(limits=tuple(map(parse_limit, DEFAULTS)), given=False)


def rules(limits: Iterable[str], *, least_samples: int = 30) -> Rules:
    """The given limits, or the defaults when there are none.

    Raises:
        ConfigError: a text is no limit.
    """
    found = tuple(map(parse_limit, limits))
    return Rules(limits=found or default_rules().limits, least_samples=least_samples, given=bool(found))


def for_groups(rules: Rules, groups: Sequence[str]) -> list[Limit]:
    """The limits with ``*`` spelt out.

    Raises:
        ConfigError: a limit names a group that no task has, or each group where there is none.
    """
    found: list[Limit] = []
    for limit in rules.limits:
        if limit.group == EACH_GROUP and groups:
            found += [_in_group(limit, group) for group in groups]
        elif limit.group and limit.group not in groups:
            raise ConfigError(
                f"{limit.text!r}: no task is in the group {limit.group}.",
                cure=f"The groups are {', '.join(groups[:20])}." if groups else "The tasks have no groups.",
            )
        else:
            found.append(limit)
    return found


def _in_group(limit: Limit, group: str) -> Limit:
    return Limit(
        text=f"{group}:{limit.text.partition(':')[2].strip()}",
        group=group,
        metric=limit.metric,
        least=limit.least,
        number=limit.number,
        of=limit.of,
    )
