"""Back-off, reasons of deaths, state files, preflight checks."""

import json
import os
import random
import socket

import pytest

from inferdock.config.settings import EngineSettings, GatewaySettings, ModelSettings, Settings
from inferdock.domain.errors import EngineError, ResourceError, UnreachableError
from inferdock.supervisor.child import why_it_died
from inferdock.supervisor.engine import Machine
from inferdock.supervisor.model_folder import Model
from inferdock.supervisor.preflight import (
    Check,
    Verdict,
    available_memory,
    check_companions,
    check_length,
    check_memory,
    check_port,
    require,
)
from inferdock.supervisor.replica import backoff
from inferdock.supervisor.state import StateDir, default_state_dir, read_state

MODEL = Model("m", "m", None, "local-1", 2048, 10**9)
CPU = Machine(cpus=(0, 1), gpus=0)


def test_pauses_double_up_to_the_longest():
    pauses = [backoff(n, first_s=1, longest_s=10, jitter=1.0) for n in range(1, 7)]
    assert pauses == [1, 2, 4, 8, 10, 10]


def test_jitter_spreads_pauses_over_the_upper_half():
    rng = random.Random(1)
    pauses = [backoff(3, first_s=1, longest_s=60, jitter=rng.random()) for _ in range(200)]
    assert 2 <= min(pauses) < 2.2
    assert 3.8 < max(pauses) <= 4


def test_many_deaths_do_not_overflow():
    assert backoff(10_000, first_s=1, longest_s=60, jitter=1.0) == 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried", "not enough memory"),
        ("(APIServer pid=5) ValueError: bad thing\n", "ValueError: bad thing"),
        ("OSError: [Errno 98] Address already in use", "port was taken"),
        ("error: unrecognized arguments: --x", "does not know an argument"),
        ("all quiet\nlast line\n", "Its last words were: last line"),
        ("\x1b[31mRuntimeError: coloured\x1b[0m", "RuntimeError: coloured"),
        ("", "said nothing"),
    ],
)
def test_the_reason_of_a_death_is_found_in_its_log(tmp_path, text, words):
    log = tmp_path / "log"
    log.write_text(text)
    assert words in why_it_died(log)


def test_a_missing_log_is_no_crash(tmp_path):
    assert "no log" in why_it_died(tmp_path / "none")


def test_the_state_folder_follows_xdg():
    assert str(default_state_dir({"XDG_STATE_HOME": "/s"})) == "/s/inferdock"


def test_a_running_platform_is_found_and_a_dead_one_is_not(tmp_path):
    state = StateDir(tmp_path, 8080)
    state.prepare()
    state.write({"pid": os.getpid(), "port": 8080})
    assert read_state(tmp_path, None)["port"] == 8080
    state.write({"pid": 2**22 + 1, "port": 8080})
    with pytest.raises(UnreachableError, match="No platform"):
        read_state(tmp_path, None)


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": "x"}', '{"pid": null}', ""])
def test_a_damaged_state_file_is_no_platform(tmp_path, text):
    state = StateDir(tmp_path, 1)
    state.prepare()
    (state.folder / "state.json").write_text(text)
    with pytest.raises(UnreachableError):
        read_state(tmp_path, None)


def test_two_platforms_must_be_told_apart(tmp_path):
    for port in (1, 2):
        state = StateDir(tmp_path, port)
        state.prepare()
        state.write({"pid": os.getpid(), "port": port})
    with pytest.raises(UnreachableError, match="--port") as caught:
        read_state(tmp_path, None)
    assert "1, 2" in caught.value.message
    assert read_state(tmp_path, 2)["port"] == 2


def test_too_little_memory_is_said_with_figures():
    check = check_memory(Settings(engine=EngineSettings(replicas=4)), MODEL, CPU, 4 * 1024**3)
    assert check.verdict is Verdict.FAIL
    assert "4 replica(s) need about" in check.message


def test_memory_is_the_least_of_kernel_and_control_group(tmp_path):
    proc = tmp_path / "meminfo"
    proc.write_text("MemTotal: 100 kB\nMemAvailable: 4000 kB\n")
    (tmp_path / "memory.max").write_text("3000000")
    (tmp_path / "memory.current").write_text("1000000")
    assert available_memory(proc, tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text("max")
    assert available_memory(proc, tmp_path) == 4_096_000


def test_a_held_port_is_said_with_its_holder():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        check = check_port("127.0.0.1", holder.getsockname()[1])
    assert check.verdict is Verdict.FAIL
    assert f"(pid {os.getpid()})" in check.message


def test_an_address_that_is_not_ours_is_said():
    assert check_port("192.0.2.1", 0).verdict is Verdict.FAIL


def test_a_length_beyond_the_models_is_refused():
    settings = Settings(model=ModelSettings(max_model_len=4096), gateway=GatewaySettings())
    assert check_length(settings, MODEL).verdict is Verdict.FAIL


def test_companions_that_do_not_import_are_named():
    class Failed:
        returncode = 1

    check = check_companions(run=lambda *_, **__: Failed())
    assert check.verdict in (Verdict.OK, Verdict.FAIL)
    assert json.dumps(check.message)


def test_the_first_failure_is_raised_as_its_own_error():
    checks = [
        Check("a", Verdict.WARN, "warned"),
        Check("b", Verdict.FAIL, "broken", "mend it", EngineError),
        Check("c", Verdict.FAIL, "later", "", ResourceError),
    ]
    with pytest.raises(EngineError, match="broken"):
        require(iter(checks))
    assert [check.name for check in require(iter(checks[:1]))] == ["a"]
