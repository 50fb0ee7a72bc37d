"""Failures that no client saw, and answers that broke after a good status, count against a revision."""

from __future__ import annotations

import pytest

from inferdock.domain.verdict import Verdict
from inferdock.release.judging.analysis import judge
from inferdock.release.judging.figures import Counts, Shadows
from inferdock.release.judging.readings import counts_of
from inferdock.release.steps import Limits
from inferdock.telemetry import names
from inferdock.telemetry.scrape import read_figures

LIMITS = Limits(ttft_p95_s=None, tpot_p50_s=None, ttft_ratio=None, tpot_ratio=None)
GOOD = Counts(requests=1000, attempts=1000)
REVISION = 'model="m",revision="1.1.0-b"'
TEXT = f"""
{names.REQUESTS}{{{REVISION},route="/v1/completions",status="200"}} 40
{names.BROKEN}{{{REVISION}}} 4
{names.ATTEMPTS}{{{REVISION},outcome="answered"}} 36
{names.ATTEMPTS}{{{REVISION},outcome="cut"}} 6
{names.ATTEMPTS}{{{REVISION},outcome="failed"}} 1
{names.ATTEMPTS}{{{REVISION},outcome="cancelled"}} 9
{names.ATTEMPTS}{{{REVISION},outcome="moved"}} 9
{names.ATTEMPTS}{{{REVISION},outcome="stale"}} 9
{names.ATTEMPTS}{{model="n",revision="1.1.0-b",outcome="failed"}} 99
{names.SHADOW_REQUESTS}{{{REVISION},outcome="answered"}} 20
{names.SHADOW_REQUESTS}{{{REVISION},outcome="failed"}} 2
{names.SHADOW_REQUESTS}{{{REVISION},outcome="busy"}} 3
{names.SHADOW_DIFFERENCES}{{{REVISION},kind="equal"}} 11
{names.SHADOW_DIFFERENCES}{{{REVISION},kind="text"}} 4
{names.SHADOW_DIFFERENCES}{{{REVISION},kind="not_compared"}} 5
{names.SHADOW_TTFT}_bucket{{{REVISION},le="0.1"}} 15
{names.SHADOW_TTFT}_bucket{{{REVISION},le="+Inf"}} 22
"""


def test_the_gateways_figures_are_read_by_revision() -> None:
    counts = counts_of(read_figures(TEXT, "m")["1.1.0-b"])
    assert (counts.requests, counts.errors, counts.attempts, counts.failures) == (40, 4, 43, 7)
    shadow = counts.shadow
    assert (shadow.answered, shadow.failed, shadow.dropped, shadow.equal) == (20, 2, 3, 11)
    assert (shadow.different, shadow.compared, shadow.ttft.counts) == ({"text": 4}, 15, (15, 7))


def test_streams_that_were_saved_from_a_dying_revision_fail_it() -> None:
    dying = Counts(requests=200, attempts=240, failures=40)
    finding = judge(dying, GOOD, LIMITS)
    assert finding.verdict is Verdict.FAIL
    assert "attempt_failure_rate" in finding.reason
    assert finding.evidence["new"]["attempt_failures"] == 40


def test_a_revision_whose_requests_are_all_answered_elsewhere_fails() -> None:
    nowhere = Counts(requests=0, attempts=30, failures=30)
    assert judge(nowhere, GOOD, LIMITS).verdict is Verdict.FAIL


@pytest.mark.parametrize("failures", [1, 2])
def test_a_failed_try_among_thousands_passes(failures: int) -> None:
    assert judge(Counts(requests=2000, attempts=2000, failures=failures), GOOD, LIMITS).verdict is Verdict.PASS


def test_a_revision_without_failed_tries_is_judged_by_its_requests_alone() -> None:
    finding = judge(Counts(requests=400, attempts=20), GOOD, LIMITS)
    assert finding.verdict is Verdict.PASS
    assert [one["limit"] for one in finding.evidence["limits"]] == ["error_rate", "error_increase"]


def test_shadow_requests_are_in_no_figure_of_clients() -> None:
    shadow = Shadows(answered=500, failed=500, different={"text": 400})
    assert judge(Counts(requests=1000, attempts=1000, shadow=shadow), GOOD, LIMITS).verdict is Verdict.PASS


def test_more_failures_than_tries_are_no_counts() -> None:
    with pytest.raises(ValueError, match="more errors"):
        Counts(attempts=1, failures=2)
