"""The images, built and run for real: on a local base image where there is no registry, by buildah, podman and runc.

In place of vLLM's image stands one with a module `vllm` that says how it was started: what is tried is our Dockerfile,
our entry, and what the container's first process becomes. Real vLLM behind the same entry: tests/integration.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inferdock import __version__
from tests.support.containers import BASE, Container, Workshop, why_not, workshop
from tests.support.model_folders import write_model

REASON = why_not()
pytestmark = [pytest.mark.timeout(900), pytest.mark.skipif(bool(REASON), reason=REASON)]

STUB, GATEWAY, ENGINE, CPU, BAKED = (
    f"localhost/inferdock-test-{n}:1" for n in ("stub", "gateway", "engine", "cpu", "baked")
)
MOST_MB = 250
ONCE = ("podman", "run", "--rm", "--no-healthcheck", "--network", "none")
"""A container that needs no network. One of its own would come as a new interface of the machine, and a Chromium of
another test would then drop its connections."""
READ_ONLY = ("--read-only", "--tmpfs", "/tmp")
WITHIN_S = 90
STUB_SERVER = """\
import json, os, signal, sys, time
if "SLOW" in os.environ:
    print("importing", flush=True)
    time.sleep(600)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
names = ("HOME", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES")
found = {"pid": os.getpid(), "uid": os.getuid(), "arguments": sys.argv[1:], "python": sys.executable,
         "environment": {name: os.environ.get(name) for name in names},
         "ours": [name for name in os.environ if name.startswith("INFERDOCK_")]}
print(json.dumps(found), flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def shop() -> Workshop:
    made = workshop()
    made.make_base()
    return made


class Builds:
    """The images, built side by side."""

    def __init__(self, shop: Workshop, folder: Path) -> None:
        self._pool = ThreadPoolExecutor(2)
        self._stub(shop, folder)
        python = {"python": BASE}
        self.gateway = self._begin(shop, "gateway", GATEWAY, bases=python)
        self.engine = self._begin(shop, "engine", ENGINE, bases={**python, "vllm": STUB})
        # vLLM and torch for the CPU would take minutes to fetch; without them only simulated engines start.
        self.cpu = self._begin(shop, "engine-cpu", CPU, "--arg", "LOCKS=registry", "--arg", "LIBRARIES=", bases=python)

    def _begin(self, shop: Workshop, *words: str, bases: dict[str, str]) -> Future[str]:
        return self._pool.submit(shop.build, *words, bases=bases)

    def _stub(self, shop: Workshop, folder: Path) -> None:
        """An image as vLLM's: root, an ENTRYPOINT and a CMD of its own, vLLM among the packages of its python3."""
        package = folder / "vllm" / "entrypoints" / "openai"
        package.mkdir(parents=True)
        for at in (package, package.parent, package.parent.parent):
            (at / "__init__.py").touch()
        (package / "api_server.py").write_text(STUB_SERVER)
        where = "/usr/lib/python3/dist-packages/vllm"
        lines = [f"FROM {BASE}", f"COPY vllm {where}", 'ENTRYPOINT ["vllm", "serve"]', 'CMD ["x"]']
        (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
        common = ("--isolation", "chroot", "--pull-never", "--layers", "--format", "docker", "-t", STUB)
        shop.run("buildah", "bud", *common, "-f", str(folder / "Dockerfile"), str(folder))

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture(scope="module")
def builds(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builds]:
    made = Builds(shop, tmp_path_factory.mktemp("stub"))
    yield made
    made.close()
    shop.tidy()


@pytest.fixture
def gateway(builds: Builds) -> str:
    return builds.gateway.result()


@pytest.fixture
def engine(builds: Builds) -> str:
    return builds.engine.result()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until_it_answers(container: Container, url: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline and container.running:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer:\n{container.log}")


def ask(url: str, model: str, **more: Any) -> urllib.request.Request:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "stream": True, **more}
    headers = {"Content-Type": "application/json"}
    return urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)


def sizes(shop: Workshop, image: str) -> tuple[float, float]:
    """Megabytes of an image, and of the base that it is on."""
    return float(str(shop.inspect(image)["Size"])) / 1e6, float(str(shop.inspect(BASE)["Size"])) / 1e6


def test_the_gateways_image_is_small_and_says_what_it_is(shop: Workshop, gateway: str) -> None:
    size, base = sizes(shop, gateway)
    print(f"\ngateway image: {size:.0f} MB, of which the base is {base:.0f} MB")
    assert size <= MOST_MB
    config: Any = shop.inspect(gateway)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["inferdock", "gateway"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    health: Any = shop.inspect(gateway)["Healthcheck"]
    assert health["Test"][:3] == ["CMD", "inferdock", "probe"]


def test_the_gateways_image_has_no_tools_of_its_build(shop: Workshop, gateway: str) -> None:
    look = "for program in curl wget gcc git hatchling; do command -v $program; done; ls -d /opt/*"
    words = (*ONCE, "--entrypoint", "sh", gateway, "-c", look)
    assert shop.run(*words).stdout.split() == ["/opt/inferdock"]


@pytest.mark.parametrize("image", ["gateway", "engine"])
def test_no_layer_holds_the_secrets_of_the_build(shop: Workshop, image: str, request: pytest.FixtureRequest) -> None:
    tag = request.getfixturevalue(image)
    find = "ls /etc/pip.conf /run/secrets /tools /build/wheels 2>/dev/null; env | grep -i -E 'pip|proxy'"
    words = (*ONCE, "--http-proxy=false", "--entrypoint", "sh", tag, "-c", find)
    found = shop.run(*words, check=False).stdout.split()
    assert [word for word in found if word not in ("/tools:", "/run/secrets:")] == []


def test_the_gateway_serves_with_a_read_only_root_and_lets_streams_end_on_sigterm(
    shop: Workshop, gateway: str, tmp_path: Path
) -> None:
    engine_port, port = free_port(), free_port()
    sim = [sys.executable, "-m", "inferdock.cli.main", "sim", "--model", "chat", "--port", str(engine_port)]
    options = ("--env", "INFERDOCK_KEYS__ALLOW_UNAUTHENTICATED=true", *READ_ONLY)
    words = ("--replica", f"chat=http://127.0.0.1:{engine_port}", "--port", str(port))
    with (tmp_path / "sim.log").open("wb") as log:
        replica = subprocess.Popen([*sim, "--itl", "0.1"], stdout=log, stderr=log)
    try:
        with Container(shop, gateway, *words, options=options) as container:
            url = f"http://127.0.0.1:{port}"
            wait_until_it_answers(container, f"{url}/ready")
            assert container.execute("inferdock", "probe", f"{url}/health").returncode == 0
            assert container.execute("touch", "/opt/x").returncode != 0
            with urllib.request.urlopen(ask(url, "chat", ignore_eos=True), timeout=60) as stream:
                stream.readline()
                container.signal("TERM")
                text = stream.read().decode()
            assert text.rstrip().endswith("data: [DONE]")
            assert text.count('"content"') >= 39
            assert container.wait() == 0, container.log
    finally:
        replica.kill()
        replica.wait()


def test_the_gateway_serves_nobody_without_keys(shop: Workshop, gateway: str) -> None:
    with Container(shop, gateway, options=READ_ONLY) as container:
        assert container.wait() == 3
        assert "keys" in container.log


def test_the_first_process_becomes_vllm_and_gets_sigterm_itself(shop: Workshop, engine: str) -> None:
    options = (
        "--env",
        "INFERDOCK_MODEL__MAX_MODEL_LEN=1024",
        "--env",
        "INFERDOCK_DRAIN_TIMEOUT_S=45",
        "--shm-size",
        "1g",
    )
    with Container(shop, engine, options=(*READ_ONLY, *options)) as container:
        deadline = time.monotonic() + WITHIN_S
        while "arguments" not in container.log and container.running and time.monotonic() < deadline:
            time.sleep(0.1)
        line = next(line for line in container.log.splitlines() if line.startswith("{"))
        started = json.loads(line)
        assert (started["pid"], started["uid"]) == (1, 10001)
        assert started["python"] == "/usr/bin/python3"  # the base's own, not our environment
        words = " ".join(started["arguments"])
        assert "--served-model-name inferdock-demo" in words
        assert "--max-model-len 1024" in words
        assert "--shutdown-timeout 45" in words
        assert "--host 0.0.0.0" in words
        assert "serve" not in started["arguments"]
        assert started["ours"] == []
        assert started["environment"]["HF_HUB_OFFLINE"] == "1"
        container.signal("TERM")
        assert container.wait() == 0


def test_sigterm_is_heard_while_vllm_is_still_imported(shop: Workshop, engine: str) -> None:
    with Container(shop, engine, options=(*READ_ONLY, "--env", "SLOW=1", "--shm-size", "1g")) as container:
        deadline = time.monotonic() + WITHIN_S
        while "importing" not in container.log and container.running and time.monotonic() < deadline:
            time.sleep(0.1)
        container.signal("TERM")
        assert container.wait() == 143


@pytest.mark.parametrize(
    ("variable", "code"),
    [("INFERDOCK_DRAIN_TIMEOUT_S=soon", 3), ("MODEL_NAME=x", 0), ("INFERDOCK_MODEL__SOURCE=m@1.0.0", 9)],
    ids=["value", "foreign", "version"],
)
def test_the_environment_of_a_pod_is_read_and_checked(shop: Workshop, engine: str, variable: str, code: int) -> None:
    words = (*ONCE, "--env", variable, engine, "--print", "--engine", "sim")
    done = shop.run(*words, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


class Registry:
    """A registry of the test's own with ``m@1.0.0``, readable by any user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "registry"
        model = write_model(folder / "model")
        words = ["model", "push", str(model), "--name", "m", "--version", "1.0.0", "--registry", str(self.folder)]
        done = subprocess.run(
            [sys.executable, "-m", "inferdock.cli.main", *words],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
        self.revision = done.stdout.strip()
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("pushed"))


def serve_offline(shop: Workshop, image: str, *words: str, options: tuple[str, ...]) -> str:
    """Run an engine until it answers; its answer's model."""
    port = free_port()
    with Container(shop, image, *words, "--engine", "sim", "--port", str(port), options=options) as container:
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(container, f"{url}/health")
        with urllib.request.urlopen(ask(url, "m", stream=False, max_tokens=4), timeout=30) as response:
            answered = json.load(response)
        container.signal("TERM")
        assert container.wait() == 0, container.log
    return str(answered["model"])


def test_what_an_init_container_pulled_is_served_without_the_registry(
    shop: Workshop, engine: str, registry: Registry, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    os.chown(models, 10001, 10001)
    shared = ("--volume", f"{models}:/models")
    reach = ("--volume", f"{registry.folder}:/registry:ro", "--env", "INFERDOCK_REGISTRY__URL=/registry")
    pull = (*ONCE, *READ_ONLY, *shared, *reach, "--entrypoint", "inferdock")
    shop.run(*pull, engine, "model", "pull", "m@1.0.0")
    words = ("--model", "m@1.0.0", "--offline", "--revision", f"1.0.0-{registry.revision[:12]}")
    read_only = (*READ_ONLY, "--volume", f"{models}:/models:ro")
    assert serve_offline(shop, engine, *words, options=read_only) == "m"
    file = next(path for path in (models / "blobs").rglob("*") if path.is_file())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    refused = (*ONCE, *read_only, engine, *words, "--engine", "sim")
    assert shop.run(*refused, check=False).returncode == 11


def test_weights_inside_are_those_of_the_label(shop: Workshop, engine: str, registry: Registry) -> None:
    given = {"BASE_IMAGE": engine, "MODEL": "m@1.0.0", "MODEL_REVISION": registry.revision, "REGISTRY_URL": "/registry"}
    words = [word for name, value in given.items() for word in ("--arg", f"{name}={value}")]
    mount = f"{registry.folder}:/registry:ro"
    shop.build("baked", BAKED, *words, volumes=[mount])
    labels: Any = shop.inspect(BAKED)["Labels"]
    assert labels["io.inferdock.model.revision"] == registry.revision
    assert serve_offline(shop, BAKED, options=READ_ONLY) == "m"
    wrong = [word.replace(registry.revision, "0" * 64) for word in words]
    with pytest.raises(AssertionError, match=r"holds no revision"):
        shop.build("baked", BAKED, *wrong, volumes=[mount])


def test_the_image_for_the_cpu_starts_an_engine(shop: Workshop, builds: Builds) -> None:
    image = builds.cpu.result()
    size, base = sizes(shop, image)
    print(f"\nCPU image without vLLM: {size:.0f} MB, of which the base is {base:.0f} MB")
    assert serve_offline(shop, image, "--name", "m", options=READ_ONLY) == "m"
    words = (*ONCE, image)
    refused = shop.run(*words, check=False)
    assert refused.returncode == 6
    assert "no vLLM" in refused.stderr
