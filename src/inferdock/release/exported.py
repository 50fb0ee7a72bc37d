"""Figures of a model's releases for ``/metrics``, from their journals. Pure but for what a :class:`Ledger` remembers.

The supervisor of ``inferdock up`` looks at the journals, whoever runs the releases: a runner is a command that ends. In
a cluster nobody stays who could be scraped; there the journal is the record (``inferdock release status -o json``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from inferdock.release.events import Event, Judged, Turned
from inferdock.release.machine import State, Trigger
from inferdock.release.plan import Kind
from inferdock.release.progress import Progress, fold
from inferdock.telemetry import names
from inferdock.telemetry.published import Figure

BACKWARDS = (Trigger.FAIL, Trigger.ABORT)
"""What begins a way back; a retry goes on with one."""


class Ledger:
    """Counts over all releases; those that are over are read once."""

    def __init__(self) -> None:
        self._over: dict[str, tuple[Progress, Tally]] = {}

    def unread(self, ids: Iterable[str]) -> list[str]:
        """Those whose journals must be read; what is kept of others that are gone is forgotten."""
        there = list(ids)
        self._over = {release: known for release, known in self._over.items() if release in set(there)}
        return [release for release in there if release not in self._over]

    def figures(self, model: str, ids: Sequence[str], read: Mapping[str, Sequence[Event]]) -> list[Figure]:
        """All figures.

        Args:
            model: whose releases these are.
            ids: every release, oldest first.
            read: events of those that :meth:`unread` named; the others of them cannot be read now.

        Raises:
            IntegrityError: a journal makes no sense.
        """
        whole, last = Tally(), None
        for release in ids:
            known = self._over.get(release)
            if known is None:
                if release not in read:
                    continue
                known = (fold(read[release]), Tally.of(read[release]))
                if known[0].over:
                    self._over[release] = known
            whole.add(known[1])
            if last is None or last.over or not known[0].over:
                last = known[0]
        return [*whole.figures(model), *(of_release(last) if last is not None else ())]


class Tally:
    """Counts over releases.

    Attributes:
        verdicts: by gate and verdict.
        backwards: ways back by what began them.
    """

    def __init__(self) -> None:
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.backwards: Counter[str] = Counter()

    @classmethod
    def of(cls, events: Sequence[Event]) -> Tally:
        """One release's."""
        tally = cls()
        plan = fold(events[:1]).plan
        tally.backwards["rollback"] += plan.kind is Kind.ROLLBACK
        for event in events:
            if isinstance(event.entry, Judged):
                tally.verdicts[event.entry.gate, str(event.entry.verdict)] += 1
            elif isinstance(event.entry, Turned) and event.entry.trigger in BACKWARDS:
                tally.backwards[str(event.entry.trigger)] += 1
        return tally

    def add(self, other: Tally) -> None:
        """Count those of another too."""
        self.verdicts.update(other.verdicts)
        self.backwards.update(other.backwards)

    def figures(self, model: str) -> list[Figure]:
        """As metrics."""
        verdicts = [Figure(names.RELEASE_VERDICTS, (model, *key), float(n)) for key, n in self.verdicts.items()]
        back = [Figure(names.RELEASE_ROLLBACKS, (model, key), float(n)) for key, n in self.backwards.items()]
        return [*verdicts, *back]


def of_release(progress: Progress) -> list[Figure]:
    """What one release is and how far."""
    plan = progress.plan
    stable, to = plan.stable, plan.to
    before = (stable.reference, stable.revision) if stable is not None else ("", "")
    named = (plan.model, plan.id, str(plan.kind), before[0], to.reference, before[1], to.revision)
    figures = [
        Figure(names.RELEASE_INFO, named, 1.0),
        *(Figure(names.RELEASE_STATE, (plan.model, str(one)), float(one is progress.state)) for one in State),
        Figure(names.RELEASE_STEPS, (plan.model,), float(len(plan.steps))),
        Figure(names.RELEASE_STEPS_DONE, (plan.model,), float(progress.next)),
    ]
    if progress.flip_s is not None:
        figures.append(Figure(names.RELEASE_FLIP, (plan.model,), progress.flip_s))
    return figures
