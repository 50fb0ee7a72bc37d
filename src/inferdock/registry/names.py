"""Names of models, versions and aliases, and references to them (``mistral-7b@1.2.0``, ``mistral-7b@champion``)."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from inferdock.domain.errors import ConfigError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_NUMBER: Final = r"(0|[1-9][0-9]{0,9})"
_VERSION: Final = re.compile(rf"v?{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER})?(?:-([0-9A-Za-z.-]{{1,64}}))?", re.ASCII)
_IDENTIFIER: Final = re.compile(r"0|[1-9][0-9]{0,9}|[0-9]*[A-Za-z-][0-9A-Za-z-]*", re.ASCII)
_ALIAS: Final = re.compile(r"[a-z][a-z0-9._-]{0,62}", re.ASCII)

CHAMPION: Final = "champion"
"""What serves: the version that a bare name means."""
CANDIDATE: Final = "candidate"
"""What is to be tried next."""
PREVIOUS: Final = "previous"
"""What was champion before: set whenever the champion changes."""


def check_name(text: str) -> str:
    """A model's name.

    Raises:
        ConfigError: it is none; names are part of paths, keys and labels.
    """
    if not _NAME.fullmatch(text) or text.endswith((".", "-", "_")):
        raise ConfigError(
            f"{text[:150]!r} is no name of a model.",
            cure="Take letters, digits, dots, dashes and underscores, for instance mistral-7b-instruct.",
        )
    return text


def check_alias(text: str) -> str:
    """An alias's name.

    Raises:
        ConfigError: it is none, or would pass for a version.
    """
    if not _ALIAS.fullmatch(text) or _VERSION.fullmatch(text):
        raise ConfigError(
            f"{text[:150]!r} is no alias.",
            cure="Take lower-case letters, digits and dashes, for instance champion; no version number.",
        )
    return text


@functools.total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A semantic version without a build part (https://semver.org, 2.0.0); the order is the semantic one.

    Attributes:
        numbers: major, minor, patch.
        pre: identifiers of the pre-release, none for a release.
    """

    numbers: tuple[int, int, int]
    pre: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read ``1``, ``1.9``, ``v1.10.0`` or ``2.0.0-rc.1``; numbers that are left out are 0.

        Raises:
            ConfigError: it is no version.
        """
        match = _VERSION.fullmatch(text)
        pre = tuple(match[4].split(".")) if match and match[4] else ()
        if match is None or not all(_IDENTIFIER.fullmatch(part) for part in pre):
            raise ConfigError(
                f"{text[:150]!r} is no version.", cure="Take three numbers, for instance 1.10.0 or 2.0.0-rc.1."
            )
        return cls((int(match[1]), int(match[2] or 0), int(match[3] or 0)), pre)

    def __str__(self) -> str:
        core = ".".join(map(str, self.numbers))
        return f"{core}-{'.'.join(self.pre)}" if self.pre else core

    @property
    def order(self) -> str:
        """Text whose order by bytes is the semantic order: the sort key of the table's index.

        Numbers are padded to ten digits. ``~`` (after all that a version may hold) stands for "released"; identifiers
        of a pre-release end with ``!`` (before all that it may hold), numeric ones begin with 0 and others with 1.
        """
        core = ".".join(f"{number:010d}" for number in self.numbers)
        if not self.pre:
            return f"{core}~"
        return core + "-" + "".join(f"0{int(p):010d}!" if p.isdigit() else f"1{p}!" for p in self.pre)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: Version) -> bool:
        return self.order < other.order


@dataclass(frozen=True, slots=True)
class Reference:
    """What a person names: a model, and a version or an alias of it.

    Attributes:
        name: the model.
        version: the version; None when ``alias`` says which.
        alias: the alias; ``champion`` where the person named the model alone.
    """

    name: str
    version: str | None
    alias: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``name``, ``name@1.2.0`` or ``name@alias``.

        Raises:
            ConfigError: it is neither.
        """
        name, at, which = text.partition("@")
        check_name(name)
        if not at:
            return cls(name, None, CHAMPION)
        if _VERSION.fullmatch(which):
            return cls(name, str(Version.parse(which)), None)
        return cls(name, None, check_alias(which))

    def __str__(self) -> str:
        return f"{self.name}@{self.version or self.alias}"
