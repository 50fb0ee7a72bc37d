"""The shape weighs what the published model weighs."""

from bench.gpu.shape import MISTRAL_7B, Awq, model_config, weight_bytes


def test_the_shape_has_as_many_parameters_as_the_published_model() -> None:
    assert MISTRAL_7B.linear_parameters + MISTRAL_7B.other_parameters == 7_241_732_096


def test_a_token_takes_128_kib_of_cache() -> None:
    assert MISTRAL_7B.kv_bytes_per_token == 128 * 1024


def test_awq_leaves_less_than_a_third() -> None:
    assert weight_bytes(MISTRAL_7B, Awq()) < weight_bytes(MISTRAL_7B) / 3


def test_only_the_quantised_form_says_so() -> None:
    assert "quantization_config" not in model_config(MISTRAL_7B)
    assert model_config(MISTRAL_7B, Awq(group=64))["quantization_config"] == {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 64,
        "zero_point": True,
        "version": "gemm",
    }
