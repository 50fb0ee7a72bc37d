"""Step 2.4 of the plan on real vLLM, shortened: one replica, three, and one again, and no request is lost.

How long it takes depends on how fast engines start here; the scenario goes on as soon as they are ready.
``python -m bench.autoscaling`` measures; this only asks that it works.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.load.test_autoscaling_scenario import assert_up_and_down_without_loss, run_against_up

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1500)]

CONFIG = """
engine: {env: {OMP_WAIT_POLICY: PASSIVE, OMP_NUM_THREADS: "1"}, kv_cache_gib: 0.1, max_num_seqs: 16}
autoscaling:
  {enabled: true, max_replicas: 3, requests_per_replica: 3, sync_s: 2,
   scale_up: {stabilization_window_s: 4, policies: [{value: 2, period_s: 10}]},
   scale_down: {stabilization_window_s: 8, policies: [{value: 1, period_s: 4}]}}
"""
LOAD = {"PEAK": "24", "RAMP_S": "20", "STAY_S": "400", "FALL_S": "3", "REST_S": "200", "LIMIT": "3", "TOKENS": "40"}


def test_real_engines_follow_the_load_and_no_request_is_lost(tmp_path: Path) -> None:
    record = run_against_up(tmp_path, CONFIG, start_s=400, **LOAD)
    if keep := os.environ.get("KEEP_PICTURE"):
        shutil.copy(tmp_path / "picture.png", keep)
    assert_up_and_down_without_loss(record)
    assert record["summary"]["ttft_p95_s"] is not None
