"""Checks before a start: each finds what would stop us, and names the cure."""

import os
import resource
import socket
import subprocess

import pytest

from inferdock.config.settings import EngineSettings, ModelSettings, Settings
from inferdock.domain.errors import EngineError, ResourceError
from inferdock.supervisor import preflight
from inferdock.supervisor.engine import Machine
from inferdock.supervisor.model_folder import Model, resolve
from inferdock.supervisor.preflight import Check, Verdict, require

GIB = 1024**3
MODEL = Model("m", "m", None, "local-1", 2048, 10**9)
CPU = Machine(cpus=(0, 1))
GPU = Machine(cpus=(0, 1), gpu_names=("0",))


@pytest.mark.parametrize(
    ("available", "verdict"), [(4 * GIB, Verdict.FAIL), (64 * GIB, Verdict.OK), (None, Verdict.OK)]
)
def test_too_little_memory_is_said_with_figures(available, verdict):
    check = preflight.check_memory(Settings(engine=EngineSettings(replicas=4)), MODEL, CPU, available)
    assert check.verdict is verdict
    if available is not None:
        assert "4 replica(s) need about" in check.message


def test_replicas_on_few_processors_need_less_memory():
    four = Settings(engine=EngineSettings(replicas=4))
    on = [preflight.check_memory(four, MODEL, Machine(cpus=tuple(range(n))), 13 * GIB).verdict for n in (2, 16, 17)]
    assert on == [Verdict.OK, Verdict.OK, Verdict.FAIL]


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [
        ("3000000", "1000000", 0, 2_000_000),
        ("3000000", "2900000", 1_900_000, 2_000_000),
        ("max", "1000000", 0, 4_096_000),
        ("1000", "2000", 0, 0),
    ],
    ids=["the group's limit", "file cache is given back", "no limit", "over the limit"],
)
def test_memory_is_the_least_of_kernel_and_control_group(tmp_path, limit, used, cached, free):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 4000 kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(used)
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 0\nslab 7\n")
    assert preflight.available_memory(tmp_path / "meminfo", tmp_path) == free


@pytest.mark.parametrize("text", ["", "MemAvailable:", "MemAvailable: many kB"])
def test_memory_that_cannot_be_read_is_unknown(tmp_path, text):
    (tmp_path / "meminfo").write_text(text)
    assert preflight.available_memory(tmp_path / "meminfo", tmp_path) is None


def test_a_held_port_is_said_with_its_holder():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        check = preflight.check_port("127.0.0.1", holder.getsockname()[1])
    assert check.verdict is Verdict.FAIL
    assert f"(pid {os.getpid()})" in check.message


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a" * 70 + ".example", "nul\0", "ü" * 80])
def test_an_address_that_is_not_ours_is_said(host):
    check = preflight.check_port(host, 0)
    assert (check.verdict, "--host" in check.cure) == (Verdict.FAIL, True)


@pytest.mark.parametrize(("asked", "verdict"), [(4096, Verdict.FAIL), (2048, Verdict.OK), (None, Verdict.OK)])
def test_a_length_beyond_the_models_is_refused(asked, verdict):
    check = preflight.check_length(Settings(model=ModelSettings(max_model_len=asked)), MODEL)
    assert check.verdict is verdict


@pytest.mark.parametrize(
    ("machine", "replicas", "extra", "verdict"),
    [
        (CPU, 8, (), Verdict.OK),
        (GPU, 1, (), Verdict.OK),
        (GPU, 2, (), Verdict.FAIL),
        (GPU, 2, ("--gpu-memory-utilization", "0.4"), Verdict.WARN),
    ],
)
def test_more_replicas_than_gpus_are_refused_unless_they_were_told_to_share(machine, replicas, extra, verdict):
    settings = Settings(engine=EngineSettings(replicas=replicas, extra_args=extra))
    assert preflight.check_gpus(settings, machine).verdict is verdict


def test_a_compiler_is_asked_for_only_where_the_model_is_compiled(monkeypatch):
    monkeypatch.setenv("PATH", "")
    compiled = Settings(engine=EngineSettings(enforce_eager=False))
    assert preflight.check_compiler(Settings(), CPU).verdict is Verdict.OK
    assert preflight.check_compiler(compiled, GPU).verdict is Verdict.OK
    assert preflight.check_compiler(compiled, CPU).verdict is Verdict.FAIL


def finished(status: int):
    return lambda command, **_: subprocess.CompletedProcess(command, status)


def hangs(command, **_):
    raise subprocess.TimeoutExpired(command, 120)


@pytest.mark.parametrize(
    ("run", "verdict"), [(finished(0), Verdict.OK), (finished(1), Verdict.FAIL), (hangs, Verdict.FAIL)]
)
def test_companions_that_do_not_import_are_named(run, verdict):
    check = preflight.check_companions(run, names=("json", "there_is_no_such_package"))
    assert (check.verdict, "json" in check.message) == (verdict, verdict is Verdict.FAIL)
    assert "there_is_no_such_package" not in check.message


def test_a_state_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path):
    assert preflight.check_state_folder(tmp_path / "a" / "b").verdict is not Verdict.FAIL
    (tmp_path / "a").touch()
    check = preflight.check_state_folder(tmp_path / "a" / "b")
    assert (check.verdict, "--state-dir" in check.cure) == (Verdict.FAIL, True)


def test_shared_memory_that_is_missing_is_a_warning(tmp_path):
    assert preflight.check_shm(tmp_path / "none").verdict is Verdict.WARN


def test_the_limit_of_open_files_is_lifted_and_never_lowered():
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before, 1024), hard))
        preflight.raise_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, preflight.WANTED_OPEN_FILES)
        assert preflight.check_open_files().verdict is Verdict.OK
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_doctor_goes_on_after_a_bad_model(tmp_path):
    settings = Settings(model=ModelSettings(source="/nowhere"), engine=EngineSettings(kind="sim"), state_dir=tmp_path)
    checks = list(preflight.all_checks(settings, CPU, lambda: resolve("/nowhere", None)))
    assert [check.name for check in checks if check.verdict is Verdict.FAIL and check.name != "port"] == ["model"]
    assert {"python", "port", "state folder", "shared memory"} <= {check.name for check in checks}


def test_the_first_failure_is_raised_as_its_own_error():
    checks = [
        Check("a", Verdict.WARN, "warned"),
        Check("b", Verdict.FAIL, "broken", "mend it", EngineError),
        Check("c", Verdict.FAIL, "later", "", ResourceError),
    ]
    with pytest.raises(EngineError, match="broken"):
        require(iter(checks))
    assert [check.name for check in require(iter(checks[:1]))] == ["a"]
