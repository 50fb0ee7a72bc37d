"""``inferdock engine`` and ``inferdock probe`` as a container runs them."""

import errno
import http.server
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferdock.cli.engine import TERMINATED, spelt
from inferdock.supervisor.engine import Launch
from tests.support.model_folders import write_model

MAIN = [sys.executable, "-m", "inferdock.cli.main"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a container: nothing but what it is given."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), **more}


def run(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, *words], cwd=folder, env=environment(folder, **more), capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_print_shows_the_command_and_starts_nothing(tmp_path, model):
    shown = run(
        tmp_path, "engine", "--model", "model", "--name", "chat", "--engine", "sim", "--port", "8009", "--print"
    )
    words = shlex.split(shown.stdout)
    assert shown.returncode == 0, shown.stderr
    assert words[0] == "env"
    assert words[words.index("--served-model-name") + 1] == "chat"
    assert words[words.index("--port") + 1] == "8009"


def test_the_environment_configures_it_as_everything_else(tmp_path, model):
    variables = {"INFERDOCK_MODEL__SOURCE": "model", "INFERDOCK_ENGINE__KIND": "sim", "INFERDOCK_DRAIN_TIMEOUT_S": "7"}
    shown = run(tmp_path, "engine", "--print", **variables)
    assert "--shutdown-timeout 7" in shown.stdout, shown.stderr
    assert "INFERDOCK_" not in shown.stdout


@pytest.mark.parametrize(
    ("variables", "code", "words"),
    [
        ({"INFERDOCK_DRAIN_TIMEOUT_S": "soon"}, 3, "drain_timeout_s"),
        ({"INFERDOCK_ENGINE__KIND": "tgi"}, 3, "engine.kind"),
        ({"INFERDOCK_MODEL__SORCE": "x"}, 3, "INFERDOCK_MODEL__SOURCE"),
        ({"INFERDOCK_MODEL__SOURCE": "/nowhere"}, 4, "/nowhere"),
        ({"INFERDOCK_MODEL__SOURCE": "m@1.0.0"}, 9, "m"),
        ({"INFERDOCK_ENGINE__KIND": "vllm", "ENGINE_PYTHON": "/nowhere/python3"}, 6, "/nowhere/python3"),
    ],
    ids=["duration", "kind", "key", "folder", "version", "python"],
)
def test_bad_values_of_the_environment_are_refused_in_a_sentence(tmp_path, model, variables, code, words):
    refused = run(tmp_path, "engine", **{"INFERDOCK_MODEL__SOURCE": "model"} | variables)
    assert refused.returncode == code, refused.stderr
    assert "Traceback" not in refused.stderr
    assert words in refused.stderr


def test_a_wrong_byte_is_exit_code_11(tmp_path, model):
    config = tmp_path / "inferdock.yaml"
    config.write_text(json.dumps({"registry": {"url": "registry", "cache_dir": str(tmp_path / "cache")}}))
    assert run(tmp_path, "model", "push", "model", "--name", "m", "--version", "1.0.0").returncode == 0
    folder = Path(run(tmp_path, "model", "pull", "m@1.0.0").stdout.strip())
    good = run(tmp_path, "engine", "--engine", "sim", "--model", "m@1.0.0", "--offline", "--print")
    assert str(folder) in good.stdout, good.stderr
    file = (folder / "config.json").resolve()
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b" ")
    bad = run(tmp_path, "engine", "--engine", "sim", "--model", "m@1.0.0", "--offline", "--print")
    assert bad.returncode == 11
    assert "config.json" in bad.stderr


def free_port() -> int:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        return int(server.server_address[1])


class Running:
    """A started engine's process."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.port = free_port()
        self.log = folder / "engine.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*MAIN, "engine", "--engine", "sim", "--model", "model", "--port", str(self.port), *words],
                cwd=folder,
                env=environment(folder, INFERDOCK_ENGINE__SIM__ITL_S="0.05"),
                stdout=log,
                stderr=log,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())


@pytest.fixture
def running(tmp_path: Path, model: Path) -> Iterator[Running]:
    engine = Running(tmp_path, "--drain-timeout", "30")
    try:
        engine.wait_until_it_answers()
        yield engine
    finally:
        engine.process.kill()
        engine.process.wait()


def test_the_process_becomes_the_engine_and_lets_a_stream_end_on_sigterm(running: Running) -> None:
    command = Path(f"/proc/{running.process.pid}/cmdline").read_bytes().split(b"\0")
    assert b"sim" in command
    body = {"model": "model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20, "stream": True}
    body |= {"ignore_eos": True}
    request = urllib.request.Request(
        f"{running.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as stream:
        stream.readline()
        running.process.send_signal(signal.SIGTERM)
        assert stream.read().rstrip().endswith(b"data: [DONE]")
    assert running.process.wait(30) == 0


def test_the_hook_ends_when_nobody_sends_requests(tmp_path: Path, running: Running) -> None:
    done = run(tmp_path, "engine", "drain", "--port", str(running.port), "--quiet", "0.2", "--at-most", "30")
    assert done.returncode == 0
    assert "No new requests" in done.stderr


def test_the_hook_does_not_fail_when_the_engine_is_gone(tmp_path: Path) -> None:
    assert run(tmp_path, "engine", "drain", "--port", str(free_port())).returncode == 0


def test_sigterm_while_weights_are_read_ends_it(tmp_path: Path, model: Path) -> None:
    os.mkfifo(tmp_path / "inferdock.yaml")  # reading it never ends
    process = subprocess.Popen(
        [*MAIN, "engine"], cwd=tmp_path, env=environment(tmp_path, INFERDOCK_CONFIG="inferdock.yaml")
    )
    try:
        deadline = time.monotonic() + 60
        while (end := writable(tmp_path / "inferdock.yaml")) is None:
            assert time.monotonic() < deadline, "it does not read its configuration"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (TERMINATED, 3)
    finally:
        process.kill()
        process.wait()
    os.close(end)


def writable(pipe: Path) -> int | None:
    """The end to write to, once somebody reads the other one."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def test_what_may_be_secret_is_not_printed():
    launch = Launch(("python3", "-m", "x"), {"HF_TOKEN": "hf_123", "A": "b c", "PATH": "/bin"})
    assert spelt(launch, {"PATH": "/bin"}) == "env 'A=b c' HF_TOKEN=... python3 -m x"


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (204, 0), (404, 8), (503, 8)])
def test_the_probe_says_by_its_exit_code_whether_an_address_answers(tmp_path, server, status, code):
    probed = run(tmp_path, "probe", f"{server}/{status}")
    assert probed.returncode == code, probed.stderr


@pytest.mark.parametrize(
    ("url", "code"),
    [("file:///etc/passwd", 3), ("localhost", 3), ("http://127.0.0.1:1/", 8), ("http://", 8), ("http://[x/", 8)],
    ids=["file", "word", "closed", "empty", "malformed"],
)
def test_the_probe_refuses_what_it_cannot_ask(tmp_path, url, code):
    probed = run(tmp_path, "probe", url)
    assert probed.returncode == code, probed.stderr
    assert "Traceback" not in probed.stderr
