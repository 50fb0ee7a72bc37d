"""The set of endpoints, leases on them, and what is learnt from the requests that they served.

Choosing is: filter (model, revision, ready, not ejected, below the limit) -> score (traffic weights, session,
policy) -> pick. The set is replaced declaratively: a source says what should be there, and endpoints that are gone
drain (they take no new requests; leases that are out stay valid). One event loop owns it; nothing here awaits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from inferdock.balance import ejection
from inferdock.balance.affinity import Affinity
from inferdock.balance.board import Board
from inferdock.balance.columns import MAX_ENDPOINTS as MAX_ENDPOINTS
from inferdock.balance.columns import Columns
from inferdock.balance.endpoint import Endpoint as Endpoint
from inferdock.balance.endpoint import Lease as Lease
from inferdock.balance.endpoint import State as State
from inferdock.balance.fleet import Fleet
from inferdock.balance.group import NEVER, Group
from inferdock.balance.hashing import key_of
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.balance.policy import Policy
from inferdock.balance.prefix import Prefix
from inferdock.balance.shadow import Sampling
from inferdock.balance.traffic import Traffic
from inferdock.balance.wanted import ANY as ANY
from inferdock.balance.wanted import Wanted as Wanted
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.shadow import Shadow

if TYPE_CHECKING:  # a gateway worker does not load the settings' library
    from inferdock.config.settings import BalanceSettings


class EndpointSet:
    """All endpoints, by model, with a policy that picks among those that may take a request."""

    def __init__(
        self,
        policy: Policy,
        *,
        board: Board | None = None,
        settings: BalanceSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """An empty set.

        Args:
            policy: see ``balance.policy``.
            board: where requests on endpoints are counted; default: memory of this process.
            settings: slow start, ejection and affinity; the policy itself is ``policy``. Without them there is no
                slow start.
            clock: seconds; the ``now`` of other methods must come from the same clock.
        """
        self._policy = policy
        self._board = board if board is not None else Board.private(MAX_ENDPOINTS)
        self._clock = clock
        self._affinity = Affinity()
        self._rules = ejection.Rules()
        self._slow_start_s = 0.0
        self._columns = Columns(self._board)
        self._by_name: dict[str, Endpoint] = {}
        self._fleets: dict[str, Fleet] = {}
        self._traffic: dict[str, Traffic] = {}
        self._declared: dict[str, None] = {}
        self.shadows: dict[str, Sampling] = {}
        """By model: which of its requests another revision gets as well; few models have one."""
        self.prefix_bytes = policy.prefix_bytes
        """How much of a prompt's beginning is of use in :attr:`Wanted.prefix`; 0: none."""
        if settings is not None:
            self._obey(settings)

    @classmethod
    def build(
        cls,
        settings: BalanceSettings,
        *,
        board: Board | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> EndpointSet:
        """A set with the policy that the settings name."""
        return cls(_policy_of(settings), board=board, settings=settings, clock=clock)

    def configure(self, settings: BalanceSettings) -> None:
        """Choose by these settings from now on; endpoints, leases and what is remembered of them stay."""
        self._policy = _policy_of(settings)
        self.prefix_bytes = self._policy.prefix_bytes
        self._obey(settings)
        for fleet in self._fleets.values():
            fleet.configure(rules=self._rules, slow_start_s=self._slow_start_s)

    def _obey(self, settings: BalanceSettings) -> None:
        self._affinity = Affinity(load_factor=settings.load_factor, floor=settings.affinity_floor)
        self._rules = ejection.Rules(
            failures=settings.eject_failures,
            base_s=settings.eject_base_s,
            max_s=settings.eject_max_s,
            max_share=settings.max_ejected_share,
        )
        self._slow_start_s = settings.slow_start_s

    # -- What is there ---------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._by_name.values())

    @property
    def reads_prompts(self) -> bool:
        """Whether the policy looks at the beginning of prompts."""
        return self.prefix_bytes > 0

    @property
    def models(self) -> list[str]:
        """Models that are served here: with at least one endpoint, ready or not, or declared."""
        return list(self._fleets | self._declared) if self._declared else list(self._fleets)

    def knows(self, model: str) -> bool:
        """Whether the model is served here, be it by no endpoint just now."""
        return model in self._fleets or model in self._declared

    def declare(self, models: Iterable[str]) -> None:
        """These models are served here even while they have no endpoint: requests for them wait."""
        self._declared = dict.fromkeys(models)

    def of_model(self, model: str) -> list[Endpoint]:
        """Every endpoint of a model; empty when the model is unknown."""
        fleet = self._fleets.get(model)
        return fleet.members if fleet is not None else []

    def any_ready(self) -> bool:
        """Whether some endpoint may take requests."""
        return any(endpoint.state is State.READY for endpoint in self)

    def has_ready(self, model: str, revision: str | None = None) -> bool:
        """Whether some endpoint of the model (and the revision) may take requests; O(1) unless something changed."""
        fleet = self._fresh(model)
        if fleet is None:
            return False
        return bool(fleet.revisions) if revision is None else revision in fleet.revisions

    # -- Changes of the set ----------------------------------------------------------------------------------

    def replace(self, specs: Iterable[EndpointSpec], slots: Mapping[str, int] | None = None) -> list[Endpoint]:
        """Make the set equal to ``specs`` and return the endpoints that are gone, now draining.

        An endpoint whose spec did not change keeps its state and its leases. Names must be unique.

        Args:
            specs: what should be there.
            slots: column of each endpoint's name on the board, where workers share one; without, columns are
                handed out here.

        Raises:
            ValueError: two specs share a name, there are too many, or ``slots`` does not fit; nothing has changed.
        """
        wanted = list(specs)
        if len({spec.name for spec in wanted}) != len(wanted):
            raise ValueError("two endpoints share a name")
        old = self._by_name
        kept = {s.name: old[s.name] for s in wanted if s.name in old and old[s.name].spec == s}
        columns = self._columns.assign([spec.name for spec in wanted], kept, old.values(), slots)
        self._by_name = {
            spec.name: kept.get(spec.name)
            or Endpoint(spec, slot=columns[spec.name], board=self._board, changed=self._state_changed)
            for spec in wanted
        }
        gone = [endpoint for name, endpoint in old.items() if self._by_name.get(name) is not endpoint]
        self._arrange()
        for endpoint in gone:
            endpoint.state = State.DRAINING
        return gone

    def set_traffic(self, model: str, weights: Mapping[str, float] | None) -> None:
        """Divide a model's requests among its revisions in proportion to ``weights``.

        A revision of weight 0, or not named, gets nothing unless ``Wanted.revision`` names it, or no revision with
        weight has a ready endpoint. Without weights (None or empty) all endpoints share. Stays set while endpoints
        come and go; setting the same again changes nothing.

        Raises:
            ValueError: a weight is negative or not finite, or all are 0.
        """
        known = self._traffic.get(model)
        if (known.weights if known is not None else {}) == dict(weights or {}):
            return
        if weights:
            self._traffic[model] = Traffic(weights)
        else:
            del self._traffic[model]
        fleet = self._fleets.get(model)
        if fleet is not None:
            fleet.arrange(fleet.members, self._traffic.get(model))

    def set_shadow(self, model: str, shadow: Shadow | None) -> None:
        """Have a share of a model's requests copied; None: of no request. Setting the same again changes nothing."""
        if shadow is None:
            self.shadows.pop(model, None)
        elif model not in self.shadows or self.shadows[model].shadow != shadow:
            self.shadows[model] = Sampling(shadow)

    def traffic_rows(self) -> dict[str, dict[str, object]]:
        """Weights and shadow of each model that has any, for people."""
        rows: dict[str, dict[str, object]] = {}
        for model in sorted({*self._traffic, *self.shadows}):
            traffic, sampling = self._traffic.get(model), self.shadows.get(model)
            shadow = sampling.shadow if sampling is not None else None
            rows[model] = {
                "weights": traffic.weights if traffic is not None else {},
                "shadow": {"revision": shadow.revision, "share": shadow.share} if shadow is not None else None,
            }
        return rows

    def _arrange(self) -> None:
        by_model: dict[str, list[Endpoint]] = {}
        for endpoint in self:
            by_model.setdefault(endpoint.spec.model, []).append(endpoint)
        for model, fleet in self._fleets.items():
            if model not in by_model:
                fleet.arrange([], None)
        old, self._fleets = self._fleets, {}
        for model, members in by_model.items():
            fleet = old.get(model) or self._new_fleet()
            if fleet.members != members:
                fleet.arrange(members, self._traffic.get(model))
            self._fleets[model] = fleet

    def _new_fleet(self) -> Fleet:
        board = self._board
        return Fleet(rules=self._rules, slow_start_s=self._slow_start_s, shared=board.rows > 1, turn=board.row)

    def _state_changed(self, endpoint: Endpoint) -> None:
        if endpoint.state is State.READY:
            now = self._clock()
            endpoint.ready_at = now
            endpoint.record = ejection.readmitted(endpoint.record, now)
        fleet = self._fleets.get(endpoint.spec.model)
        if fleet is not None:
            fleet.changed()

    def _fresh(self, model: str) -> Fleet | None:
        fleet = self._fleets.get(model)
        if fleet is not None and fleet.due < NEVER:
            now = self._clock()
            if now >= fleet.due:
                fleet.refresh(now)
        return fleet

    def likely(self, model: str, session: bytes | None, chance: float) -> EndpointSpec | None:
        """An endpoint of the kind that the next request gets, as far as can be said without taking anybody's turn.

        Args:
            model: name that the client asked for.
            session: value of the client's session header.
            chance: from 0 to 1: decides among several revisions in proportion to what they get.

        Returns:
            its spec; None when none is ready.
        """
        fleet = self._fresh(model)
        if fleet is None:
            return None
        endpoint = fleet.likely(key_of(session) if session is not None else None, chance)
        return endpoint.spec if endpoint is not None else None

    # -- Choosing --------------------------------------------------------------------------------------------

    def lease(self, model: str, wanted: Wanted = ANY, avoid: Collection[Endpoint] = ()) -> Lease | None:
        """Choose an endpoint of ``model``.

        Args:
            model: name that the client asked for.
            wanted: see :class:`Wanted`.
            avoid: endpoints that already failed this request; taken only if nothing else can be.

        Returns:
            A lease, or None when no endpoint can take the request: none is ready, or all are at the limit.
        """
        fleet = self._fleets.get(model)
        if fleet is None:
            return None
        if fleet.due < NEVER:  # as in _fresh, spelled out: this runs for each request
            now = self._clock()
            if now >= fleet.due:
                fleet.refresh(now)
        if fleet.traffic is None and wanted.session is None and wanted.revision is None:
            endpoint = self._policy.pick(fleet.whole, wanted, avoid)
            if endpoint is None and avoid:
                endpoint = self._policy.pick(fleet.whole, wanted, ())
        elif wanted.revision is not None:
            endpoint = self._pick_pinned(fleet, wanted, avoid)
        else:
            endpoint = self._pick_divided(fleet, wanted, avoid)
        return Lease(endpoint) if endpoint is not None else None

    def _pick_divided(self, fleet: Fleet, wanted: Wanted, avoid: Collection[Endpoint]) -> Endpoint | None:
        session = key_of(wanted.session) if wanted.session is not None else None
        group = fleet.chosen(session)
        if group is None:
            return None
        endpoint = self._pick(group, wanted, session, avoid)
        if endpoint is not None:
            return endpoint
        for other in fleet.instead_of(group, any_weight=bool(avoid)):
            endpoint = self._pick(other, wanted, session, avoid)
            if endpoint is not None:
                return endpoint
        endpoint = self._pick(group, wanted, session, ()) if avoid else None
        if endpoint is None and session is None:
            fleet.not_sent(group)
        return endpoint

    def _pick_pinned(self, fleet: Fleet, wanted: Wanted, avoid: Collection[Endpoint]) -> Endpoint | None:
        """One revision is named: its group where there is one, else the least loaded of that revision.

        If all of the revision that are ready are ejected, as they may be beside other revisions, one of them serves.
        """
        revision = wanted.revision
        session = key_of(wanted.session) if wanted.session is not None else None
        for avoided in (avoid, ()) if avoid else ((),):
            if fleet.traffic is None and fleet.revisions != {revision}:
                endpoint = fleet.whole.least_among(limit=wanted.limit, avoid=avoided, revision=revision)
            else:
                group = fleet.whole if fleet.traffic is None else fleet.groups.get(revision or "")
                endpoint = self._pick(group, wanted, session, avoided) if group is not None else None
            if endpoint is not None:
                return endpoint
        return fleet.ejected_of(wanted.revision, wanted.limit)

    def _pick(self, group: Group, wanted: Wanted, session: int | None, avoid: Collection[Endpoint]) -> Endpoint | None:
        if session is None or len(group.endpoints) < 2:
            return self._policy.pick(group, wanted, avoid)
        return self._affinity.pick(group, session, limit=wanted.limit, avoid=avoid)

    # -- What requests say about endpoints -------------------------------------------------------------------

    def attempt_failed(self, endpoint: Endpoint, now: float, refused: bool) -> bool:
        """A request failed on an endpoint before its first byte.

        Args:
            endpoint: that had the lease.
            now: seconds of the set's clock.
            refused: no connection was taken.

        Returns:
            Whether the endpoint is out now. It is not, even if refused, while too many others of its group are.
        """
        fleet = self._fleets.get(endpoint.spec.model)
        group = fleet.group_of(endpoint) if fleet is not None else None
        if fleet is None or group is None or endpoint.state is not State.READY:
            return False
        before = endpoint.record
        room = group.ejected(now) < self._rules.allowed(group.ready())
        endpoint.record = ejection.failed(before, now, refused=refused, room=room, rules=self._rules)
        if endpoint.record.until != before.until:
            endpoint.ready_at = endpoint.record.until
            fleet.changed()
        return endpoint.ejected(now)

    def attempt_succeeded(self, endpoint: Endpoint, now: float) -> None:
        """A request was answered by an endpoint; costs nothing while nothing is held against it."""
        if endpoint.record is not ejection.CLEAN:
            endpoint.record = ejection.succeeded(endpoint.record, now, rules=self._rules)

    def check_passed(self, endpoint: Endpoint, now: float) -> None:
        """An active health check succeeded: re-admits an endpoint that was ejected for refusing connections."""
        before = endpoint.record
        if before is ejection.CLEAN:
            return
        endpoint.record = ejection.check_passed(before, now)
        if endpoint.record is not before:
            endpoint.ready_at = now
            fleet = self._fleets.get(endpoint.spec.model)
            if fleet is not None:
                fleet.changed()


def _policy_of(settings: BalanceSettings) -> Policy:
    if settings.policy == "prefix":
        affinity = Affinity(load_factor=settings.load_factor, floor=settings.affinity_floor)
        return Prefix(affinity, block_bytes=settings.prefix_block_bytes)
    return LeastOutstanding()
