"""Sizes of parts, the bound of memory, and which parts need not be sent again."""

from __future__ import annotations

import base64
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inferdock.registry.aws.answers import Head
from inferdock.registry.aws.memory import Budget
from inferdock.registry.aws.parts import _same, part_size

MIB = 1024 * 1024
DATA = b"the bytes of a part"
SHA256 = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("size", "part"),
    [(1, 16 * MIB), (10_000 * 16 * MIB, 16 * MIB), (10_000 * 16 * MIB + 1, 16 * MIB + 1), (5 * 1024**4, 549755814)],
)
def test_there_are_never_more_parts_than_s3_takes(size: int, part: int) -> None:
    assert part_size(size, 16 * MIB) == part
    assert -(-size // part) <= 10_000


@pytest.mark.parametrize(
    ("there", "same"),
    [
        ({"Size": len(DATA), "ETag": "odd", "ChecksumSHA256": SHA256}, True),
        ({"Size": len(DATA), "ETag": f'"{MD5}"'}, True),
        ({"Size": len(DATA), "ETag": f'"{MD5}"', "ChecksumSHA256": SHA256[::-1]}, False),
        ({"Size": len(DATA), "ETag": '"0"'}, False),
        ({"Size": len(DATA) + 1, "ETag": f'"{MD5}"'}, False),
        ({}, False),
    ],
    ids=["sha256", "md5", "sha256 says no", "encrypted", "longer", "nothing"],
)
def test_a_part_is_kept_only_if_its_checksum_is_right(there: dict[str, Any], same: bool) -> None:
    assert _same(there, DATA, SHA256) is same


@pytest.mark.parametrize(("etag", "parts"), [('"ab-12"', 12), ('"ab"', 0), ("ab-1", 1), ("", 0), ('"a-b"', 0)])
def test_the_etag_says_in_how_many_parts_an_object_was_sent(etag: str, parts: int) -> None:
    assert Head(size=1, etag=etag, checksum=None, digest=None).parts == parts


def test_the_budget_is_never_exceeded() -> None:
    budget, lock = Budget(10), threading.Lock()
    used, most = 0, 0

    def work(size: int) -> None:
        nonlocal used, most
        with budget.hold(size):
            with lock:
                used += size
                most = max(most, used)
            with lock:
                used -= size

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [1, 4, 7, 10] * 200))
    assert most <= 10


def test_what_is_larger_than_the_budget_gets_through_alone() -> None:
    budget = Budget(10)
    with budget.hold(25):
        pass
    with budget.hold(10):
        pass
