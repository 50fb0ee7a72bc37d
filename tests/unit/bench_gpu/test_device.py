"""The GPU: what is read of it, what does not fit it, what it costs."""

import pytest
from bench.gpu.device import Gpu, check_fits, first_gpu, parse_gpu, price_of
from bench.gpu.forms import WEIGHTS
from bench.gpu.shape import MISTRAL_7B

from inferdock.cost.prices import shipped
from inferdock.domain.errors import ResourceError

GIB = 1024**3


def gpu(gib: float, free: float | None = None, capability: float = 9.0) -> Gpu:
    total, left = int(gib * GIB), int((gib if free is None else free) * GIB)
    return Gpu(index="0", name="NVIDIA X1", driver="1", total=total, free=left, capability=capability)


def test_the_driver_line_is_read() -> None:
    found = parse_gpu("0", "NVIDIA H200, 570.86.15, 143771, 143166, 9.0\n")
    assert (found.name, found.driver, found.total, found.capability) == ("NVIDIA H200", "570.86.15", 143771 << 20, 9.0)


@pytest.mark.parametrize("text", ["", "NVIDIA H200", "NVIDIA H200, 570, [N/A], [N/A], 9.0"])
def test_an_unreadable_line_is_a_sentence(text: str) -> None:
    with pytest.raises(ResourceError, match="cannot be read"):
        parse_gpu("0", text)


def test_hidden_gpus_are_none() -> None:
    with pytest.raises(ResourceError, match="--form cpu"):
        first_gpu({"CUDA_VISIBLE_DEVICES": ""})


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (gpu(16), "Mistral-7B-v0.1 in bf16 needs 16.0 GiB"),
        (gpu(80, free=40), "has 40.0 GiB free"),
        (gpu(80, capability=7.5), "bfloat16"),
    ],
    ids=["small", "in use", "old"],
)
def test_what_cannot_start_is_refused_before_it_does(machine: Gpu, said: str) -> None:
    with pytest.raises(ResourceError, match=said):
        check_fits(machine, MISTRAL_7B, WEIGHTS, 4096)


def test_the_quantised_weights_fit_where_the_others_do_not() -> None:
    check_fits(gpu(16, capability=7.5), MISTRAL_7B, {"awq": WEIGHTS["awq"]}, 4096)
    check_fits(gpu(24), MISTRAL_7B, WEIGHTS, 4096)


@pytest.mark.parametrize(
    ("name", "gb", "row"),
    [
        ("NVIDIA H200", 150, "1/8 of p5en.48xlarge"),
        ("NVIDIA A10G", 24, "g5.xlarge"),
        ("NVIDIA A100-SXM4-40GB", 42, "1/8 of p4d.24xlarge"),
        ("NVIDIA H100 80GB HBM3", 85, "p5.4xlarge"),
        ("Tesla T4", 16, "g4dn.xlarge"),
    ],
)
def test_a_known_gpu_has_a_price_with_its_source(name: str, gb: int, row: str) -> None:
    found = price_of(name, gb * 10**9, shipped())
    assert found is not None
    assert found.source.startswith(f"{row} on demand in us-east-1; ")


@pytest.mark.parametrize(("name", "gb"), [("NVIDIA A100-SXM4-80GB", 85), ("NVIDIA GeForce RTX 4090", 25), ("", 0)])
def test_an_unknown_gpu_has_none(name: str, gb: int) -> None:
    assert price_of(name, gb * 10**9, shipped()) is None
