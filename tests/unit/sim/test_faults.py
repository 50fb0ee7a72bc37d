"""Spelling and counting of faults."""

import pytest

from inferdock.domain.errors import ConfigError
from inferdock.sim.faults import KINDS, Faults, parse_fault


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_written_alone(kind):
    assert parse_fault(kind).kind == kind


def test_all_parts_are_read():
    fault = parse_fault("status:503@3x2")
    assert (fault.kind, fault.value, fault.skip, fault.left) == ("status", 503.0, 2, 2)


@pytest.mark.parametrize("text", ["", "explode", "die:", "die:x", "status:503@", "x2", "die 20", "DIE"])
def test_other_spellings_are_refused_with_the_kinds(text):
    with pytest.raises(ConfigError, match="kinds are refuse"):
        parse_fault(text)


def test_a_fault_hits_from_the_nth_request_for_a_count():
    faults = Faults([parse_fault("die@2x2")])
    assert [faults.next_request() is not None for _ in range(5)] == [False, True, True, False, False]


def test_a_fault_without_a_count_hits_for_ever():
    faults = Faults([parse_fault("hang")])
    assert all(faults.next_request() is not None for _ in range(5))


def test_an_unhealthy_replica_still_serves():
    faults = Faults([parse_fault("unhealthy")])
    assert faults.unhealthy()
    assert faults.next_request() is None
