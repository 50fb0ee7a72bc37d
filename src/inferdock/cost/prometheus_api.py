"""What is asked of a Prometheus, and how its answers read. Pure: ``app.cost`` sends and receives.

Raw samples are asked for (a range selector in an instant query), not ``increase()``: that guesses what lies outside of
the first and last sample, and knows nothing of a counter that begins within the window. Here tokens are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import msgspec

from inferdock.cost.amounts import ZERO
from inferdock.cost.observed import ENGINE_WANTED, WANTED
from inferdock.cost.series import Series
from inferdock.domain.errors import UnreachableError
from inferdock.telemetry import names

HEARTBEAT: Final = names.WORKERS
"""Every gateway shows it from its first scrape to its last, so it says when somebody looked."""
QUESTIONS: Final = (*WANTED, *ENGINE_WANTED, HEARTBEAT)
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
_OWN: Final = ("model", "revision", "tenant", "kind", "state")


class _Matrix(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]] = []


class _Data(msgspec.Struct):
    result_type: str = msgspec.field(name="resultType")
    result: list[_Matrix] = []


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """What a Prometheus knows of a window.

    Attributes:
        gateway, engines: counters.
        elapsed: seconds from the first to the last look at a gateway.
    """

    gateway: list[Series]
    engines: list[Series]
    elapsed: Fraction


def question(name: str, *, window_s: int, selector: str = "") -> str:
    """The query for the raw samples of one metric.

    Args:
        window_s: seconds back from now.
        selector: label matchers, as PromQL has them within braces.
    """
    return f"{name}{{{selector}}}[{window_s}s]" if selector else f"{name}[{window_s}s]"


def read_matrix(raw: bytes, name: str) -> list[Series]:
    """The series of an answer.

    Args:
        raw: body of ``/api/v1/query``.
        name: of the metric that was asked for.

    Raises:
        UnreachableError: it is no such answer, or says that the question failed.
    """
    try:
        answer = msgspec.json.decode(raw, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UnreachableError(
            f"What answers is no Prometheus: {exc}.", cure="Give its base URL, for instance http://127.0.0.1:9090."
        ) from exc
    if answer.status != "success" or answer.data is None:
        raise UnreachableError(f"Prometheus does not answer the question for {name}: {answer.error[:500]}.")
    if answer.data.result_type != "matrix":
        raise UnreachableError(f"Prometheus answers the question for {name} with a {answer.data.result_type[:50]}.")
    return [_series(one, name) for one in answer.data.result]


def _series(one: _Matrix, name: str) -> Series:
    return Series(name, one.metric, [(at, _number(text)) for at, text in one.values])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def assemble(answers: Mapping[str, Iterable[Series]]) -> Window:
    """All answers as one window.

    A counter that a gateway did not show yet at its first look began within the window. What it had counted before
    the first look of all is not part of the window, and neither is the time before.
    """
    looks = {_reader(one.labels): one.points for one in answers.get(HEARTBEAT, ()) if one.points}
    gateway = [_aged(one, looks) for name in WANTED for one in answers.get(name, ()) if one.points]
    engines = [one for name in ENGINE_WANTED for one in answers.get(name, ()) if one.points]
    if not looks:
        return Window(gateway, engines, ZERO)
    first, last = min(points[0][0] for points in looks.values()), max(points[-1][0] for points in looks.values())
    return Window(gateway, engines, Fraction(max(0.0, last - first)))


def _reader(labels: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((k, v) for k, v in labels.items() if k not in (*_OWN, "__name__"))


def _aged(one: Series, looks: Mapping[frozenset[tuple[str, str]], Any]) -> Series:
    points = looks.get(_reader(one.labels))
    born = points is not None and one.points[0][0] > points[0][0]
    return Series(one.name, one.labels, one.points, from_zero=born)
