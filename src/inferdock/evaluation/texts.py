"""BLEU, chrF and regular expressions: the one module that needs the extra ``eval``.

sacrebleu, so that the numbers are those that others publish (Post 2018, https://aclanthology.org/W18-6319); ``regex``,
because a hostile pattern must end, and Python's own engine knows no time limit.
"""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from inferdock.domain.errors import ConfigError, ResourceError

PATTERN_S: Final = 1.0
"""Seconds for one search. A pattern that needs longer on one answer counts as not found."""
MAX_REPEATS: Final = 10_000
"""Product of a pattern's counted repeats: the engine writes them out, and nested ones would fill the memory."""
_REPEAT: Final = re.compile(r"\{(\d*),?(\d*)\}")
SLOW_SEARCHES: Final = 3
"""Searches that a pattern may be too slow in; after them it is tried no more."""
ORDERS: Final = 4
"""n-grams up to this length, as always for BLEU."""


class Texts:
    """The packages, loaded."""

    def __init__(self) -> None:
        """Load them.

        Raises:
            ResourceError: they are not installed.
        """
        try:
            self._bleu: Any = importlib.import_module("sacrebleu.metrics.bleu").BLEU
            self._regex: Any = importlib.import_module("regex")
            chrf: Any = importlib.import_module("sacrebleu.metrics.chrf").CHRF
        except ImportError as exc:
            raise ResourceError(
                "BLEU, chrF and regular expressions need sacrebleu and regex.", cure="pip install 'inferdock[eval]'"
            ) from exc
        self._sentence = self._bleu(effective_order=True)  # only its counts are used; it warns otherwise
        self._chrf = chrf()
        self._slow: Counter[str] = Counter()

    def bleu_counts(self, answer: str, reference: str) -> tuple[float, ...]:
        """One answer's share of a corpus BLEU: matches and totals for n = 1-4, length, reference's length.

        Tokens as in sacrebleu's default (13a), case kept.
        """
        score = self._sentence.sentence_score(answer, [reference])
        return (*map(float, score.counts), *map(float, score.totals), float(score.sys_len), float(score.ref_len))

    def bleu(self, sums: Sequence[float]) -> float:
        """Corpus BLEU, 0-100, from the sums of :meth:`bleu_counts`; smoothing as in sacrebleu's default (exp)."""
        whole = [round(x) for x in sums]
        counts, totals = whole[:ORDERS], whole[ORDERS : 2 * ORDERS]
        return float(self._bleu.compute_bleu(counts, totals, whole[-2], whole[-1], smooth_method="exp").score)

    def chrf(self, answer: str, reference: str) -> float:
        """chrF2 of one answer, 0-100 (Popović 2015, https://aclanthology.org/W15-3049)."""
        return float(self._chrf.sentence_score(answer, [reference]).score)

    def compile(self, pattern: str) -> None:
        """Look whether a pattern is one of Python's, and of a size that can be searched for.

        Raises:
            ConfigError: it is none, or repeats more than :data:`MAX_REPEATS` times.
        """
        try:
            re.compile(pattern)  # Python's own: no recursion, no fuzzy matching, which take memory without end
            repeats = math.prod(max(1, int(low or 0), int(high or 0)) for low, high in _REPEAT.findall(pattern))
            if repeats > MAX_REPEATS:
                raise ConfigError(f"The pattern {pattern[:80]!r} repeats more than {MAX_REPEATS:,} times.")
            self._regex.compile(pattern)
        except (self._regex.error, re.error, ValueError, OverflowError, RecursionError, MemoryError) as exc:
            raise ConfigError(f"The pattern {pattern[:80]!r} is no regular expression: {exc}.") from exc

    def found(self, pattern: str, text: str, *, ignore_case: bool) -> bool:
        """True when the pattern occurs in the text, and is found within :data:`PATTERN_S`."""
        if self._slow[pattern] >= SLOW_SEARCHES:
            return False
        flags = self._regex.IGNORECASE if ignore_case else 0
        try:
            return self._regex.search(pattern, text, flags, timeout=PATTERN_S, concurrent=True) is not None
        except (TimeoutError, MemoryError):
            self._slow[pattern] += 1
            return False
