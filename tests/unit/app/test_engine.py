"""The engine's own entry: which bytes it starts on, with which command, and when nobody sends it requests any more."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from inferdock.app import engine as entry
from inferdock.app.engine import (
    Place,
    as_first_process,
    check_place,
    engine_launch,
    find_engine_model,
    wait_until_left_alone,
)
from inferdock.app.registry import open_cache, open_registry
from inferdock.config.settings import EngineSettings, ModelSettings, RegistrySettings, Settings
from inferdock.domain.errors import ConfigError, EngineError, IntegrityError, RegistryError
from inferdock.registry.manifest import Engine
from inferdock.registry.names import Reference
from inferdock.registry.progress import Silent
from inferdock.registry.pull import pull_to
from inferdock.registry.push import Request, push
from inferdock.supervisor.engine import Launch, Machine
from inferdock.supervisor.model_folder import Model
from tests.support.model_folders import write_model

FOLDER = Model("/models/m", "m", Path("/models/m"), "local-1", 4096, 1000)
CPUS = tuple(range(64))


class Cluster:
    """A registry with ``m@1.0.0``, and the cache of one pod."""

    def __init__(self, folder: Path) -> None:
        self.registry = RegistrySettings(url=str(folder / "registry"), cache_dir=folder / "cache")
        served = Engine(arguments=("--max-model-len", "512"))
        request = Request(folder=write_model(folder / "model"), name="m", version="1.0.0", engine=served)
        push(open_registry(self.registry, {}), request, Silent())
        self.version = open_registry(self.registry, {}).version(Reference.parse("m@1.0.0"))
        self.revision = self.version.manifest.revision

    def pull(self) -> Path:
        """What the init container does."""
        store = open_registry(self.registry, {}).store
        return open_cache(self.registry, {}).pull(store, self.version.manifest, Silent()).folder

    def find(self, source: str = "m@1.0.0", *, offline: bool = True, revision: str | None = None, **registry) -> Model:
        """What the engine's container does."""
        settings = Settings(
            model=ModelSettings(source=source), registry=self.registry.model_copy(update={"url": "/nowhere"} | registry)
        )
        return find_engine_model(settings, {}, Silent(), offline=offline, revision=revision)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def flip(path: Path) -> None:
    """Change one bit."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_version_that_was_pulled_is_started_without_the_registry(cluster: Cluster) -> None:
    folder = cluster.pull()
    model = cluster.find()
    assert (model.folder, model.name, model.reference) == (folder, "m", "m@1.0.0")
    assert model.revision == f"1.0.0-{cluster.revision[:12]}"
    assert model.arguments == ("--max-model-len", "512")


def test_one_flipped_bit_is_refused(cluster: Cluster) -> None:
    for link in sorted(path for path in cluster.pull().rglob("*") if path.is_symlink()):
        flip(link.resolve())
        with pytest.raises(IntegrityError, match=link.name):
            cluster.find()
        cluster.pull()


def test_a_version_that_was_not_pulled_is_no_crash(cluster: Cluster) -> None:
    with pytest.raises(RegistryError, match=r"holds no m@1\.0\.0") as refused:
        cluster.find()
    assert "inferdock model pull m@1.0.0" in refused.value.cure


@pytest.mark.parametrize("digits", [12, 40, 64])
def test_the_revision_says_which_bytes(cluster: Cluster, digits: int) -> None:
    cluster.pull()
    assert cluster.find(revision=cluster.revision[:digits]).digest == cluster.revision
    assert cluster.find(revision=f"1.0.0-{cluster.revision[:digits]}").digest == cluster.revision


def test_another_revision_is_refused(cluster: Cluster) -> None:
    cluster.pull()
    other = "0" * 12 if not cluster.revision.startswith("0" * 12) else "1" * 12
    with pytest.raises(RegistryError, match=other):
        cluster.find(revision=other)
    with pytest.raises(IntegrityError, match=other):
        cluster.find(offline=False, revision=other, url=cluster.registry.url)


@pytest.mark.parametrize("revision", ["1.0.0", "abc", "1.0.0-xyz", "-" + "0" * 12, " " * 12, "0" * 65, "A" * 12])
def test_what_is_no_revision_is_said(cluster: Cluster, revision: str) -> None:
    with pytest.raises(ConfigError, match="no revision"):
        cluster.find(revision=revision)


def test_an_alias_needs_the_registry_or_a_revision(cluster: Cluster) -> None:
    cluster.pull()
    with pytest.raises(ConfigError, match="registry"):
        cluster.find("m@champion")
    assert cluster.find("m@champion", revision=cluster.revision).reference == "m@1.0.0"


def test_where_signatures_count_the_cache_alone_is_believed_only_by_the_whole_digest(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.pull()
    trusted = {"trusted_key_files": (tmp_path / "key.pem",)}
    for short in (None, cluster.revision[:12]):
        with pytest.raises(ConfigError, match="signature"):
            cluster.find(revision=short, **trusted)
    assert cluster.find(revision=cluster.revision, **trusted).digest == cluster.revision


@pytest.mark.parametrize("manifest", ["", "{}", "[" * 100_000, "x" * 1000])
def test_a_damaged_manifest_in_the_cache_is_no_version(cluster: Cluster, manifest: str) -> None:
    (cluster.pull() / "MANIFEST.json").write_text(manifest)
    with pytest.raises(RegistryError, match="holds no"):
        cluster.find()


def test_a_folder_that_a_pull_filled_is_held_to_its_manifest(cluster: Cluster, tmp_path: Path) -> None:
    target, store = tmp_path / "plain", open_registry(cluster.registry, {}).store
    pull_to(store, cluster.version.manifest, target, threads=2, progress=Silent())
    model = cluster.find(str(target), offline=False, revision=cluster.revision)
    assert (model.folder, model.reference, model.arguments) == (target, "m@1.0.0", ("--max-model-len", "512"))
    flip(target / "config.json")
    with pytest.raises(IntegrityError, match=r"config\.json"):
        cluster.find(str(target), offline=False)


def test_a_folder_without_a_manifest_is_served_but_held_to_no_revision(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.find(str(tmp_path / "model")).name == "model"
    for source in (str(tmp_path / "model"), "org/model"):
        with pytest.raises(ConfigError, match="no manifest"):
            cluster.find(source, revision="0" * 12)


def place(*, gpus: tuple[str, ...] = (), quota: float | None = None, **other) -> Place:
    return Place(machine=Machine(cpus=CPUS, gpu_names=gpus), quota=quota, **other)


def test_the_command_is_that_of_a_replica_with_the_containers_address():
    launch = engine_launch(Settings(drain_timeout_s=40), FOLDER, place(host="0.0.0.0", python="/usr/bin/python3"), {})
    command = " ".join(launch.command)
    assert command.startswith("/usr/bin/python3 -m vllm.entrypoints.openai.api_server --model /models/m")
    assert "--served-model-name m --port 8000" in command
    assert "--shutdown-timeout 40" in command
    assert command.endswith("--host 0.0.0.0")


def test_arguments_of_the_configuration_come_last():
    settings = Settings(engine=EngineSettings(extra_args=("--seed", "3")))
    assert engine_launch(settings, FOLDER, place(), {}).command[-2:] == ("--seed", "3")


@pytest.mark.parametrize(("given", "seen"), [({}, None), ({"CUDA_VISIBLE_DEVICES": "1"}, "1")])
def test_device_files_name_no_gpus_in_a_container(given, seen):
    launch = engine_launch(Settings(), FOLDER, place(gpus=("3",)), given)
    assert launch.environment.get("CUDA_VISIBLE_DEVICES") == seen


def test_gpus_that_the_configuration_chose_stay():
    settings = Settings(engine=EngineSettings(env={"CUDA_VISIBLE_DEVICES": "0"}))
    environment = engine_launch(settings, FOLDER, place(gpus=("3",)), {"CUDA_VISIBLE_DEVICES": "1"}).environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize(
    ("quota", "threads", "bind"),
    [(2.5, "2", None), (0.3, "1", None), (8.0, "8", "nobind"), (None, None, ",".join(map(str, CPUS)))],
)
def test_threads_follow_the_quota_and_are_bound_only_where_processors_are_ours(quota, threads, bind):
    environment = engine_launch(Settings(), FOLDER, place(quota=quota), {}).environment
    assert environment.get("OMP_NUM_THREADS") == threads
    assert environment.get("VLLM_CPU_OMP_THREADS_BIND") == bind


def test_the_configuration_may_bind_and_count_threads_itself():
    engine = EngineSettings(env={"VLLM_CPU_OMP_THREADS_BIND": "0-3"})
    environment = engine_launch(Settings(engine=engine), FOLDER, place(quota=8.0), {}).environment
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0-3"
    engine = EngineSettings(env={"OMP_NUM_THREADS": "6"})
    assert engine_launch(Settings(engine=engine), FOLDER, place(quota=8.0), {}).environment["OMP_NUM_THREADS"] == "6"


@pytest.mark.parametrize("python", ["/nowhere/python", "/etc/passwd", "a\0b"])
def test_an_interpreter_that_cannot_be_run_is_said(python):
    with pytest.raises(EngineError, match="cannot be run"):
        entry.require(iter([entry._check_vllm(python)]))


@pytest.mark.parametrize(("status", "works"), [(0, True), (1, False)])
def test_an_interpreter_without_vllm_is_said(status, works):
    check = entry._check_vllm("/usr/bin/python3", lambda *a, **k: SimpleNamespace(returncode=status))
    assert (check.verdict.value == "ok") is works
    assert ("no vLLM" in check.message) is not works


def test_a_simulated_engine_needs_neither_vllm_nor_shared_memory():
    settings = Settings(engine=EngineSettings(kind="sim"))
    assert check_place(settings, FOLDER, place(python="/nowhere", port=0)) == []


SLOW_MODULE = """
import sys, time
print(__name__, __spec__.name, sys.argv[1:], flush=True)
time.sleep(60)
"""


def test_the_first_process_of_a_container_hears_sigterm_before_the_engine_listens(tmp_path):
    (tmp_path / "slow_engine.py").write_text(SLOW_MODULE)
    launch = as_first_process(Launch((sys.executable, "-m", "slow_engine", "--a", "b c"), {}))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as `inferdock engine` does, and children inherit it
    try:
        process = subprocess.Popen(launch.command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "__main__ slow_engine ['--a', 'b c']\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


class Metrics:
    """An engine's metrics on a clock of the test's own."""

    def __init__(self, arrivals: list[float], *, gone_at: float = 1e9) -> None:
        self.arrivals = arrivals
        self.gone_at = gone_at
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += max(seconds, 1e-6)

    def read(self) -> str:
        at = self.now - 100
        if at >= self.gone_at:
            raise ConnectionRefusedError
        came = sum(1 for moment in self.arrivals if moment <= at)
        running = min(came, 2)  # some run for ever: they are not waited for
        return f'vllm:num_requests_running{{e="0"}} {running}\nvllm:request_success_total {came - running}\nnonsense\n'

    def wait(self, quiet_s: float = 3.0, at_most_s: float = 20.0) -> tuple[bool, float]:
        return wait_until_left_alone(
            self.read, quiet_s=quiet_s, at_most_s=at_most_s, clock=self.clock, sleep=self.sleep
        )


@pytest.mark.parametrize(
    ("arrivals", "alone", "about"),
    [([], True, 3), ([0.0] * 5, True, 3), ([0.5, 1.0, 2.0], True, 5), ([i / 2 for i in range(100)], False, 20)],
    ids=["idle", "busy", "late", "always"],
)
def test_the_hook_waits_until_nothing_new_comes(arrivals, alone, about):
    ended, took = Metrics(arrivals).wait()
    assert ended is alone
    assert about <= took <= about + 0.6


def test_an_engine_that_is_gone_gets_no_requests():
    ended, took = Metrics([i / 2 for i in range(100)], gone_at=4.0).wait()
    assert ended
    assert 4 <= took < 5


@pytest.mark.parametrize(("quiet", "most"), [(0.0, 0.0), (0.0, 5.0), (5.0, 1.0)])
def test_the_hook_never_waits_longer_than_it_may(quiet, most):
    assert Metrics([]).wait(quiet, most)[1] <= most
