"""Passive ejection: what failed requests say about an endpoint, as a pure state machine; time is passed in.

An endpoint is *in*; failures in a row, or one refused connection, put it *out* until a time; then it is in again.
Each ejection lasts longer than the one before. Successes make the past forgotten, half of it at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Rules:
    """When to eject, and for how long.

    Attributes:
        failures: failures in a row that eject.
        base_s: length of the first ejection; the n-th in close succession lasts n times as long.
        max_s: longest ejection.
        max_share: largest share of the ready endpoints that may be out at once, 0-1; 0 switches ejection off.
    """

    failures: int = 3
    base_s: float = 5.0
    max_s: float = 60.0
    max_share: float = 0.5

    def allowed(self, ready: int) -> int:
        """How many of so many ready endpoints may be out: never all, and at least one of several."""
        if self.max_share <= 0:
            return 0
        return min(max(1, int(self.max_share * ready)), ready - 1) if ready else 0


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one endpoint.

    Attributes:
        failures: failed requests in a row.
        ejections: ejections that are not forgotten yet.
        until: end of the present or the last ejection, in seconds of the caller's clock.
        refused: the present ejection is for a refused connection.
        eased_at: when ejections were last halved.
    """

    failures: int = 0
    ejections: int = 0
    until: float = 0.0
    refused: bool = False
    eased_at: float = 0.0


CLEAN = Record()
"""Nothing is held against the endpoint; always this very object."""


def failed(record: Record, now: float, *, refused: bool, room: bool, rules: Rules) -> Record:
    """A request failed before its first byte.

    Args:
        record: before.
        now: seconds.
        refused: no connection was taken: that ejects at once.
        room: whether one more endpoint may go out (:meth:`Rules.allowed`).
        rules: see :class:`Rules`.

    Returns:
        The record after; :attr:`Record.until` is after ``now`` if the endpoint is out.
    """
    if now < record.until:
        return record  # a straggler from before the ejection says nothing new
    failures = min(record.failures + 1, rules.failures)
    if not room or (failures < rules.failures and not refused):
        return replace(record, failures=failures)
    ejections = record.ejections + 1
    until = now + min(rules.max_s, rules.base_s * ejections)
    return Record(ejections=ejections, until=until, refused=refused, eased_at=until)


def succeeded(record: Record, now: float, *, rules: Rules) -> Record:
    """A request was answered: failures are forgotten, and past ejections are halved, at most once per ``base_s``."""
    if now < record.until:
        return record
    if record.ejections and now >= record.eased_at + rules.base_s:
        record = replace(record, ejections=record.ejections // 2, eased_at=now)
    if not record.ejections:
        return CLEAN
    return replace(record, failures=0) if record.failures else record


def check_passed(record: Record, now: float) -> Record:
    """An active health check succeeded: that proves that connections are taken again, and nothing more.

    An endpoint that fails its requests while ``/health`` says 200 waits out its time; else each check would bring
    it back.
    """
    return readmitted(record, now) if record.refused else record


def readmitted(record: Record, now: float) -> Record:
    """End an ejection early; how often it was ejected stays remembered."""
    return replace(record, until=now, eased_at=now) if now < record.until else record
