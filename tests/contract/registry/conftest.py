"""One suite over every store: the one in memory, the directory, S3 with DynamoDB.

A test asks for ``store``, an empty one; ``again`` opens the same place once more, as another process would.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferdock.registry.filesystem import FilesystemStore
from inferdock.registry.store import Store
from tests.support.aws import aws_place, running_aws
from tests.support.memory_registry import MemoryStore

Maker = Callable[[], Store]
"""Opens the same place each time it is called."""


def _memory(request: pytest.FixtureRequest) -> Maker:
    store = MemoryStore()
    return lambda: store


def _filesystem(request: pytest.FixtureRequest) -> Maker:
    folder: Path = request.getfixturevalue("tmp_path")
    return lambda: FilesystemStore(folder / "store")


def _aws(request: pytest.FixtureRequest) -> Maker:
    places: Callable[[], Maker] = request.getfixturevalue("aws_places")
    return places()


STORES = {"memory": _memory, "filesystem": _filesystem, "aws": _aws}


@pytest.fixture(scope="session")
def aws_places() -> Iterator[Callable[[], Maker]]:
    """Makes empty buckets with tables on one local server."""
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(running_aws())
        yield lambda: aws_place(endpoint, f"registry-{next(numbers)}")


@pytest.fixture(params=sorted(STORES))
def again(request: pytest.FixtureRequest) -> Maker:
    """Opens the store of this test once more."""
    return STORES[request.param](request)


@pytest.fixture
def store(again: Maker) -> Store:
    """An empty store."""
    return again()
