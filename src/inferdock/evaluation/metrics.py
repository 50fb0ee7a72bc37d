"""What is measured: one table of metrics, each a sum over tasks, so that the bootstrap can draw tasks again. Pure.

A metric either has a value for each side (then their change counts), or compares the candidate's answers with the
champion's (then it has one value).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal, Protocol

from inferdock.domain.refusals import refuses
from inferdock.evaluation.answers import Answer
from inferdock.evaluation.bootstrap import Row
from inferdock.evaluation.divergence import Divergence
from inferdock.evaluation.tasks import Check, Contains, Exact, Regex, Task


class Scoring(Protocol):
    """Scores of texts; `texts.Texts` is one."""

    def bleu_counts(self, answer: str, reference: str) -> Row:
        """What one answer adds to a corpus BLEU."""
        ...

    def bleu(self, sums: Sequence[float]) -> float:
        """Corpus BLEU from their sums."""
        ...

    def chrf(self, answer: str, reference: str) -> float:
        """chrF of one answer."""
        ...

    def found(self, pattern: str, text: str, *, ignore_case: bool) -> bool:
        """Whether a pattern occurs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One task, answered by the champion, and by the candidate if it could."""

    task: Task
    champion: Answer
    candidate: Answer
    divergence: Divergence | None = None

    @property
    def answered(self) -> bool:
        """True when there are two answers to compare."""
        return not self.champion.error and not self.candidate.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One quantity.

    Attributes:
        name: as limits and reports call it.
        about: one line for people.
        unit: ``share`` (0-1), ``points`` (0-100), ``tokens``, ``ms``, or ``nats``.
        better: which way is better; ``same`` where drift either way is suspect.
        side: what one answer adds; None for a metric that compares, or where the task does not ask for it.
        pair: what one pair of answers adds; None for a metric with a value for each side.
        value: from the sums of what was added.
    """

    name: str
    about: str
    unit: Literal["share", "points", "tokens", "ms", "nats"]
    better: Literal["more", "less", "same"]
    side: Callable[[Task, Answer, Scoring], Row | None] | None = None
    pair: Callable[[Outcome, Scoring], Row | None] | None = None
    value: Callable[[Sequence[float], Scoring], float]

    def row(self, outcome: Outcome, scoring: Scoring) -> Row | None:
        """What a task adds, champion's numbers first, then the candidate's; None where it says nothing."""
        if self.pair is not None:
            return self.pair(outcome, scoring)
        if self.side is None or not outcome.answered:
            return None
        before = self.side(outcome.task, outcome.champion, scoring)
        after = self.side(outcome.task, outcome.candidate, scoring)
        return None if before is None or after is None else (*before, *after)

    def statistic(self, scoring: Scoring) -> Callable[[Sequence[float]], tuple[float, ...]]:
        """Of the sums of rows: champion, candidate, difference and relative change; or the one value."""
        if self.pair is not None:
            return lambda sums: (self.value(sums, scoring),)

        def both(sums: Sequence[float]) -> tuple[float, ...]:
            half = len(sums) // 2
            before, after = self.value(sums[:half], scoring), self.value(sums[half:], scoring)
            return before, after, after - before, _relative(before, after)

        return both


def _relative(before: float, after: float) -> float:
    if before > 0:
        return after / before - 1
    return math.inf if after > 0 else 0.0


def _mean(sums: Sequence[float], _: Scoring) -> float:
    return sums[1] / sums[0] if sums[0] else 0.0


def passes(check: Check, task: Task, text: str, scoring: Scoring) -> bool:
    """Whether an answer meets a check."""
    if isinstance(check, Regex):
        return scoring.found(check.pattern, text, ignore_case=check.ignore_case)
    value = check.value if check.value is not None else task.reference or ""
    if check.ignore_case:
        value, text = value.casefold(), text.casefold()
    return value in text if isinstance(check, Contains) else value.strip() == text.strip()


def _check_of(kind: type[Check]) -> Callable[[Task, Answer, Scoring], Row | None]:
    """1 where all checks of the kind are met; nothing where the task has none."""

    def side(task: Task, answer: Answer, scoring: Scoring) -> Row | None:
        checks = [check for check in task.checks if isinstance(check, kind)]
        return (1.0, float(all(passes(c, task, answer.text, scoring) for c in checks))) if checks else None

    return side


def _bleu(task: Task, answer: Answer, scoring: Scoring) -> Row | None:
    return scoring.bleu_counts(answer.text, task.reference) if task.reference else None


def _bleu_value(sums: Sequence[float], scoring: Scoring) -> float:
    return scoring.bleu(sums)


def _chrf(task: Task, answer: Answer, scoring: Scoring) -> Row | None:
    return (1.0, scoring.chrf(answer.text, task.reference)) if task.reference else None


