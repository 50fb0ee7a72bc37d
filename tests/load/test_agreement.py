"""Every number that the platform shows agrees with the load generator's own counts, simulated engines, a minute's half.

The same on real vLLM for ten minutes: ``make bench-agreement``; docs/metrics-agreement.md has its table.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.agreement.__main__ import measured, table

from tests.support.prometheus import MISSING, REASON

pytestmark = [pytest.mark.skipif(MISSING, reason=REASON), pytest.mark.timeout(240)]


async def test_metrics_panels_console_status_and_bill_agree_with_the_clients_through_a_release_and_a_kill(
    tmp_path: Path,
) -> None:
    found = await measured(tmp_path, "sim", seconds=36.0, rate=10.0)
    print(table(found["rows"]))
    assert [f"{row['where']}: {row['number']}" for row in found["rows"] if not row["agrees"]] == []
    assert len(found["rows"]) > 150
    assert {"release", "released", "kill"} <= set(found["events"])
    assert found["restarts"] >= 1
    assert {row["counted"] for row in found["rows"] if row["number"] == "cache: hit"} != {0}
