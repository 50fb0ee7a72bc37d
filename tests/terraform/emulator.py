"""moto's server as AWS, in a process of its own: its accounts, and whether it checks rights, are one per process."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.docs.pages import ROOT

START_WITHIN_S = 60.0
REGION = "eu-west-1"


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """A running emulator; ``url`` is the endpoint of every service."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What leads the provider, the AWS command line and boto3 here, and nowhere else."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_PAGER": "",
        }

    def client(self, service: str, *, key: str = "test", secret: str = "test") -> Any:
        """boto3's client of a service."""
        session = boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=REGION)
        return session.client(service, endpoint_url=self.url)

    @contextlib.contextmanager
    def checking_rights(self) -> Iterator[None]:
        """For a while requests are refused unless a policy of their user allows them (S3: by resource too)."""
        self._requests_before_check("0")
        try:
            yield
        finally:
            self._requests_before_check("inf")

    def _requests_before_check(self, number: str) -> None:
        address, headers = f"{self.url}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(address, data=number.encode(), headers=headers)
        urllib.request.urlopen(request, timeout=10).close()


@contextlib.contextmanager
def running_emulator(folder: Path, module: str = "moto.server") -> Iterator[Emulator]:
    """A fresh emulator for a while; ``module`` is the program that it is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", module, "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "emulator.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        emulator = Emulator(url=f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + START_WITHIN_S
        while not _answers(emulator.url):
            assert process.poll() is None, (folder / "emulator.log").read_text()
            assert time.monotonic() < deadline, "the emulator did not start"
            time.sleep(0.05)
        yield emulator
    finally:
        process.kill()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).close()
    except (OSError, urllib.error.URLError):
        return False
    return True
