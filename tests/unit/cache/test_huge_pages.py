"""Large pages are advice: they may come or not, and the memory holds what it held."""

from __future__ import annotations

import mmap
import sys

import pytest

from inferdock.cache import huge_pages

MEGABYTE = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_memory_that_comes_between_two_looks_is_seen() -> None:
    before = huge_pages.private_memory()
    block = mmap.mmap(-1, 64 * MEGABYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert max(end - begin for begin, end in huge_pages.private_memory() - before) >= 64 * MEGABYTE
    block.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_contents_stay() -> None:
    before = huge_pages.private_memory()
    block = mmap.mmap(-1, 8 * MEGABYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    content = bytes(range(256)) * (len(block) // 256)
    block.write(content)
    huge_pages.join(huge_pages.private_memory() - before)
    assert block[:] == content
    block.close()


@pytest.mark.parametrize(
    "ranges",
    [
        pytest.param(set(), id="none"),
        pytest.param({(4096, 8192)}, id="less than a large page"),
        pytest.param({(2 * MEGABYTE, 6 * MEGABYTE)}, id="not there any more"),
    ],
)
def test_where_no_large_page_fits_nothing_happens(ranges: set[huge_pages.Range]) -> None:
    assert huge_pages.join(ranges) == 0
