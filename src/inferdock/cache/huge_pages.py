"""The model's weights on pages of 2 MB, where Linux gives them.

Every embedding reads all 11 MB, which are more pages of 4 kB than the processor keeps the addresses of. ``embedder``
calls this once. Nothing depends on it but a twentieth of the time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_HUGE: Final = 2 * 2**20
_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25
"""Linux 6.1 and later; older ones gather the pages by themselves, some time after the first advice."""
_MAPS: Final = Path("/proc/self/maps")

Range = tuple[int, int]


def private_memory() -> set[Range]:
    """Writable memory of this process that no file stands behind: begin and end of each range; empty but on Linux."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return set()
    return set(_ranges(lines))


def join(ranges: set[Range]) -> int:
    """Ask for large pages wherever a whole one fits.

    Only advice: what the ranges hold stays as it is, and a range that is gone meanwhile is passed over.

    Returns:
        Bytes that the kernel says it has put there.
    """
    if not ranges:
        return 0
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    joined = 0
    for begin, end in ranges:
        first = -(-begin // _HUGE) * _HUGE
        length = (end - first) // _HUGE * _HUGE
        if length > 0 and not madvise(first, length, _MADV_HUGEPAGE) and not madvise(first, length, _MADV_COLLAPSE):
            joined += length
    return joined


def _ranges(lines: list[str]) -> Iterator[Range]:
    for line in lines:
        fields = line.split()
        anonymous = fields[4] == "0" and (len(fields) == 5 or fields[5] == "[heap]")
        if anonymous and fields[1] == "rw-p":
            begin, end = fields[0].split("-")
            yield int(begin, 16), int(end, 16)
