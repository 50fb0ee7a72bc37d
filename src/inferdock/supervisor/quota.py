"""How many processors a container may use: the quota of its control group, which the affinity says nothing about.

A pod with `limits.cpu: 2` on a node of 64 processors sees all 64 and is stopped for most of every tenth of a second if
64 threads use them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")


def cpu_quota(cgroup: Path = CGROUP) -> float | None:
    """Processors' worth of time that may be used; None where nothing limits it.

    Args:
        cgroup: where control groups are mounted, as the container sees them: its own is the root.
    """
    return _version_2(cgroup / "cpu.max") or _version_1(cgroup / "cpu")


def _version_2(file: Path) -> float | None:
    """``200000 100000``, or ``max 100000``."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return _share(quota, period)
    except (OSError, ValueError):
        return None


def _version_1(folder: Path) -> float | None:
    """Two files; -1 is no limit."""
    try:
        quota, period = (
            (folder / name).read_text(encoding="ascii") for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
        return _share(quota, period)
    except (OSError, ValueError):
        return None


def _share(quota: str, period: str) -> float | None:
    allowed, each = int(quota), int(period)  # "max" is no number: no limit
    return allowed / each if allowed > 0 and each > 0 else None
