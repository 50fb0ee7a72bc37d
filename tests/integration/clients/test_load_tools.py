"""h2load and wrk: short loads without a single error."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.clients.conftest import Service, ask, tool

SCRIPT = """
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]
request = function()
  local one = wrk.format()
  return string.rep(one, %d)
end
"""


def run(*command: str) -> str:
    """Output of a tool that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_h2load_speaks_http_1_without_an_error(service: Service, tmp_path: Path, stream: bool):
    body = tmp_path / "body.json"
    body.write_bytes(ask(stream=stream))
    header = "content-type: application/json"
    url = f"{service.url}/v1/chat/completions"
    out = run(tool("h2load", "nghttp2-client"), "--h1", "-n", "400", "-c", "16", "-d", str(body), "-H", header, url)
    assert "400 total, 400 started, 400 done, 400 succeeded, 0 failed, 0 errored, 0 timeout" in out
    assert "status codes: 400 2xx, 0 3xx, 0 4xx, 0 5xx" in out


@pytest.mark.parametrize("pipelined", [1, 8])
def test_wrk_has_no_error(service: Service, tmp_path: Path, pipelined: int):
    script = tmp_path / "post.lua"
    script.write_text(SCRIPT % (ask(max_tokens=1).decode(), pipelined))
    out = run(tool("wrk", "wrk"), "-t", "1", "-c", "16", "-d", "2s", "-s", str(script), service.url)
    served = re.search(r"(\d+) requests in", out)
    assert served is not None
    assert int(served[1]) > 16 * pipelined
    assert "Socket errors" not in out
    assert "Non-2xx" not in out


def test_wrk_on_a_route_of_the_gateway_itself(service: Service):
    out = run(tool("wrk", "wrk"), "-t", "1", "-c", "32", "-d", "1s", f"{service.url}/health")
    assert "Socket errors" not in out
    assert "Non-2xx" not in out
