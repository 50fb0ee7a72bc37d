"""A clock for each test."""

import pytest

from tests.unit.balance.sets import Clock


@pytest.fixture
def clock() -> Clock:
    """Seconds that pass when told to."""
    return Clock()
