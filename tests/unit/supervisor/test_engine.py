"""Command lines and environments of engines."""

from pathlib import Path

import pytest

from inferdock.config.settings import EngineSettings, ModelSettings
from inferdock.supervisor.engine import Machine, child_environment, cpu_share, replica_launch
from inferdock.supervisor.model_folder import Model

FOLDER = Model("/models/m", "m", Path("/models/m"), "local-1", 4096, 1000)
CPU = Machine(cpus=(0, 1, 2, 3), gpus=0)


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
    machine = Machine(cpus=(0, 1), gpus=2)
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
    assert [cpu_share(index, replicas, cpus) for index in range(replicas)] == shares
