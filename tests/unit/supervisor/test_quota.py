"""The processors' time that a container may use."""

import pytest

from inferdock.supervisor.quota import cpu_quota

NONSENSE = ["", "max", "max 100000", "x y", "1 2 3", "-1 100000", "100000 0", "0 100000", "\xff"]


@pytest.mark.parametrize(("text", "quota"), [("200000 100000\n", 2.0), ("50000 100000", 0.5), ("max 100000\n", None)])
def test_the_quota_of_version_2(tmp_path, text, quota):
    (tmp_path / "cpu.max").write_text(text)
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("allowed", "quota"), [("150000\n", 1.5), ("-1\n", None)])
def test_the_quota_of_version_1(tmp_path, allowed, quota):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(allowed)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize("index", range(len(NONSENSE)))
def test_what_says_nothing_limits_nothing(tmp_path, index):
    (tmp_path / "cpu.max").write_bytes(NONSENSE[index].encode("latin-1"))
    assert cpu_quota(tmp_path) is None


def test_no_control_groups_limit_nothing(tmp_path):
    assert cpu_quota(tmp_path / "nowhere") is None
