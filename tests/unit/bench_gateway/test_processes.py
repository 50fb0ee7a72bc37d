"""Process trees and cores."""

import os
import subprocess
import sys

from bench.gateway.processes import Busy, Cores, core_busy_s, cpu_s, others_share, parent_pid, rss_mb, tree
from bench.gateway.runner import worker_cores


def test_a_name_with_spaces_and_parentheses_does_not_hide_the_parent():
    assert parent_pid("12 (tmux: (a) b) S 7 12 12 0 -1") == 7


def test_a_tree_holds_the_process_and_what_it_started():
    command = "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); c.wait()"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert tree(parent.pid) == [parent.pid, child]
        finally:
            os.kill(child, 15)


def test_memory_is_that_of_living_processes():
    sizes = rss_mb([os.getpid(), 2**22 + 1])
    assert len(sizes) == 1
    assert sizes[0] > 5


def test_workers_take_free_cores_before_those_of_the_load(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert worker_cores(2, Cores((0,), (1,))) == (0, 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert worker_cores(2, Cores((0,), (1,))) == (0, 1)


def test_what_others_use_of_a_core_is_what_is_not_ours():
    before, after = Busy(10.0, 5.0, 1.0), Busy(12.0, 6.5, 2.0)
    assert others_share(before, after) == 0.25


def test_a_core_is_busy_with_everything_but_idling_and_waiting():
    lines = ["cpu  9 9 9 9 9 9 9 9 0 0", "cpu1 100 0 200 5000 7000 10 20 70 0 0"]
    assert core_busy_s(lines, 1) == 400 / os.sysconf("SC_CLK_TCK")


def test_the_time_that_a_process_ran_is_read():
    assert cpu_s(os.getpid()) > 0
