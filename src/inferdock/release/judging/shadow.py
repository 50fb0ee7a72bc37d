"""Judges the answers to copies of requests: failures, times, and how many say something else. Pure.

The copies are held against what clients got from the revision that serves. Failures and times are judged as those of a
canary (`analysis`). Answers that differ are judged where a limit was set only: a new version is often meant to answer
differently, and whether it answers better is the quality gate's business.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from inferdock.domain.interval import wilson
from inferdock.domain.verdict import Verdict
from inferdock.release.judging.analysis import above, judge, width
from inferdock.release.judging.figures import Counts, Shadows
from inferdock.release.judging.gate import Finding
from inferdock.release.steps import Limits, Shadow

_WORST = (Verdict.FAIL, Verdict.INCONCLUSIVE)


def judge_copies(copies: Shadows, stable: Counts | None, limits: Limits, wanted: Shadow, *, look: int = 0) -> Finding:
    """Whether the answers to copies keep to the limits.

    Args:
        copies: of the new revision, in a window.
        stable: the stable revision's requests in that window; None: it had none.
        limits: of failures and times.
        wanted: how many copies it takes, and how many answers may differ.
        look: 0 for the one look at the end; 1, 2, ... for looks on the way, at failures and times only.
    """
    as_requests = Counts(requests=copies.sent, errors=copies.failed, ttft=copies.ttft, tpot=copies.tpot)
    least = replace(limits, min_requests=wanted.min_samples, min_to_fail=min(limits.min_to_fail, wanted.min_samples))
    findings = [judge(as_requests, stable, least, look=look)]
    if look == 0:
        findings.append(_differences(copies, limits, wanted))
    evidence = {**findings[0].evidence, "copies": _summary(copies), "max_difference": wanted.max_difference}
    for verdict in _WORST:
        if found := [finding.reason for finding in findings if finding.verdict is verdict]:
            return Finding(verdict=verdict, reason="; ".join(found), evidence=evidence)
    reason = f"{copies.sent} copies: " + "; ".join(finding.reason for finding in findings)
    return Finding(verdict=Verdict.PASS, reason=reason, evidence=evidence)


def _differences(copies: Shadows, limits: Limits, wanted: Shadow) -> Finding:
    told = f"{copies.differing} of {copies.compared} comparable answers differ"
    if wanted.max_difference is None:
        return Finding(verdict=Verdict.PASS, reason=f"{told}, which is not judged")
    if copies.compared < wanted.min_samples:
        reason = f"{copies.compared} answers could be compared, and {wanted.min_samples} are wanted"
        return Finding(verdict=Verdict.INCONCLUSIVE, reason=reason)
    share = wilson(copies.differing, copies.equal, width(limits))
    reason = f"{told} ({share.low:.1%} to {share.high:.1%}), and {wanted.max_difference:.1%} may"
    return Finding(verdict=above(share.low, share.high, wanted.max_difference), reason=reason)


def _summary(copies: Shadows) -> dict[str, Any]:
    return {
        "answered": copies.answered,
        "failed": copies.failed,
        "dropped": copies.dropped,
        "equal": copies.equal,
        "different": dict(copies.different),
    }
