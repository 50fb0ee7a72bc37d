"""The report: counts, the JSON document, and the page, which no target can write into."""

from __future__ import annotations

import json

from inferdock.verify.check import Evidence, Outcome, Result
from inferdock.verify.html import page
from inferdock.verify.report import Report, counted, spell_figures, step


def _result(name: str, outcome: Outcome, sentence: str = "seen", **figures: float) -> Result:
    evidence = Evidence(outcome=outcome, sentence=sentence, figures=figures, command="curl <x>")
    return Result(id=name, line=f"line of {name}", evidence=evidence, seconds=0.25)


def _report(*results: Result) -> Report:
    return Report(target="http://t", facts={"model": "m"}, at="2026-01-01T00:00:00+00:00", results=results, seconds=2.0)


PASSED = _result("1.1.a", Outcome.PASS, ttft_ms=12.345)
FAILED = _result("criteria.b", Outcome.FAIL, "<script>alert(1)</script>", lost=float("inf"))
NEEDY = _result("2.3.c", Outcome.NEEDS)


def test_the_whole_fails_with_one_and_is_not_run_with_none() -> None:
    assert _report(PASSED, NEEDY).outcome() is Outcome.PASS
    assert _report(PASSED, FAILED, NEEDY).outcome() is Outcome.FAIL
    assert _report(NEEDY).outcome() is _report().outcome() is Outcome.NEEDS
    assert counted(_report(PASSED, FAILED, NEEDY)) == "1 passed, 1 failed, 1 could not be run here."


def test_the_document_is_json_of_finite_numbers() -> None:
    document = json.loads(json.dumps(_report(PASSED, FAILED).document(), allow_nan=False))
    assert document["counts"] == {"pass": 1, "fail": 1, "needs": 0}
    first, second = document["checks"]
    assert (first["id"], first["step"], first["figures"]) == ("1.1.a", "1.1", {"ttft_ms": 12.345})
    assert (second["outcome"], second["figures"]) == ("fail", {"lost": None})


def test_the_page_stands_alone_and_escapes_what_a_target_said() -> None:
    text = page(_report(PASSED, FAILED, NEEDY))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert "http-equiv" in text
    assert "src=" not in text.replace("default-src", "")
    assert all(part in text for part in ("Step 1.1", "Success criteria", "line of 2.3.c", "curl &lt;x&gt;", "12.3"))


def test_words() -> None:
    assert (step("2.3.budget-there"), step("criteria.ttft")) == ("2.3", "criteria")
    assert spell_figures({"n": 3.0, "ms": 1.23456}) == "n 3, ms 1.235"
