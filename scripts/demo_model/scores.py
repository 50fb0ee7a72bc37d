"""Exact match and corpus BLEU.

BLEU-4 after Papineni et al. 2002 (https://aclanthology.org/P02-1040): clipped n-gram precisions for n = 1-4, their
geometric mean, times the brevity penalty; tokens are words and single punctuation marks, case is kept, and there is
no smoothing, so a corpus without one common 4-gram scores 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

MAX_N = 4


def tokens(text: str) -> list[str]:
    """Words and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


def exact_match(answers: Sequence[str], references: Sequence[str]) -> float:
    """Share of answers that equal their reference but for white space at the ends, 0-1."""
    return sum(a.strip() == r.strip() for a, r in zip(answers, references, strict=True)) / max(1, len(references))


def corpus_bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU-4 with one reference each, 0-100."""
    matched, total = [0] * MAX_N, [0] * MAX_N
    answer_length = reference_length = 0
    for answer, reference in zip(answers, references, strict=True):
        ours, theirs = tokens(answer), tokens(reference)
        answer_length += len(ours)
        reference_length += len(theirs)
        for n in range(1, MAX_N + 1):
            mine, right = _ngrams(ours, n), _ngrams(theirs, n)
            matched[n - 1] += sum((mine & right).values())
            total[n - 1] += sum(mine.values())
    if 0 in matched or not answer_length:
        return 0.0
    precision = math.exp(sum(math.log(m / t) for m, t in zip(matched, total, strict=True)) / MAX_N)
    brevity = min(1.0, math.exp(1 - reference_length / answer_length))
    return 100 * brevity * precision


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
