"""Damages messages. An operation is a plain tuple, so that hypothesis and the fuzzer draw them in their own ways."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.fuzz.corpus import NASTY

Operation = tuple[str, int, int, int]
"""Kind, place, length, choice; numbers are taken modulo what there is."""

KINDS = ("insert", "replace", "delete", "repeat", "flip", "byte", "truncate", "swap")


def apply(raw: bytes, operations: Sequence[Operation], tokens: Sequence[bytes] = NASTY) -> bytes:
    """Carry out operations one after the other."""
    for operation in operations:
        raw = _apply(raw, operation, tokens)
    return raw


def _apply(raw: bytes, operation: Operation, tokens: Sequence[bytes]) -> bytes:
    kind, place, length, choice = operation
    start = place % (len(raw) + 1)
    end = min(len(raw), start + length % 24)
    token = tokens[choice % len(tokens)]
    match kind:
        case "insert":
            return raw[:start] + token + raw[start:]
        case "replace":
            return raw[:start] + token + raw[end:]
        case "delete":
            return raw[:start] + raw[end:]
        case "repeat":
            return raw[:end] + raw[start:]
        case "flip" if start < len(raw):
            return raw[:start] + bytes([raw[start] ^ 1 << choice % 8]) + raw[start + 1 :]
        case "byte" if start < len(raw):
            return raw[:start] + bytes([choice % 256]) + raw[start + 1 :]
        case "truncate":
            return raw[:start]
        case "swap":
            return raw[:start] + raw[end:] + raw[start:end]
    return raw


def draw(source: random.Random, most: int = 4) -> list[Operation]:
    """A few operations, mostly one or two: too many only make noise, which every parser refuses at once."""
    count = min(source.randint(0, most), source.randint(0, most))
    return [
        (source.choice(KINDS), source.getrandbits(20), source.getrandbits(10), source.getrandbits(16))
        for _ in range(count)
    ]


def line_starts(raw: bytes) -> list[int]:
    """Where lines begin: the places where an inserted header is one."""
    return [place + 2 for place in range(len(raw) - 1) if raw[place : place + 2] == b"\r\n"]


def aim(raw: bytes, operations: list[Operation], source: random.Random) -> list[Operation]:
    """Move most insertions to the beginnings of lines."""
    starts = line_starts(raw)
    if not starts:
        return operations
    return [
        (kind, source.choice(starts), length, choice)
        if kind == "insert" and source.random() < 0.7
        else (kind, place, length, choice)
        for kind, place, length, choice in operations
    ]
