"""Reads chosen samples with their labels from the Prometheus text format. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from inferdock.domain.errors import UnreachableError


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of an exposition; it may be anything, NaN and negative numbers too."""

    name: str
    labels: dict[str, str]
    value: float


def read_samples(text: str, names: Collection[str]) -> list[Sample]:
    """The samples of these names, exactly as exposed.

    Args:
        text: an exposition; lines of other names are not looked at.
        names: of samples, ``_total`` included.

    Raises:
        UnreachableError: a line of these names makes no sense.
    """
    wanted = frozenset(names)
    lines = [line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] in wanted]
    try:
        families = list(text_string_to_metric_families("\n".join(lines) + "\n"))
        return [Sample(one.name, one.labels, float(one.value)) for family in families for one in family.samples]
    except (ValueError, KeyError, IndexError, OverflowError) as exc:
        raise UnreachableError(f"The figures cannot be read: {exc}.") from exc
