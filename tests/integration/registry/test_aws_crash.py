"""A writer of the store in S3 and DynamoDB is killed before every request it makes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.aws import running_aws


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_aws() as address:
        yield address


@pytest.mark.parametrize("scenario", ["first", "leftovers", "delete"])
def test_a_writer_may_die_before_every_request(scenario: str, endpoint: str) -> None:
    command = [sys.executable, "-m", "tests.integration.registry.aws_deaths", scenario, endpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 6  # deaths
