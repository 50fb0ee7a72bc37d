"""What ``inferdock cost`` prints."""

from fractions import Fraction

import click
import pytest

from inferdock.app.cost import Figures, report
from inferdock.cli.cost import _seconds, _short, _show
from inferdock.config.settings import CostSettings
from inferdock.cost.report import money
from inferdock.cost.series import Series
from inferdock.telemetry import names


def counter(name: str, value: float, **labels: str) -> Series:
    return Series(name, {"model": "m", **labels}, [(0.0, 0.0), (60.0, value)])


def figures() -> Figures:
    """A minute: r1 worked for two tenants, one of whom has a hostile name; r2 had nothing to do."""
    gateway = [
        counter(names.REPLICA_SECONDS, 40, revision="r1", state="busy"),
        counter(names.REPLICA_SECONDS, 20, revision="r1", state="idle"),
        counter(names.REPLICA_SECONDS, 60, revision="r2", state="idle"),
        counter(names.TENANT_TOKENS, 4_000_000, revision="r1", tenant="red", kind="prompt"),
        counter(names.TENANT_TOKENS, 12_345, revision="r1", tenant="red", kind="output"),
        counter(names.TENANT_TOKENS, 500, revision="r1", tenant="\x1b[2Jblue", kind="output"),
        counter(names.TENANT_TOKENS, 300, revision="r1", tenant="red", kind="spared_output"),
    ]
    engine = counter(names.ENGINE_PREFIX_HITS, 1_000_000, revision="r1")
    return Figures(gateway, [engine], Fraction(60), "a test")


def test_the_table_shows_tenants_idle_revisions_and_what_is_apart(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    settings = CostSettings(instance_type="g5.xlarge", spot_share=0.5)
    _show(report(settings, figures()))
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert ["m", "r1", "red", "3M", "1M", "12.35k", "300"] in [line[:7] for line in lines]
    assert any(line[:4] == ["m", "r2", "no", "traffic"] for line in lines)
    assert sum("no traffic" in line for line in shown.splitlines()) == 1
    assert "\x1b[2J" not in shown
    assert "idle 67%, working 33%" in shown
    assert "spot saves" in shown
    assert "prefix cache $" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "no data"),
        (0.0, "$0.00"),
        (0.0000076612, "$0.000007661"),
        (0.05, "$0.05"),
        (0.936, "$0.94"),
        (55.04, "$55.04"),
        (12345.6, "$12,346"),
    ],
)
def test_dollars_are_for_people(value, text):
    assert money(value) == text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("7d", 604800), (None, None)])
def test_times_are_read(text, seconds):
    assert _seconds(click.Context(click.Command("x")), click.Option(["--window"]), text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "90", "1.5h", "-5m", "32d", "9999999d", "1h30m", "٣s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(click.BadParameter):
        _seconds(click.Context(click.Command("x")), click.Option(["--window"]), text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (9999, "9999"), (10_000, "10k"), (1_234_567, "1.235M"), (5 * 10**9, "5G")]
)
def test_counts_are_short(count, text):
    assert _short(count) == text
