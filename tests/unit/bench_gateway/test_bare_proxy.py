"""The floor that gateways are compared with passes everything on."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest
from bench.gateway.bare_proxy import size
from bench.gateway.processes import Cores, replicas
from bench.gateway.tools import program
from bench.servers import answers, free_port

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@pytest.fixture
def proxy():
    with replicas(2, Cores((0,), (0,))) as running:
        running.ask("/bench/pace?1000")
        port = free_port()
        ports = [url.rpartition(":")[2] for url in running.urls]
        command = [sys.executable, "-m", "bench.gateway.bare_proxy", str(port), *ports]
        with subprocess.Popen(command) as child:
            try:
                end = time.monotonic() + 20
                while not answers(f"http://127.0.0.1:{port}/health") and time.monotonic() < end:
                    time.sleep(0.05)
                yield port
            finally:
                child.kill()


def test_a_message_ends_where_its_head_says():
    assert size(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabc") == 39 + 12
    assert size(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n") is None


def test_streams_and_large_requests_pass(proxy, tmp_path):
    body = tmp_path / "body"
    message = {"role": "user", "content": "x" * 100_000}
    body.write_text(json.dumps({"model": "m", "messages": [message], "stream": True, "max_tokens": 20}))
    command = [str(program("load")), "run", "--port", str(proxy), "--body", str(body)]
    command += ["-c", "5", "--streams", "20", "--tokens", "20"]
    found = json.loads(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)
    assert (found["errors"], found["streams"], found["tokens"]) == (0, 20, 400)


def test_answers_pass(proxy):
    with contextlib.closing(urllib.request.urlopen(f"http://127.0.0.1:{proxy}/v1/models", timeout=10)) as response:
        assert json.load(response)["data"][0]["id"] == "m"
