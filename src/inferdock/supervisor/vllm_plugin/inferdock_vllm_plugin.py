"""What vLLM runs at the start of each of its processes, found by its entry point beside this file.

The folder stands in the engine's PYTHONPATH, so nothing is installed into the engine's Python. Of that Python only
torch is used, which vLLM has.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable

import torch

WISH = "INFERDOCK_AMX"
"""Variable of the engine's environment; "1" lets vLLM use AMX."""
_ARCH_PRCTL = 158
"""Number of the system call on x86-64."""
_ARCH_REQ_XCOMP_PERM = 0x1023
_XTILEDATA = 18
"""State component of AMX's tiles; see the kernel's Documentation/arch/x86/xstate.rst."""


def ask() -> int:
    """Ask the kernel for AMX's tiles in this process; 0, or the errno of its refusal."""
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA) else 0


def settle_amx(ask: Callable[[], int] = ask) -> None:
    """Keep vLLM from AMX, or ask the kernel for its use where that is wished.

    vLLM 0.32.0 takes AMX where the processor's flags name it, and Linux kills a process (SIGILL) that uses it without
    having asked. And with AMX an answer depends on what is computed beside it: a stream that goes on at another
    replica may then read differently from one that was never cut.
    """
    if not torch.cpu._is_amx_tile_supported():
        return
    if os.environ.get(WISH) == "1":
        refusal = ask()
        if not refusal:
            return
        logging.getLogger("vllm").warning(
            "The kernel does not let this process use AMX (errno %d); vLLM does without it.", refusal
        )
    torch.cpu._is_amx_tile_supported = lambda: False
