"""Whether a model fits: the sum by hand, sums that come out even, GPUs together, and sizes of a KV cache to try."""

from __future__ import annotations

import pytest

from inferdock.simulation.memory import Footprint, Room, gpus_to_fit, levels

MISTRAL_TOKEN = 2 * 32 * 8 * 128 * 2
"""Bytes that a token of Mistral-7B takes with 16 bits."""


def room(weights: float, *, memory: float = 22, gpus: int = 1, length: int = 4096, share: float = 0.9) -> Room:
    model = Footprint(weights_gib=weights, kv_bytes_per_token=MISTRAL_TOKEN, max_model_len=length, utilization=share)
    return Room(footprint=model, gpus=gpus, memory_gib=memory)


def test_the_sum_by_hand() -> None:
    """22 GiB x 0.9 - 3.9 - 1 = 14.9 GiB; a token takes 128 KiB, so 8,192 are a GiB."""
    awq = room(3.9)
    assert float(awq.left_gib) == 14.9
    assert awq.kv_cache_tokens == int(14.9 * 8192) == 122_060
    assert awq.sum == (
        "vLLM may take 19.8 GiB (1 x 22 GiB x 0.9), the weights take 3.9, activations 1.0, and one sequence of "
        "4096 tokens needs 0.50 GiB of KV cache"
    )


@pytest.mark.parametrize(("weights", "fits"), [(3.9, True), (11.1, True), (11.2, False), (13.5, False)])
def test_quantised_weights_fit_where_the_others_do_not(weights: float, fits: bool) -> None:
    assert room(weights, memory=14).fits is fits


def test_what_fits_exactly_fits() -> None:
    """14 x 0.9 is 12.6, although it is not in floating point."""
    exact = room(12.6 - 1 - 0.5, memory=14)
    assert exact.left_gib == exact.sequence_gib
    assert exact.fits
    assert exact.kv_cache_tokens == 4096
    assert not room(11.1, memory=14, length=4097).fits


def test_weights_that_are_too_large_leave_nothing_rather_than_less() -> None:
    assert room(30).left_gib < 0
    assert room(30).kv_cache_tokens == 0


def test_gpus_of_a_replica_count_together() -> None:
    assert not room(27, gpus=1).fits
    assert room(27, gpus=2).fits
    assert float(room(27, gpus=2).left_gib) == pytest.approx(2 * 19.8 - 27 - 2)


@pytest.mark.parametrize(("weights", "count"), [(13.5, 1), (20, 2), (27, 2), (60, 4), (70, 4), (76, None)])
def test_the_fewest_gpus_are_a_power_of_two(weights: float, count: int | None) -> None:
    assert gpus_to_fit(room(weights).footprint, 22, most=4) == count


@pytest.mark.parametrize("full", [16, 1000, 122_060, 1_000_000])
def test_sizes_of_more_room_are_among_those_of_less(full: int) -> None:
    small, large = levels(full, full // 9 + 1), levels(full, full // 3)
    assert small[: len(large)] == large
    assert small[-1] <= full // 9 + 1
    assert levels(full, full) == levels(full, 2 * full) == [full]


def test_little_is_lost_by_rounding_down() -> None:
    for least in range(40_000, 1_000_000, 9_999):
        assert 0.84 * least < levels(1_000_000, least)[-1] <= least
