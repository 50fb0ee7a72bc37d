"""What engines are started with, what they say, and why they did not start."""

import socket

import pytest
from bench.gpu.device import Gpu
from bench.gpu.engines import arguments, check_port, environment, failure, reported
from bench.gpu.forms import FORMS

from inferdock.domain.errors import EngineError, ResourceError

GPU = Gpu(index="3", name="NVIDIA H200", driver="1", total=1, free=1, capability=9.0)
INFO = 'vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="%s",num_gpu_blocks="100"} 1.0\n'
LOG = """\
INFO [auto_awq.py:451] Using MarlinLinearKernel for AutoAWQMarlinLinearMethod
INFO [gpu_model_runner.py:5150] Model loading took 3.88 GiB memory and 1.234567 seconds
"""


def test_the_engine_is_believed_about_its_memory() -> None:
    found = reported(INFO % "1600", LOG)
    assert (found.weight_gib, found.kv_tokens, found.kv_block_tokens) == (3.88, 1600, 16)
    assert found.kernel == "MarlinLinearKernel"


def test_tokens_follow_from_blocks_where_no_label_says_them() -> None:
    assert reported(INFO % "None", "").kv_tokens == 1600


def test_what_is_not_said_is_not_invented() -> None:
    found = reported("", "")
    assert (found.weight_gib, found.kv_tokens, found.kernel) == (None, None, None)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_only_engines_with_weights_are_told_to_invent_them(form) -> None:
    assert ("--load-format" in arguments(form, None)) is form.vllm


def test_the_engine_gets_the_gpu_that_was_looked_at() -> None:
    assert environment(GPU)["CUDA_VISIBLE_DEVICES"] == "3"
    assert "--gpu-memory-utilization" in arguments(FORMS["gpu"], GPU)


@pytest.mark.parametrize(
    ("log", "kind", "said"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", ResourceError, "--weights awq"),
        ("ValueError: No available memory for the cache blocks. Try", ResourceError, "--weights awq"),
        ("OSError: [Errno 98] Address already in use", ResourceError, "--port"),
        ("INFO fine\nRuntimeError: no kernel image\nINFO bye", EngineError, "no kernel image"),
        ("", EngineError, "it said nothing"),
    ],
    ids=["out of memory", "no cache", "port", "other", "nothing"],
)
def test_a_failed_start_is_a_sentence(log, kind, said) -> None:
    error = failure(log)
    assert isinstance(error, kind)
    assert said in str(error)


def test_a_busy_port_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ResourceError, match="cannot be used"):
            check_port(taken.getsockname()[1])
