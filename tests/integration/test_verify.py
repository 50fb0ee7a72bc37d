"""`inferdock verify` on simulated replicas: a right platform passes, a slow one fails where it is slow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from inferdock.cli.main import cli
from inferdock.domain.errors import CheckFailedError, ConfigError, InconclusiveError
from tests.docs.pages import ROOT
from tests.support.platform import Platform

QUICK = "1.1.health,1.1.engines,1.2.models,1.4.metrics,1.4.engine,1.5.chat,1.5.completion,1.5.stream,1.5.errors"
LOAD = ("--load-seconds", "1", "--users", "60", "--cost-per-hour", "0.1")
OPTIONAL = {"criteria.rollback", "criteria.downtime"}
"""Without --with-release they only say so."""


def _run(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON report."""
    result = CliRunner().invoke(cli, ["verify", "--state-dir", str(folder), "-o", "json", *words])
    code = result.exit_code if result.exception is None else getattr(result.exception, "exit_code", 1)
    return code, json.loads(result.stdout) if result.stdout else {}


def _outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["outcome"] for check in report["checks"]}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Two simulated replicas."""
    platform = Platform(tmp_path_factory.mktemp("verify"), "--engine", "sim", "--replicas", "2")
    try:
        platform.wait_until_ready(2, within_s=60)
        yield platform
        assert platform.stop() == 0
    finally:
        platform.kill()


def test_a_right_platform_passes_with_evidence(platform: Platform, tmp_path: Path) -> None:
    page, document = tmp_path / "out" / "verify.html", tmp_path / "out" / "verify.json"
    words = ("--only", f"{QUICK},2.3.drain,criteria", "--disruptive", *LOAD)
    code, report = _run(platform.state_dir, *words, "--html", str(page), "--json", str(document))
    outcomes = _outcomes(report)
    assert {name for name, outcome in outcomes.items() if outcome != "pass"} == OPTIONAL
    assert (code, report["counts"]["fail"]) == (0, 0)
    assert all(check["sentence"] for check in report["checks"])
    assert json.loads(document.read_text()) == report
    assert "criteria.ttft" in page.read_text()
    figures = {check["id"]: check["figures"] for check in report["checks"]}
    assert figures["criteria.throughput"]["requests_per_s"] > 10
    assert 0 < figures["criteria.cost"]["dollars_per_million"] < 0.6


def test_strict_fails_for_what_could_not_be_run(platform: Platform) -> None:
    words = ("--only", "1.1.health,criteria.rollback")
    assert _run(platform.state_dir, *words)[0] == 0
    assert _run(platform.state_dir, *words, "--strict")[0] == CheckFailedError.exit_code


def test_the_url_alone_finds_the_platform_and_another_model_fails(platform: Platform) -> None:
    words = ("--url", f"{platform.url}/v1", "--model", "other", "--only", "1.1.engines,1.2.models,1.5.chat")
    code, report = _run(platform.state_dir, *words)
    assert code == CheckFailedError.exit_code
    assert _outcomes(report) == {"1.1.engines": "fail", "1.2.models": "fail", "1.5.chat": "fail"}


def test_a_table_and_a_page_can_be_printed_and_a_wrong_pattern_is_refused(platform: Platform) -> None:
    words = ["verify", "--state-dir", str(platform.state_dir), "--only", "1.2.models"]
    assert "1 passed, 0 failed." in CliRunner().invoke(cli, words).stdout
    assert CliRunner().invoke(cli, [*words, "-o", "html"]).stdout.startswith("<!DOCTYPE html>")
    assert _run(platform.state_dir, "--only", "9.9")[0] == ConfigError.exit_code


def test_a_slow_platform_fails_where_it_is_slow(tmp_path: Path) -> None:
    config = tmp_path / "inferdock.yaml"
    config.write_text('engine: {extra_args: ["--fault", "slow:12"]}\n')
    platform = Platform(tmp_path / "up", "--engine", "sim", "-f", str(config))
    try:
        platform.wait_until_ready(1, within_s=60)
        code, report = _run(platform.state_dir, "--only", "1.1.health,1.5.chat,criteria", *LOAD)
        assert platform.stop() == 0
    finally:
        platform.kill()
    failed = {name for name, outcome in _outcomes(report).items() if outcome == "fail"}
    assert failed == {"criteria.ttft", "criteria.tpot", "criteria.throughput"}
    assert code == CheckFailedError.exit_code


def test_where_nothing_answers_nothing_can_be_run(tmp_path: Path) -> None:
    code, report = _run(tmp_path, "--url", "http://127.0.0.1:9", "--only", "1.5.chat,criteria.ttft")
    assert code == InconclusiveError.exit_code
    assert set(_outcomes(report).values()) == {"needs"}
    assert "inferdock up" in report["checks"][0]["sentence"]


def test_outside_of_a_checkout_its_checks_say_so(tmp_path: Path) -> None:
    words = ("--url", "http://127.0.0.1:9", "--checkout", str(tmp_path), "--only", "1.3.lint")
    code, report = _run(tmp_path, *words)
    assert (code, report["checks"][0]["outcome"]) == (InconclusiveError.exit_code, "needs")
    assert "--checkout" in report["checks"][0]["sentence"]
    code, report = _run(tmp_path, *words[:2], "--checkout", str(ROOT / "docs"), "--only", "1.3.lint")
    assert (code, report["checks"][0]["outcome"]) == (0, "pass")
