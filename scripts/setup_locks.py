"""Reads and tidies `requirements/*.lock`. Called by `setup_steps`, `lock.sh` and the tests.

A lock holds one block per package: `name==version ; marker \\` and indented `--hash=` lines.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = "# Written by scripts/lock.sh from pyproject.toml; do not edit.\n"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def spell(self) -> str:
        """The pin as a lock spells it."""
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n".join([head, *(f"    --hash={value}" for value in self.hashes)]) + "\n"


def normal_name(name: str) -> str:
    """Name of a distribution as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> Iterator[Pin]:
    """Every pin of a lock, in order.

    Raises:
        ValueError: a line is neither a comment nor a pin of an exact version.
    """
    for block in re.sub(r"\\\n", " ", text).splitlines():
        if not block.strip() or block.lstrip().startswith("#"):
            continue
        head, *hashes = block.split(" --hash=")
        requirement, _, marker = head.partition(";")
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s*]+)", requirement.strip())
        if match is None:
            raise ValueError(f"not an exact pin: {head.strip()!r}")
        yield Pin(normal_name(match[1]), match[2], marker.strip(), tuple(value.strip() for value in hashes))


def tidy(pins: Iterable[Pin], holds: Callable[[str, dict[str, str]], bool]) -> Iterator[Pin]:
    """Leave out pins that no platform of ours wants, and markers that always hold.

    Args:
        pins: what uv resolved for every platform there is.
        holds: whether a marker holds in an environment (PEP 508 names to values).
    """
    for pin in pins:
        verdicts = [holds(pin.marker, env) for env in environments()] if pin.marker else [True]
        if all(verdicts):
            yield Pin(pin.name, pin.version, "", pin.hashes)
        elif any(verdicts):
            yield pin


def environments() -> Iterator[dict[str, str]]:
    """The platforms that the locks are for: Linux, CPython, two kinds of machine."""
    for python in PYTHONS:
        for machine in MACHINES:
            yield {
                "python_version": python,
                "python_full_version": f"{python}.4",
                "platform_machine": machine,
                "sys_platform": "linux",
                "platform_system": "Linux",
                "os_name": "posix",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }


def constraints(pins: Iterable[Pin]) -> str:
    """The pins as constraints that bind on our kinds of machine only; uv resolves for others too."""
    ours = " or ".join(f"platform_machine == '{machine}'" for machine in MACHINES)
    markers = ((pin, f"({ours}) and ({pin.marker})" if pin.marker else ours) for pin in pins)
    return "".join(f"{pin.name}=={pin.version} ; {marker}\n" for pin, marker in markers)


def main() -> int:
    """Tidy one lock in place, or write its pins as constraints."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--split", nargs=2, metavar=("NAME", "FILE"), help="move one package, without hashes, to FILE")
    parser.add_argument("--constraints", type=Path, metavar="FILE", help="leave the lock alone and write constraints")
    options = parser.parse_args()
    pins = list(read_pins(options.lock.read_text(encoding="utf-8")))
    if options.constraints:
        options.constraints.write_text(constraints(pins), encoding="utf-8")
        return 0
    from packaging.markers import Marker  # noqa: PLC0415  (only here: set-up itself runs on a bare Python)

    pins = list(tidy(pins, lambda marker, env: Marker(marker).evaluate(dict(env))))
    name, file = options.split or ("", "")
    options.lock.write_text(HEADER + "".join(p.spell() for p in pins if p.name != name), encoding="utf-8")
    if file:
        moved = [Pin(p.name, p.version, p.marker, ()) for p in pins if p.name == name]
        Path(file).write_text(HEADER + "".join(p.spell() for p in moved), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
