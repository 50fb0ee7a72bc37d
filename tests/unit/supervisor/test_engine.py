"""Command lines and environments of engines."""

import dataclasses
import os
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.config.settings import EngineSettings, ModelSettings, SimSettings
from inferdock.supervisor.engine import (
    PLUGIN,
    Machine,
    answer_digest,
    child_environment,
    fair_share,
    replica_launch,
    with_bytecode_cache,
)
from inferdock.supervisor.model_folder import Model

FOLDER = Model("/models/m", "m", Path("/models/m"), "local-1", 4096, 1000)
CPU = Machine(cpus=(0, 1, 2, 3))


def launch(engine: EngineSettings, *, index: int = 0, machine: Machine = CPU, model: Model = FOLDER, **settings):
    return replica_launch(
        index=index,
        port=9001,
        engine=engine,
        model_settings=ModelSettings(**settings),
        model=model,
        drain_timeout_s=30,
        machine=machine,
        environment={"PATH": "/bin", "INFERDOCK_GATEWAY__PORT": "1"},
    )


def flag(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def test_vllm_is_started_as_a_module_with_the_served_name():
    command = launch(EngineSettings()).command
    assert command[1:3] == ("-m", "vllm.entrypoints.openai.api_server")
    assert (flag(command, "--model"), flag(command, "--served-model-name")) == ("/models/m", "m")
    assert flag(command, "--port") == "9001"


def test_on_a_cpu_the_kv_cache_is_sized_and_compiling_is_skipped():
    command = launch(EngineSettings(kv_cache_gib=0.5)).command
    assert flag(command, "--kv-cache-memory-bytes") == str(512 * 1024**2)
    assert "--enforce-eager" in command


def test_on_a_gpu_vllm_decides_and_each_replica_has_its_own():
    machine = Machine(cpus=(0, 1), gpu_names=("0", "1"))
    found = launch(EngineSettings(replicas=2), index=1, machine=machine)
    assert "--enforce-eager" not in found.command
    assert "--kv-cache-memory-bytes" not in found.command
    assert found.environment["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_folder_is_served_offline_and_a_hub_name_is_not():
    assert launch(EngineSettings()).environment["HF_HUB_OFFLINE"] == "1"
    hub = Model("org/name", "org/name", None, "hub-1", None, 0)
    assert "HF_HUB_OFFLINE" not in launch(EngineSettings(), model=hub).environment


def test_extra_arguments_and_environment_come_last():
    engine = EngineSettings(extra_args=("--seed", "3"), env={"VLLM_NO_USAGE_STATS": "0"})
    found = launch(engine)
    assert found.command[-2:] == ("--seed", "3")
    assert found.environment["VLLM_NO_USAGE_STATS"] == "0"


def test_vllm_on_processors_finds_the_plugin_before_the_python_path_that_is_there():
    assert launch(EngineSettings()).environment["PYTHONPATH"] == str(PLUGIN)
    found = launch(EngineSettings(env={"PYTHONPATH": "/mine"})).environment["PYTHONPATH"]
    assert found == f"{PLUGIN}{os.pathsep}/mine"


def test_neither_gpus_nor_the_simulation_need_the_plugin():
    gpus = Machine(cpus=(0, 1), gpu_names=("0",))
    assert "PYTHONPATH" not in launch(EngineSettings(), machine=gpus).environment
    assert "PYTHONPATH" not in launch(EngineSettings(kind="sim")).environment


def test_settings_do_not_reach_children_by_the_environment():
    assert child_environment({"INFERDOCK_X": "1", "HOME": "/"}) == {"HOME": "/"}


def test_the_simulated_replica_gets_the_length_of_the_model():
    assert flag(launch(EngineSettings(kind="sim")).command, "--max-model-len") == "4096"


@pytest.mark.parametrize(
    ("replicas", "cpus", "shares"),
    [
        (1, (0, 1), ["0,1"]),
        (2, (0, 1), ["0", "1"]),
        (2, (0, 1, 2), ["0,1", "2"]),
        (3, (4, 5), ["4", "5", "4"]),
        (2, (0, 1, 2, 3), ["0,1", "2,3"]),
    ],
)
def test_processors_are_shared_fairly(replicas, cpus, shares):
    assert [fair_share(index, replicas, cpus) for index in range(replicas)] == shares


def test_one_replica_sees_every_gpu_so_that_it_may_split_the_model():
    machine = Machine(cpus=(0,), gpu_names=("0", "1", "2", "3"))
    assert launch(EngineSettings(), machine=machine).environment["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"


@given(st.integers(1, 40), st.lists(st.integers(0, 500), min_size=1, max_size=40, unique=True))
def test_shares_are_disjoint_complete_and_even_as_long_as_there_is_one_for_each(replicas, cpus):
    shares = [fair_share(index, replicas, tuple(cpus)).split(",") for index in range(replicas)]
    used = [int(cpu) for share in shares for cpu in share]
    if replicas <= len(cpus):
        assert used == cpus
    assert set(used) <= set(cpus)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ("0", "2", "10")), ("2", ("2",)), ("10, GPU-8f2a", ("10", "GPU-8f2a")), ("", ())],
)
def test_gpus_are_seen_without_an_engine_and_narrowed_by_cuda_visible_devices(tmp_path, visible, names):
    for name in ("nvidia10", "nvidia0", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert Machine.here(environment, tmp_path).gpu_names == names


def test_without_a_gpu_cuda_visible_devices_means_nothing(tmp_path):
    assert Machine.here({"CUDA_VISIBLE_DEVICES": "0,1"}, tmp_path).gpus == 0


@pytest.mark.parametrize(
    ("engine", "settings", "present", "absent"),
    [
        ({"tool_call_parser": None}, {}, [], ["--enable-auto-tool-choice"]),
        ({"tool_call_parser": "mistral"}, {}, ["--enable-auto-tool-choice", "mistral"], []),
        ({"enforce_eager": False}, {}, [], ["--enforce-eager"]),
        ({}, {"max_model_len": 512}, ["--max-model-len", "512"], []),
        ({}, {}, ["--shutdown-timeout", "30"], ["--max-model-len"]),
        ({"max_num_seqs": 7}, {"dtype": "float32"}, ["--max-num-seqs", "7", "--dtype", "float32"], []),
    ],
)
def test_each_setting_has_its_flag(engine, settings, present, absent):
    command = launch(EngineSettings(**engine), **settings).command
    assert [word for word in present if word not in command] == []
    assert [word for word in absent if word in command] == []


def test_the_simulated_replica_gets_every_figure_that_was_set():
    sim = SimSettings(ttft_s=0.5, itl_s=0.25, max_num_seqs=3, kv_cache_tokens=99, startup_s=2)
    command = launch(EngineSettings(kind="sim", sim=sim), max_model_len=77).command
    names = ("--ttft", "--itl", "--max-num-seqs", "--kv-cache-tokens", "--startup-time", "--max-model-len")
    assert [flag(command, name) for name in names] == ["0.5", "0.25", "3", "99", "2.0", "77"]


FORBIDDEN = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/h"}


@pytest.mark.parametrize(
    ("base", "kept_in"),
    [
        (FORBIDDEN, "/cache"),
        (FORBIDDEN | {"PYTHONPYCACHEPREFIX": "/own"}, "/own"),
        ({"HOME": "/h"}, None),
        ({"PYTHONDONTWRITEBYTECODE": ""}, None),
    ],
    ids=["forbidden", "has a place of its own", "allowed", "empty means allowed"],
)
def test_compiled_modules_are_kept_where_they_may_not_lie_beside_the_sources(base, kept_in):
    found = with_bytecode_cache(base, Path("/cache"), None)
    assert found.get("PYTHONPYCACHEPREFIX") == kept_in


def test_modules_that_are_compiled_already_are_used_as_they_are(tmp_path):
    source = tmp_path / "engine.py"
    assert with_bytecode_cache(FORBIDDEN, Path("/cache"), source) != FORBIDDEN
    compiled = Path(cache_from_source(source))
    compiled.parent.mkdir(exist_ok=True)
    compiled.touch()
    assert with_bytecode_cache(FORBIDDEN, Path("/cache"), source) == FORBIDDEN


def test_on_few_processors_the_model_runs_in_the_engines_core_with_a_thread_for_each():
    found = launch(EngineSettings(), machine=Machine(cpus=(0, 1))).environment
    assert (found["VLLM_ENABLE_V1_MULTIPROCESSING"], found["OMP_NUM_THREADS"]) == ("0", "2")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in found


def test_on_many_processors_each_replica_is_bound_to_its_own():
    machine = Machine(cpus=tuple(range(16)))
    found = [launch(EngineSettings(replicas=2), index=index, machine=machine).environment for index in (0, 1)]
    assert [f["VLLM_CPU_OMP_THREADS_BIND"] for f in found] == ["0,1,2,3,4,5,6,7", "8,9,10,11,12,13,14,15"]
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in found[0]


CHANGES = {
    "weights": {"model": dataclasses.replace(FOLDER, digest="other")},
    "name": {"model": dataclasses.replace(FOLDER, name="other")},
    "length": {"settings": ModelSettings(max_model_len=64)},
    "dtype": {"settings": ModelSettings(dtype="float32")},
    "argument": {"engine": EngineSettings(extra_args=("--chat-template", "other.jinja"))},
    "environment": {"engine": EngineSettings(env={"VLLM_USE_X": "1"})},
    "tool-parser": {"engine": EngineSettings(tool_call_parser=None)},
    "version": {"version": "0.33.0"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_may_change_an_answer_changes_the_digest(change) -> None:
    usual = {"engine": EngineSettings(), "settings": ModelSettings(), "model": FOLDER, "version": "0.32.0"}
    assert answer_digest(**usual) != answer_digest(**{**usual, **change})
    assert answer_digest(**usual) == answer_digest(**usual)


def test_how_many_replicas_run_changes_no_digest() -> None:
    one, many = EngineSettings(replicas=1), EngineSettings(replicas=4, startup_timeout_s=1, max_num_seqs=8)
    assert answer_digest(one, ModelSettings(), FOLDER, "1") == answer_digest(many, ModelSettings(), FOLDER, "1")