def _refusal(_: Task, answer: Answer, __: Scoring) -> Row:
    return 1.0, float(refuses(answer.text))


def _length(_: Task, answer: Answer, __: Scoring) -> Row:
    counted = answer.output_tokens
    return 1.0, float(len(_words(answer.text)) if counted is None else counted)


def _pace(_: Task, answer: Answer, __: Scoring) -> Row | None:
    """Nothing where an answer has no tokens, or the engine does not count them."""
    if answer.seconds is None or not answer.output_tokens:
        return None
    return float(answer.output_tokens), answer.seconds * 1e3


def _words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


def _failed(outcome: Outcome, _: Scoring) -> Row | None:
    return None if outcome.champion.error else (1.0, float(bool(outcome.candidate.error)))


def _agreement(outcome: Outcome, _: Scoring) -> Row | None:
    if not outcome.answered:
        return None
    return 1.0, float(outcome.champion.text.strip() == outcome.candidate.text.strip())


def _prefix(outcome: Outcome, _: Scoring) -> Row | None:
    """Tokens by the engines' ids; words where either gives none."""
    if not outcome.answered:
        return None
    before: Sequence[object] = outcome.champion.ids
    after: Sequence[object] = outcome.candidate.ids
    if not before or not after:
        before, after = _words(outcome.champion.text), _words(outcome.candidate.text)
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
    return 1.0, float(sum(1 for _ in equal))


def _bleu_between(outcome: Outcome, scoring: Scoring) -> Row | None:
    if not outcome.answered or not outcome.champion.text:
        return None
    return scoring.bleu_counts(outcome.candidate.text, outcome.champion.text)


def _chrf_between(outcome: Outcome, scoring: Scoring) -> Row | None:
    if not outcome.answered or not outcome.champion.text:
        return None
    return 1.0, scoring.chrf(outcome.candidate.text, outcome.champion.text)


def _logprob(outcome: Outcome, _: Scoring) -> Row | None:
    return (float(outcome.divergence.tokens), outcome.divergence.logprob) if outcome.divergence else None


def _kl(outcome: Outcome, _: Scoring) -> Row | None:
    return (float(outcome.divergence.tokens), outcome.divergence.kl) if outcome.divergence else None


_ALL: Final = (
    Metric(
        name="exact",
        about="answers that equal what is right",
        unit="share",
        better="more",
        side=_check_of(Exact),
        value=_mean,
    ),
    Metric(
        name="contains",
        about="answers that contain what they must",
        unit="share",
        better="more",
        side=_check_of(Contains),
        value=_mean,
    ),
    Metric(
        name="regex",
        about="answers in which the pattern is found",
        unit="share",
        better="more",
        side=_check_of(Regex),
        value=_mean,
    ),
    Metric(
        name="bleu",
        about="corpus BLEU against the references",
        unit="points",
        better="more",
        side=_bleu,
        value=_bleu_value,
    ),
    Metric(
        name="chrf",
        about="mean chrF against the references",
        unit="points",
        better="more",
        side=_chrf,
        value=_mean,
    ),
    Metric(name="refusal", about="answers that refuse", unit="share", better="less", side=_refusal, value=_mean),
    Metric(name="length", about="mean length of answers", unit="tokens", better="same", side=_length, value=_mean),
    Metric(
        name="pace",
        about="time of answers by their output tokens, reading the prompt included; both sides are asked at once",
        unit="ms",
        better="less",
        side=_pace,
        value=_mean,
    ),
    Metric(
        name="failed",
        about="tasks that only the champion answered",
        unit="share",
        better="less",
        pair=_failed,
        value=_mean,
    ),
    Metric(
        name="agreement",
        about="answers equal to the champion's",
        unit="share",
        better="more",
        pair=_agreement,
        value=_mean,
    ),
    Metric(
        name="prefix",
        about="mean common beginning with the champion's answer",
        unit="tokens",
        better="more",
        pair=_prefix,
        value=_mean,
    ),
    Metric(
        name="bleu_between",
        about="corpus BLEU against the champion's answers",
        unit="points",
        better="more",
        pair=_bleu_between,
        value=_bleu_value,
    ),
    Metric(
        name="chrf_between",
        about="mean chrF against the champion's answers",
        unit="points",
        better="more",
        pair=_chrf_between,
        value=_mean,
    ),
    Metric(
        name="logprob",
        about="log-probability of the champion's tokens, candidate minus champion, a token",
        unit="nats",
        better="more",
        pair=_logprob,
        value=_mean,
    ),
    Metric(
        name="kl",
        about="KL divergence from the champion along its answers, a token (lower bound)",
        unit="nats",
        better="less",
        pair=_kl,
        value=_mean,
    ),
)

METRICS: Final = {metric.name: metric for metric in _ALL}
"""Every metric by its name, in the order of reports."""
