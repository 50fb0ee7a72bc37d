"""All endpoints of one model, the groups they are chosen from, and the traffic weights over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf

from inferdock.balance.ejection import Rules
from inferdock.balance.endpoint import Endpoint, State
from inferdock.balance.group import NEVER, Group
from inferdock.balance.traffic import Traffic

LOOK_S = 0.002
LOOK_S_PER_ENDPOINT = 50e-6
"""How old the other workers' counts may be: reading them takes under half a microsecond per endpoint, 1 % of this."""


class Fleet:
    """One model.

    Attributes:
        members: its endpoints, ready or not.
        whole: the group of all; the only one while no weights are set.
        groups: one per revision while weights are set.
        traffic: the weights, None while none are set.
        revisions: those with a ready endpoint.
        due: when :meth:`refresh` must be called before the next choice; a time in the past when something changed.
    """

    __slots__ = (
        "_change_due",
        "_rules",
        "_shared",
        "_slow_start_s",
        "_turn",
        "due",
        "groups",
        "members",
        "revisions",
        "traffic",
        "whole",
    )

    def __init__(self, *, rules: Rules, slow_start_s: float, shared: bool, turn: int) -> None:
        """An empty fleet.

        Args:
            rules: of ejection.
            slow_start_s: see ``balance.slow_start``.
            shared: other workers' counts must be read from time to time.
            turn: where this worker begins among equals, so that not all begin with the same endpoint.
        """
        self._rules = rules
        self._slow_start_s = slow_start_s
        self._shared = shared
        self._turn = turn
        self._change_due = NEVER
        self.members: list[Endpoint] = []
        self.whole = Group([])
        self.groups: dict[str, Group] = {}
        self.traffic: Traffic | None = None
        self.revisions: frozenset[str] = frozenset()
        self.due = NEVER

    def configure(self, *, rules: Rules, slow_start_s: float) -> None:
        """Obey these from now on."""
        self._rules = rules
        self._slow_start_s = slow_start_s
        self.changed()

    def arrange(self, members: Sequence[Endpoint], traffic: Traffic | None) -> None:
        """Set members and weights; groups whose members stay keep their ring."""
        before = [self.whole, *self.groups.values()]
        for group in before:
            group.clear()
        self.members = list(members)
        self.traffic = traffic
        by_revision: dict[str, list[Endpoint]] = {}
        if traffic is None:
            self.whole, self.groups = self._group(self.members, before), {}
        else:
            for endpoint in members:
                by_revision.setdefault(endpoint.spec.revision, []).append(endpoint)
            self.whole = Group([])
            self.groups = {revision: self._group(some, before) for revision, some in by_revision.items()}
        self.changed()

    def changed(self) -> None:
        """Readiness or ejection of an endpoint has changed: look again before the next choice."""
        self.due = self._change_due = -inf

    def refresh(self, now: float) -> None:
        """Bring all groups up to date."""
        groups = list(self.groups.values()) if self.traffic is not None else [self.whole]
        if now < self._change_due:
            for group in groups:
                group.look()
        else:
            for group in groups:
                group.refresh(now, rules=self._rules, slow_start_s=self._slow_start_s)
            self._change_due = min((group.due for group in groups), default=NEVER)
            self.revisions = frozenset(e.spec.revision for e in self.members if e.state is State.READY)
            if self.traffic is not None:
                self.traffic.offer(self.revisions)
        look_due = now + LOOK_S + LOOK_S_PER_ENDPOINT * len(self.members) if self._shared else NEVER
        self.due = min(self._change_due, look_due)

    def group_of(self, endpoint: Endpoint) -> Group | None:
        """The group that an endpoint is chosen from; None when it is none of ours any more."""
        group = self.whole if self.traffic is None else self.groups.get(endpoint.spec.revision)
        return group if group is not None and endpoint in group.members else None

    def ejected_of(self, revision: str | None, limit: int | None) -> Endpoint | None:
        """The least loaded endpoint of a revision among the ready ones, ejected or not."""
        able = [
            endpoint
            for endpoint in self.members
            if endpoint.state is State.READY
            and endpoint.spec.revision == revision
            and (limit is None or endpoint.held < limit)
        ]
        return min(able, key=lambda endpoint: endpoint.outstanding, default=None)

    def chosen(self, session: int | None) -> Group | None:
        """The group for the next request, by the weights, or by a session's key.

        When no weighted revision is ready, one without weight serves rather than none: that with most ready
        endpoints.
        """
        if self.traffic is None:
            return self.whole
        revision = self.traffic.next() if session is None else self.traffic.of_session(session)
        if revision is not None:
            return self.groups[revision]
        return max(self.groups.values(), key=lambda group: len(group.endpoints), default=None)

    def likely(self, session: int | None, chance: float) -> Endpoint | None:
        """A ready endpoint of the revision that the next request may get; nobody's turn is taken."""
        members = self.members
        if self.traffic is not None:
            revision = self.traffic.drawn(chance) if session is None else self.traffic.of_session(session)
            if revision is not None:
                members = self.groups[revision].members
        first = int(chance * len(members))
        for endpoint in (*members[first:], *members[:first]):
            if endpoint.state is State.READY:
                return endpoint
        return None

    def not_sent(self, group: Group) -> None:
        """No endpoint could take the request for which :meth:`chosen` gave ``group``: it has its turn again."""
        if self.traffic is not None and group.members:
            self.traffic.undo(group.members[0].spec.revision)

    def instead_of(self, group: Group, *, any_weight: bool) -> Iterator[Group]:
        """Groups for a request that ``group`` cannot take, most weight first.

        A full revision gives to revisions of at least its own weight only: what is too much for the canary goes to
        the stable one, but what is too much for the stable one waits, for a canary was promised a small share.
        ``any_weight`` lifts this, for a request that has failed on the group's endpoints.
        """
        if self.traffic is None:
            return
        weight = 0.0
        if not any_weight:
            weight = next((self.traffic.weights[r] for r in self.traffic.able if self.groups[r] is group), 0.0)
        for revision in self.traffic.able:
            other = self.groups[revision]
            if other is not group and self.traffic.weights[revision] >= weight:
                yield other

    def _group(self, members: list[Endpoint], before: Iterable[Group]) -> Group:
        same = next((group for group in before if group.members == members), None)
        return same if same is not None else Group(members, turn=self._turn)
