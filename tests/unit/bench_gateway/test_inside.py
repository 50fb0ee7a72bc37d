"""The gateway's own code is measured without sockets."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize("options", [[], ["--auth"]], ids=["open", "keys"])
def test_requests_and_streams_go_through_the_real_gateway(options):
    command = [sys.executable, "-m", "bench.gateway.inside", "--share", "0.001", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert set(json.loads(done.stdout)) == {"request_1024_bytes_us", "request_220000_bytes_us", "chunk_us"}
