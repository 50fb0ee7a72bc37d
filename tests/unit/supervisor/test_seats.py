"""Who gets which GPUs while replicas of several revisions run."""

import pytest

from inferdock.config.settings import EngineSettings
from inferdock.domain.errors import RequestError
from inferdock.supervisor.engine import Machine
from inferdock.supervisor.seats import Seats, gpus_needed, sharers


def seats(gpus: int, *extra: str, kind: str = "vllm") -> Seats:
    machine = Machine(cpus=(0, 1), gpu_names=tuple(str(n) for n in range(gpus)))
    return Seats(machine, EngineSettings(kind=kind, extra_args=extra))


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ((), 1),
        (("--tensor-parallel-size", "2"), 2),
        (("--tensor_parallel_size=2", "-pp", "3"), 6),
        (("-tp", "2", "--tensor-parallel-size", "4"), 4),
        (("--data-parallel-size=2",), 2),
        (("--tensor-parallel-size",), None),
        (("--tensor-parallel-size", "many"), None),
        (("--tensor-parallel-size", "0"), None),
        (("--tensor-parallel-size", "9" * 5000), None),
        (("--config", "file.yaml"), None),
        (("--config=file.yaml",), None),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else str(value),
)
def test_arguments_say_how_many_gpus_a_replica_uses(arguments, needed):
    assert gpus_needed(arguments) == needed


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ((), 1),
        (("--gpu-memory-utilization", "0.9"), 1),
        (("--gpu-memory-utilization=0.5",), 2),
        (("--gpu-memory-utilization=0.3",), 3),
        (("--gpu-memory-utilization=0",), 1),
        (("--gpu-memory-utilization=nan",), 1),
        (("--gpu-memory-utilization=1e-300",), 64),
        (("--gpu-memory-utilization",), 1),
    ],
)
def test_replicas_share_a_gpu_only_if_each_takes_a_part_of_its_memory(arguments, count):
    assert sharers(arguments) == count


@pytest.mark.parametrize(
    ("gpus", "extra", "spare"),
    [
        (0, (), None),
        (1, (), (0, "1 of 1 GPUs are in use and a replica takes 1")),
        (4, (), (3, "1 of 4 GPUs are in use and a replica takes 1")),
        (4, ("-tp", "2"), (1, "2 of 4 GPUs are in use and a replica takes 2")),
        (2, ("--gpu-memory-utilization=0.5",), (3, "1 of 2 GPUs are in use and a replica takes 1")),
        (2, ("--config=x",), (0, "the engine's arguments do not tell how many GPUs a replica takes")),
    ],
    ids=["none", "taken", "three left", "two each", "shared", "nobody knows"],
)
def test_how_many_replicas_would_find_gpus_is_told_and_why(gpus, extra, spare):
    some = seats(gpus, *extra)
    some.take_all(["replica-0"], ())
    assert some.spare(()) == spare
    if spare is not None and spare[0]:
        some.take([f"replica-{n + 1}" for n in range(spare[0])], ())  # it is as was told
        with pytest.raises(RequestError):
            some.take(["one-more"], ())


def test_the_first_revision_has_all_gpus_and_a_second_gets_those_that_are_not_used():
    some = seats(4)
    some.take_all(["replica-0"], ())
    assert some.gpus("replica-0") == ("0", "1", "2", "3")
    some.take(["replica-1", "replica-2"], ())
    assert [some.gpus("replica-1"), some.gpus("replica-2")] == [("1",), ("2",)]


def test_without_a_spare_gpu_it_is_refused_and_nobody_has_got_anything():
    some = seats(3)
    some.take_all(["replica-0", "replica-1"], ())
    with pytest.raises(RequestError, match="no spare GPU") as refused:
        some.take(["replica-2", "replica-3"], ())
    assert (refused.value.status, refused.value.code) == (409, "no_spare_gpu")
    assert some.gpus("replica-2") == ()
    some.take(["replica-2"], ())


def test_a_gpu_is_spare_again_once_its_replica_has_ended():
    some = seats(1)
    some.take_all(["replica-0"], ())
    with pytest.raises(RequestError):
        some.take(["replica-1"], ())
    some.leave("replica-0")
    some.take(["replica-1"], ())
    assert some.gpus("replica-1") == ("0",)


def test_a_split_model_needs_all_its_gpus_at_once():
    some = seats(4, "--tensor-parallel-size", "2")
    some.take_all(["replica-0"], ())
    some.take(["replica-1"], ())
    assert some.gpus("replica-1") == ("2", "3")
    with pytest.raises(RequestError):
        some.take(["replica-2"], ())


def test_what_a_replica_uses_is_not_guessed_where_its_arguments_do_not_tell():
    some = seats(4)
    some.take_all(["replica-0"], ("--config", "file.yaml"))
    with pytest.raises(RequestError):
        some.take(["replica-1"], ())


def test_replicas_that_were_told_to_share_do():
    some = seats(1, "--gpu-memory-utilization", "0.4")
    some.take_all(["replica-0"], ())
    some.take(["replica-1"], ())
    assert some.gpus("replica-1") == ("0",)
    with pytest.raises(RequestError):
        some.take(["replica-2"], ())


@pytest.mark.parametrize(("gpus", "kind"), [(0, "vllm"), (1, "sim")])
def test_nobody_is_refused_where_no_gpu_is_used(gpus, kind):
    some = seats(gpus, kind=kind)
    some.take_all(["replica-0", "replica-1"], ())
    some.take([f"replica-{n}" for n in range(2, 40)], ())
    assert some.gpus("replica-39") == ()
