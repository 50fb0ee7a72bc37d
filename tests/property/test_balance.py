"""Laws of choosing, leasing, dividing traffic and ejecting."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from inferdock.balance.affinity import Affinity
from inferdock.balance.board import Board
from inferdock.balance.ejection import CLEAN, Rules, failed, readmitted, succeeded
from inferdock.balance.endpoint import Endpoint
from inferdock.balance.endpoints import EndpointSet, Lease, State, Wanted
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.balance.prefix import Prefix
from inferdock.balance.ring import Ring
from inferdock.balance.traffic import Traffic
from inferdock.config.settings import BalanceSettings
from inferdock.domain.endpoint import EndpointSpec

NAMES = ["a", "b", "c", "d", "e"]
REVISIONS = {"a": "r1", "b": "r1", "c": "r2", "d": "r2", "e": "r3"}
PLAIN = BalanceSettings(slow_start_s=0)
LIMIT = 3


def spec(name: str) -> EndpointSpec:
    return EndpointSpec(name, "h", 1, "m", REVISIONS.get(name, "r"))


class World:
    """A set with a clock, all leases that are out, and every endpoint that ever was."""

    def __init__(self, settings: BalanceSettings = PLAIN, policy: object = None) -> None:
        self.now = 100.0
        self.board = Board.private(16)
        self.set = EndpointSet(
            policy or LeastOutstanding(), board=self.board, settings=settings, clock=lambda: self.now
        )
        self.leases: list[Lease] = []
        self.everyone: set[Endpoint] = set()

    def ready(self, count: int) -> None:
        self.set.replace([EndpointSpec(f"replica-{n}", "h", 1, "m", "r") for n in range(count)])
        for endpoint in self.set:
            endpoint.state = State.READY

    def usable(self) -> list[Endpoint]:
        return [e for e in self.set if e.state is State.READY and not e.ejected(self.now)]

    def act(self, step: tuple) -> None:
        """Any step but a lease."""
        present = list(self.set)
        match step:
            case ("release", number) if self.leases:
                self.leases[number % len(self.leases)].release()
            case ("state", number, state) if present:
                present[number % len(present)].state = state
            case ("waiting", number, waiting) if present:
                present[number % len(present)].waiting = waiting
            case ("failed", number, refused) if present:
                self.set.attempt_failed(present[number % len(present)], self.now, refused)
            case ("succeeded", number) if present:
                self.set.attempt_succeeded(present[number % len(present)], self.now)
            case ("checked", number) if present:
                self.set.check_passed(present[number % len(present)], self.now)
            case ("wait", seconds):
                self.now += seconds
            case ("replace", names):
                self.set.replace([spec(name) for name in sorted(names)])
            case ("traffic", weights):
                self.set.set_traffic("m", weights)
        self.everyone.update(self.set)

    def lease(self, wanted: Wanted, avoid: tuple[Endpoint, ...] = ()) -> Endpoint | None:
        lease = self.set.lease("m", wanted, avoid)
        if lease is None:
            return None
        self.leases.append(lease)
        return lease.endpoint


NUMBER = st.integers(0, 50)
WANTED = st.builds(
    Wanted,
    revision=st.sampled_from([None, None, "r1", "r2"]),
    session=st.sampled_from([None, b"s", b"t"]),
    prefix=st.sampled_from([b"", b"x" * 3000, b"y" * 3000]),
    limit=st.sampled_from([None, LIMIT]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), WANTED),
        st.tuples(st.just("lease"), WANTED),
        st.tuples(st.just("release"), NUMBER),
        st.tuples(st.just("state"), NUMBER, st.sampled_from([State.READY, State.READY, State.UNREADY])),
        st.tuples(st.just("waiting"), NUMBER, st.integers(-1, 9)),
        st.tuples(st.just("failed"), NUMBER, st.booleans()),
        st.tuples(st.just("succeeded"), NUMBER),
        st.tuples(st.just("checked"), NUMBER),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 3.0, 5.0, 70.0])),
        st.tuples(st.just("replace"), st.sets(st.sampled_from(NAMES))),
        st.tuples(
            st.just("traffic"),
            st.one_of(st.none(), st.fixed_dictionaries({"r1": st.integers(0, 100), "r2": st.integers(1, 100)})),
        ),
    ),
    max_size=80,
)
POLICIES = st.sampled_from([LeastOutstanding, lambda: Prefix(Affinity())])
SLOW_START_S = st.sampled_from([0.0, 10.0])


@given(STEPS, POLICIES, SLOW_START_S)
def test_only_ready_endpoints_that_are_not_ejected_are_chosen(history, policy, slow_start_s):
    world = World(BalanceSettings(slow_start_s=slow_start_s), policy())
    for step in history:
        if step[0] != "lease":
            world.act(step)
            continue
        chosen = world.lease(step[1])
        if chosen is not None:
            assert chosen.state is State.READY
            assert step[1].revision in (None, chosen.spec.revision)
            fitting = [e for e in world.usable() if step[1].revision in (None, e.spec.revision)]
            within = [e for e in fitting if step[1].limit is None or e is chosen or e.held < step[1].limit]
            assert chosen in fitting or not within


@given(STEPS, POLICIES, SLOW_START_S)
def test_a_request_without_a_limit_finds_an_endpoint_exactly_when_one_is_ready(history, policy, slow_start_s):
    world = World(BalanceSettings(slow_start_s=slow_start_s), policy())
    for step in history:
        if step[0] != "lease":
            world.act(step)
            continue
        wanted = Wanted(revision=step[1].revision, session=step[1].session, prefix=step[1].prefix)
        ready = world.set.has_ready("m", wanted.revision)
        able = [e for e in world.set if e.state is State.READY and wanted.revision in (None, e.spec.revision)]
        assert ready == bool(able)
        avoid = tuple(able[:1])
        chosen = world.lease(wanted, avoid)
        assert (chosen is not None) == ready
        if wanted.revision is None and len(world.usable()) > 1 and not world.set._traffic:
            assert chosen not in avoid


@given(STEPS, POLICIES)
def test_counts_are_the_leases_that_are_out_and_end_at_zero(history, policy):
    world = World(policy=policy())
    for step in history:
        if step[0] == "lease":
            world.lease(step[1])
        else:
            world.act(step)
        assert all(endpoint.in_flight >= 0 for endpoint in world.everyone)
        total = sum(world.board.total(column) for column in range(world.board.columns))
        assert total == sum(endpoint.in_flight for endpoint in world.everyone)
    for lease in world.leases:
        lease.release()
    assert all(endpoint.in_flight == 0 for endpoint in world.everyone)
    assert not any(world.board.total(column) for column in range(world.board.columns))


@given(STEPS, POLICIES, SLOW_START_S)
def test_no_endpoint_goes_beyond_the_limit(history, policy, slow_start_s):
    world = World(BalanceSettings(slow_start_s=slow_start_s), policy())
    for step in history:
        if step[0] == "lease":
            chosen = world.lease(Wanted(session=step[1].session, prefix=step[1].prefix, limit=LIMIT))
            assert chosen is None or chosen.held <= LIMIT
            if chosen is None and not world.set._traffic:
                assert all(endpoint.held >= LIMIT for endpoint in world.usable())
        else:
            world.act(step)


@given(STEPS)
def test_the_least_loaded_endpoint_is_chosen(history):
    world = World()
    for step in history:
        if step[0] == "lease":
            chosen = world.lease(Wanted())
            if chosen is not None:
                assert chosen.outstanding - 1 <= min(endpoint.outstanding for endpoint in world.usable())
        elif step[0] != "traffic":
            world.act(step)


@given(STEPS, st.floats(0, 1))
def test_ejection_keeps_to_its_share_and_never_leaves_nobody(history, share):
    world = World(BalanceSettings(slow_start_s=0, max_ejected_share=share))
    for step in history:
        if step[0] == "lease":
            world.lease(Wanted())
        elif step[0] != "traffic":
            world.act(step)
        world.set.has_ready("m")  # looks at what has changed, as a choice does
        ready = [endpoint for endpoint in world.set if endpoint.state is State.READY]
        out = [endpoint for endpoint in ready if endpoint.ejected(world.now)]
        assert len(out) <= Rules(max_share=share).allowed(len(ready))
        assert not ready or len(out) < len(ready)


@given(
    st.lists(
        st.tuples(st.sampled_from(["failed", "refused", "succeeded", "readmitted"]), st.floats(0, 20)), max_size=60
    )
)
def test_an_ejection_is_bounded_and_time_ends_it(history):
    rules, record, now = Rules(failures=3, base_s=5, max_s=60), CLEAN, 100.0
    for event, seconds in history:
        now += seconds
        if event == "succeeded":
            record = succeeded(record, now, rules=rules)
        elif event == "readmitted":
            record = readmitted(record, now)
        else:
            record = failed(record, now, refused=event == "refused", room=True, rules=rules)
        assert record.until <= now + rules.max_s
        assert 0 <= record.failures < rules.failures
        if event == "refused":
            assert now < record.until


# -- Affinity -----------------------------------------------------------------------------------------------------

KEYS = st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=60)


@given(KEYS, st.integers(1, 12), st.floats(1.01, 3), st.integers(1, 6))
def test_keyed_load_is_bounded(keys, count, load_factor, floor):
    world = World(BalanceSettings(slow_start_s=0, load_factor=load_factor, affinity_floor=floor))
    world.ready(count)
    for total, key in enumerate(keys, start=1):
        chosen = world.lease(Wanted(session=key))
        assert chosen is not None
        assert chosen.outstanding <= max(floor, ceil(load_factor * total / count))


@given(KEYS, st.integers(2, 12), NUMBER)
def test_an_endpoint_that_goes_takes_only_its_own_keys_along(keys, count, number):
    world = World()
    world.ready(count)
    before = {key: _visited(world, key) for key in keys}
    gone = list(world.set)[number % count]
    world.set.replace([endpoint.spec for endpoint in world.set if endpoint is not gone])
    for key, was in before.items():
        assert _visited(world, key) is was or was is gone


@given(KEYS, st.integers(1, 12))
def test_a_session_finds_the_same_endpoint_while_loads_are_low(keys, count):
    world = World()
    world.ready(count)
    for key in keys:
        assert _visited(world, key) is _visited(world, key)


def _visited(world: World, key: bytes) -> Endpoint:
    lease = world.set.lease("m", Wanted(session=key))
    assert lease is not None
    lease.release()
    return lease.endpoint


@given(st.sets(st.text(min_size=1, max_size=12), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_a_walk_on_the_ring_meets_everybody(names, key):
    members = [Endpoint(EndpointSpec(name, "h", 1, "m", "r"), slot=0, board=Board.private(1)) for name in names]
    assert set(Ring(members).walk(key, 100 * len(members))) == set(members)


@given(st.binary(max_size=5000), st.binary(max_size=5000), st.sampled_from([64, 256, 1024]))
def test_prompts_that_share_what_both_hash_share_their_key(common, more, block_bytes):
    policy = Prefix(Affinity(), block_bytes=block_bytes)
    longer = common + more
    sizes = [bisect([1, 4, 16], len(prompt) // block_bytes) for prompt in (common, longer)]
    if sizes[0] == sizes[1]:
        assert policy.key(common) == policy.key(longer)


# -- Traffic ------------------------------------------------------------------------------------------------------

WEIGHTS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 100), min_size=1).filter(lambda w: any(w.values()))


@given(WEIGHTS)
def test_at_any_moment_each_revision_has_had_its_share_to_within_one_request(weights):
    traffic, seen = Traffic(weights), Counter()
    traffic.offer(weights)
    for number in range(1, 301):
        seen[traffic.next()] += 1
        for revision, weight in weights.items():
            assert abs(seen[revision] - number * weight / sum(weights.values())) < 1


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(0.001, 1000), min_size=1))
def test_weights_may_be_any_numbers(weights):
    traffic, seen = Traffic(weights), Counter()
    traffic.offer(weights)
    for _ in range(100):
        seen[traffic.next()] += 1
    for revision, weight in weights.items():
        assert abs(seen[revision] - 100 * weight / sum(weights.values())) < 1 + 1e-6


@given(WEIGHTS, st.lists(st.booleans(), max_size=200))
def test_a_request_that_could_not_be_sent_leaves_no_trace(weights, history):
    tried, never_tried = Traffic(weights), Traffic(weights)
    tried.offer(weights)
    never_tried.offer(weights)
    for sent in history:
        chosen = tried.next()
        if sent:
            assert chosen == never_tried.next()
        else:
            tried.undo(chosen)


@given(WEIGHTS, st.integers(0, 2**32 - 1), st.sampled_from(NAMES), st.integers(1, 50))
def test_more_weight_moves_sessions_to_that_revision_only(weights, key, name, more):
    before, after = Traffic(weights), Traffic({**weights, name: weights.get(name, 0) + more})
    before.offer(NAMES)
    after.offer(NAMES)
    assert after.of_session(key) in (before.of_session(key), name)
