"""curl: uploads of all kinds, 100-continue, HEAD, HTTP/1.0, reuse of connections, leaving in the middle."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.clients.conftest import Service, ask, tool

JSON = ("-H", "Content-Type: application/json")


@dataclass
class Curl:
    """curl against the gateway."""

    program: str
    service: Service

    def __call__(self, path: str, *arguments: str, stdin: bytes = b"", status: int = 0) -> subprocess.CompletedProcess:
        """Run it on one path; ``status`` is the exit status that is expected of it."""
        command = [self.program, "--silent", "--show-error", "--max-time", "30", *arguments, self.service.url + path]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr.decode()
        return done


@pytest.fixture
def curl(service: Service) -> Curl:
    return Curl(tool("curl", "curl"), service)


def large(folder: Path, size: int) -> str:
    """A file with a request of about ``size`` bytes, as curl wants it named."""
    path = folder / "body.json"
    path.write_bytes(ask(user="x" * size))
    return f"@{path}"


def test_a_plain_request(curl):
    done = curl("/v1/chat/completions", *JSON, "--data-binary", "@-", stdin=ask())
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_a_chunked_upload(curl):
    done = curl("/v1/chat/completions", *JSON, "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", stdin=ask())
    assert json.loads(done.stdout)["usage"]["completion_tokens"] == 5


def test_an_upload_of_unknown_length_by_post(curl):
    done = curl("/v1/chat/completions", *JSON, "-X", "POST", "-T", "-", stdin=ask())
    assert json.loads(done.stdout)["usage"]["completion_tokens"] == 5


def test_a_large_body_waits_for_100_continue(curl, tmp_path):
    done = curl("/v1/chat/completions", *JSON, "-v", "-H", "Expect: 100-continue", "-d", large(tmp_path, 3_000_000))
    assert b"< HTTP/1.1 100 Continue" in done.stderr
    assert b"< HTTP/1.1 200 OK" in done.stderr


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(curl, tmp_path):
    report = ("-o", str(tmp_path / "answer"), "-w", "%{http_code} %{size_upload}")
    done = curl("/v1/chat/completions", *JSON, *report, "-H", "Expect: 100-continue", "-d", large(tmp_path, 40_000_000))
    assert done.stdout == b"413 0"
    assert json.loads((tmp_path / "answer").read_text())["error"]["code"] == "body_too_large"


def test_head(curl):
    done = curl("/health", "--head")
    assert done.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    assert done.stdout.endswith(b"\r\n\r\n")


def test_a_stream_to_http_1_0_ends_with_the_connection(curl):
    done = curl("/v1/chat/completions", *JSON, "--http1.0", "-i", "--data-binary", "@-", stdin=ask(stream=True))
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body.endswith(b"data: [DONE]\n\n")


def test_a_connection_is_used_again(curl):
    url = curl.service.url + "/v1/chat/completions"
    arguments = (
        *JSON,
        "--data-binary",
        ask().decode(),
        "-w",
        "%{num_connects}\n",
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
    )
    done = curl("/v1/chat/completions", *arguments, url)
    assert done.stdout.split() == [b"1", b"0"]


def test_leaving_in_the_middle_of_a_stream_ends_the_request(curl):
    body = ask(stream=True, max_tokens=3000)
    done = curl("/v1/chat/completions", *JSON, "-N", "--max-time", "1", "--data-binary", "@-", stdin=body, status=28)
    assert done.stdout.startswith(b"data: {")
    curl.service.until_idle(within_s=5)


def test_an_offer_of_http_2_is_ignored(curl):
    done = curl("/health", "--http2", "-w", " %{http_version}")
    assert done.stdout.endswith(b" 1.1")


def test_http_2_without_asking_fails_and_the_service_goes_on(curl):
    command = [curl.program, "--silent", "--max-time", "10", "--http2-prior-knowledge", curl.service.url + "/health"]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode != 0
    assert curl("/health").stdout


@pytest.mark.parametrize("path", ["/v1/../admin/status", "/admin/status", "//v1/models"])
def test_paths_are_taken_as_they_are(curl, path):
    done = curl(path, "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}")
    assert done.stdout == b"404"
