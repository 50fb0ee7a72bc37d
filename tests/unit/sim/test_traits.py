"""A model's folder says how its simulated replicas behave."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferdock.domain.errors import ModelError, ResourceError
from inferdock.sim.faults import Faults, parse_fault
from inferdock.sim.language import Generator, seed_of
from inferdock.sim.options import SimOptions
from inferdock.sim.server import SimServer
from inferdock.sim.traits import FILE, MAX_BYTES, Traits, read_traits

WRONG = {
    "no JSON": b"{",
    "unknown field": b'{"speed": 3}',
    "negative": b'{"ttft_s": -1}',
    "no number": b'{"itl_s": NaN}',
    "too many weights": b'{"weights": 10000}',
    "a list": b"[]",
    "deep": b"[" * 50_000,
    "long": b'{"faults": []}' + b" " * MAX_BYTES,
    "no text": b'{"faults": ["\xff"]}',
}


def test_what_the_folder_says_wins_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"weights": 2, "ttft_s": 0.4, "faults": ["slow:2"]}')
    traits = read_traits(str(tmp_path))
    assert traits.faults == ("slow:2",)
    assert traits.over(SimOptions(itl_s=0.5)) == SimOptions(itl_s=0.5, weights=2, ttft_s=0.4)


@pytest.mark.parametrize("model", ["sim", "org/name", "/nowhere", "x\0y", "x" * 5000])
def test_a_name_says_nothing(model: str) -> None:
    assert read_traits(model) == Traits()


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_a_file_without_sense_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(ModelError, match=FILE):
        read_traits(str(tmp_path))


def test_other_weights_say_something_else_greedy_or_not() -> None:
    for seed in (0, 1, 2 * 2**48 + 1):
        assert seed_of(0, seed) == seed
        said = {
            tuple(Generator([5, 6], seed_of(weights, seed)).next(may_end=False) for _ in range(1))
            for weights in range(50)
        }
        assert len(said) > 10


async def test_a_replica_that_cannot_load_does_not_listen() -> None:
    server = SimServer(SimOptions(), Faults([parse_fault("noload")]))
    with pytest.raises(ResourceError, match="cannot be loaded"):
        await server.start()
    assert server.port == 0
