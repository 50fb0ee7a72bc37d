"""What a judgement comes to, in evaluations and in the gates of a release alike."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """Pass, fail, or: what was seen does not tell."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
