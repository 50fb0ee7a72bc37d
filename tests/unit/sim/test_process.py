"""The simulated replica as a process: the command, signals, death."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPException, IncompleteRead

import pytest

from inferdock.sim.testing import sim_process

TEXT = {"prompt": "hello", "max_tokens": 20, "ignore_eos": True, "temperature": 0}


def post(url: str, **fields: object) -> bytes:
    body = json.dumps({**TEXT, **fields}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read()


def test_it_serves_the_model_under_its_served_name():
    with sim_process("--port", "0", "--model", "/some/folder", "--served-model-name", "demo") as replica:
        assert json.loads(post(replica.url, model="demo"))["model"] == "demo"


@pytest.mark.parametrize("streamed", [True, False])
def test_the_die_fault_kills_the_process(streamed):
    with sim_process("--port", "0", "--ttft", "0", "--itl", "0.01", "--fault", "die:3") as replica:
        with pytest.raises((HTTPException, OSError)) as caught:
            post(replica.url, stream=streamed)
        assert replica.process.wait(20) == -signal.SIGKILL
    if streamed and isinstance(caught.value, IncompleteRead):
        assert caught.value.partial.count(b'"text"') == 3


def test_a_killed_process_refuses_connections():
    with sim_process("--port", "0") as replica:
        replica.kill()
        with pytest.raises(urllib.error.URLError):
            post(replica.url)


def test_sigterm_ends_it_in_order():
    with sim_process("--port", "0") as replica:
        replica.process.send_signal(signal.SIGTERM)
        assert replica.process.wait(20) == 0


def test_sigterm_ends_it_while_it_still_starts():
    command = [sys.executable, "-m", "inferdock.cli.main", "sim", "--port", "0", "--startup-time", "3600"]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 20
    while not _catches_sigterm(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()


def _catches_sigterm(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as lines:
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_a_wrong_fault_is_a_configuration_error():
    command = [sys.executable, "-m", "inferdock.cli.main", "sim", "--fault", "explode"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "`explode` is not a fault" in done.stderr
    assert "badchunk" in done.stderr


def test_a_folder_says_what_its_replicas_answer(tmp_path):
    answers = {}
    for weights in (0, 1):
        (tmp_path / "sim.json").write_text(json.dumps({"weights": weights}))
        with sim_process("--port", "0", "--model", str(tmp_path), "--served-model-name", "demo") as replica:
            answers[weights] = json.loads(post(replica.url))["choices"][0]["text"]
    assert answers[0] != answers[1]


def test_a_folder_may_say_that_it_cannot_be_loaded(tmp_path):
    (tmp_path / "sim.json").write_text('{"faults": ["noload"]}')
    command = [sys.executable, "-m", "inferdock.cli.main", "sim", "--port", "0", "--model", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr
