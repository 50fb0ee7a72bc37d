"""Laws of releases: whatever happens, something serves, the champion moves only as promised, and there is an end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from inferdock.domain.errors import ConflictError, IntegrityError, RegistryError, ResourceError, UnreachableError
from inferdock.domain.verdict import Verdict
from inferdock.release.events import Begun, Done, Turned, Way
from inferdock.release.judging.analysis import judge
from inferdock.release.judging.figures import Counts, Histogram, since
from inferdock.release.machine import OVER, State, Trigger
from inferdock.release.plan import Mode, Plan, way_back
from inferdock.release.planner import make_release
from inferdock.release.progress import Progress
from inferdock.release.records.file_journal import FileJournals
from inferdock.release.records.mailbox import Wish
from inferdock.release.steps import Limits, Patience, Retire, Rules, Scale, Shift, Start, Step
from tests.support.fake_driver import BOUNDS, BY, FakeGate, World
from tests.support.releases import NEW, OLD, QUICK, Bench, drafted, plan, request, rollback

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


class CrashError(BaseException):
    """The runner's process is gone."""


HAPPENINGS = st.one_of(
    st.sampled_from(["kill old", "kill new", "kill both", "crash", "crash after", "spoil", "sour", "mend", "slow"]),
    st.sampled_from([f"wish {wish}" for wish in Wish]),
    st.integers(1, 30).map(lambda n: f"fail {n}"),
    st.integers(1, 3).map(lambda n: f"late {n}"),
)
STORY = st.lists(st.tuples(st.floats(0, 60), HAPPENINGS), max_size=12)


class Fate:
    """Lets a story happen to a world, each thing so many seconds after the one before."""

    def __init__(self, bench: Bench, story: list[tuple[float, str]]) -> None:
        self._bench, self._left, self._due = bench, list(story), 0.0
        self._fail = self._late = self._crash_after = self._wishes = 0
        bench.world.passing, bench.world.hook = self.pass_time, self.act
        self._next()

    def _next(self) -> None:
        self._due = self._bench.world.time + self._left[0][0] if self._left else math.inf

    def pass_time(self) -> None:
        while self._left and self._bench.world.time >= self._due:
            _, what = self._left.pop(0)
            self._next()
            self._happen(what)

    def _happen(self, what: str) -> None:
        world = self._bench.world
        name, _, detail = what.partition(" ")
        match name:
            case "kill":
                for target in [OLD] * (detail != "new") + [NEW] * (detail != "old"):
                    world.kill(target.revision)
            case "crash" if detail:
                self._crash_after = 1
            case "crash":
                raise CrashError
            case "fail":
                self._fail = int(detail)
            case "late":
                self._late = int(detail)
            case "wish":
                self._wishes += 1
                wish = request(Wish(detail), world, self._wishes)
                for release in self._bench.ids:
                    self._bench.mailbox(release).put(wish)
            case _:
                world.errors = {NEW.revision: {"spoil": 0.5, "sour": 0.03}.get(name, 0.0)}
                world.rate = 0.1 if name == "slow" else 20.0

    def act(self, what: str) -> None:
        if what.startswith("after "):
            if self._crash_after:
                self._crash_after = 0
                raise CrashError
            if self._late:
                self._late -= 1
                raise UnreachableError("The answer was lost.")
        elif self._fail:
            self._fail -= 1
            raise UnreachableError("Not now.")

    def over(self) -> None:
        """Nothing more happens, and all is well."""
        world = self._bench.world
        world.passing, world.hook, world.errors, world.rate = lambda: None, lambda what: None, {}, 20.0


async def live(bench: Bench, wanted: Plan, fate: Fate) -> Progress:
    """Run a release through its story; resume after each death and pause, until it is over."""
    for number in range(100, 200):
        if number == 130:
            fate.over()
        try:
            if not bench.ids:
                await bench.desk().start(drafted(wanted), BY)
            else:
                await bench.command(Wish.RESUME, number, release=bench.ids[0])
        except (CrashError, ConflictError, RegistryError):
            pass
        if bench.ids:
            progress = await bench.journals.progress(bench.ids[0])
            if progress.state in OVER:
                return progress
        await _rest(bench.world)
    raise AssertionError("the release has no end")


async def _rest(world: World) -> None:
    with contextlib.suppress(CrashError):
        await world.sleep(1)


@QUIET
@given(story=STORY, room=st.sampled_from([None, 4, 3, 2]), gate=st.sampled_from(list(Verdict)))
def test_whatever_happens_to_a_release_something_serves_and_it_ends(
    story: list[tuple[float, str]], room: int | None, gate: Verdict
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), World(fits=room or 1000))
        bench.gates["smoke"] = FakeGate(bench.world, gate, Verdict.PASS)
        bench.world.serve(OLD)
        fate = Fate(bench, story)
        quick = replace(QUICK, patience=Patience(poll_s=2, watch_s=4, start_s=120, drain_s=120))
        wanted = plan(spare=None if room is None else room - OLD.replicas, rules=quick)
        progress = asyncio.run(live(bench, wanted, fate))
        world = bench.world
        home = NEW if progress.state is State.COMPLETED else OLD
        assert world.broken_laws == []
        assert world.weights == {home.revision: 1.0}
        assert world.champion_is == home.reference
        assert [move[0] for move in world.moves] == {
            State.COMPLETED: [NEW.reference],
            State.ROLLED_BACK: [NEW.reference, OLD.reference] if world.moves else [],
            State.ABORTED: [],
        }[progress.state]
        assert world.fleets[home.revision]["wanted"] == home.replicas


@QUIET
@given(story=STORY)
def test_whatever_happens_to_a_release_with_a_gap_it_ends(story: list[tuple[float, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), World(fits=1, gap=True))
        old, new = replace(OLD, replicas=1), replace(NEW, replicas=1)
        bench.world.serve(old)
        fate = Fate(bench, story)
        quick = replace(QUICK, patience=Patience(poll_s=2, watch_s=4, start_s=120, drain_s=120))
        wanted = plan(stable=old, to=new, spare=0, allow_gap=True, rules=quick)
        progress = asyncio.run(live(bench, wanted, fate))
        home = new if progress.state is State.COMPLETED else old
        assert bench.world.weights == {home.revision: 1.0}
        assert bench.world.champion_is == home.reference


@QUIET
@given(story=STORY, warm=st.booleans(), room=st.sampled_from([None, 4, 2]))
def test_whatever_happens_to_a_rollback_something_serves_and_it_ends(
    story: list[tuple[float, str]], warm: bool, room: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), World(fits=(room or 1000) + (2 if warm else 0)))
        if warm:
            bench.world.serve(OLD)
        bench.world.serve(NEW)
        fate = Fate(bench, story)
        patience = Patience(poll_s=2, watch_s=4, start_s=120, drain_s=120)
        ready = 2 if warm else 0
        wanted = rollback(ready=ready, spare=None if room is None else room - NEW.replicas, patience=patience)
        progress = asyncio.run(live(bench, wanted, fate))
        home = OLD if progress.state is State.COMPLETED else NEW
        assert bench.world.broken_laws == []
        assert bench.world.weights == {home.revision: 1.0}
        assert bench.world.champion_is == home.reference


# -- plans ---------------------------------------------------------------------------------------------------

REPLICAS = st.integers(1, 12)


@given(
    before=REPLICAS,
    wanted=REPLICAS,
    spare=st.none() | st.integers(0, 14),
    weights=st.lists(st.floats(0.001, 1.0), max_size=5, unique=True).map(sorted),
)
def test_a_plan_keeps_to_its_room_and_never_takes_the_last_replica(
    before: int, wanted: int, spare: int | None, weights: list[float]
) -> None:
    stable, to = replace(OLD, replicas=before), replace(NEW, replicas=wanted)
    try:
        made = make_release(
            id="r1",
            model="m",
            stable=stable,
            to=to,
            rules=Rules(weights=tuple(weights)),
            champion="",
            spare=spare,
        )
    except ResourceError:
        assert spare is not None
        assert wanted > before + spare or before + spare < 2
        return
    room = math.inf if spare is None else before + spare
    assert (made.mode is Mode.SURGE) == (room >= before + wanted)
    _walk(made.steps, {stable.revision: before}, {stable.revision: 1.0}, room, ends={to.revision: wanted})


def _walk(
    steps: tuple[Step, ...], fleet: dict[str, int], weights: dict[str, float], room: float, *, ends: dict[str, int]
) -> None:
    """Follow a plan in numbers."""
    for step in steps:
        match step:
            case Start(target=target):
                fleet[target.revision] = max(fleet.get(target.revision, 0), target.replicas)
            case Scale(revision=revision, replicas=replicas):
                fleet[revision] = min(fleet[revision], replicas)
            case Shift():
                weights = step.weights
            case Retire(revision=revision):
                assert weights.get(revision, 0.0) == 0
                fleet.pop(revision, None)
            case _:
                pass
        assert sum(fleet.values()) <= room
        assert all(fleet.get(revision, 0) >= 1 for revision, weight in weights.items() if weight > 0)
    assert fleet == ends


@given(before=REPLICAS, wanted=REPLICAS, spare=st.none() | st.integers(0, 14), data=st.data())
def test_the_way_back_from_any_step_ends_where_it_began(
    before: int, wanted: int, spare: int | None, data: st.DataObject
) -> None:
    stable, to = replace(OLD, replicas=before), replace(NEW, replicas=wanted)
    try:
        made = make_release(id="r1", model="m", stable=stable, to=to, rules=QUICK, champion="x", spare=spare)
    except ResourceError:
        return
    room = math.inf if spare is None else before + spare
    until = data.draw(st.integers(0, len(made.steps)))
    fleet, weights = {stable.revision: before}, {stable.revision: 1.0}
    for step in made.steps[:until]:
        match step:
            case Start(target=target):
                fleet[target.revision] = max(fleet.get(target.revision, 0), target.replicas)
            case Scale(revision=revision, replicas=replicas):
                fleet[revision] = replicas
            case Shift():
                weights = step.weights
            case Retire(revision=revision):
                fleet.pop(revision)
            case _:
                pass
    cold = stable.revision not in fleet
    back = way_back(made, moved=True, cold=cold)
    _walk(back, fleet, weights, room, ends={stable.revision: before})


# -- journals ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_a_journal_is_noticed_but_in_its_last_line(data: st.DataObject) -> None:
    async def tried() -> None:
        with tempfile.TemporaryDirectory() as folder:
            journals = FileJournals(Path(folder))
            world = World()
            journal = await journals.create(plan(), BY, world.now(), reason="why")
            await journal.append(Turned(trigger=Trigger.BEGIN), BY, world.now())
            await journal.append(Begun(way=Way.FORWARD, step=0), BY, world.now())
            await journal.append(Done(way=Way.FORWARD, step=0, seconds=1.5), BY, world.now())
            await journal.close()
            path = journals.path("r1")
            good = path.read_bytes()
            last = good[:-1].rindex(b"\n") + 1
            at = data.draw(st.integers(0, last - 1))
            path.write_bytes(good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :])
            with pytest.raises(IntegrityError):
                await journals.progress("r1")

    asyncio.run(tried())


@settings(deadline=None)
@given(data=st.data())
def test_a_journal_that_is_cut_anywhere_loses_whole_events_from_its_end_and_can_be_written_on(
    data: st.DataObject,
) -> None:
    async def tried() -> None:
        with tempfile.TemporaryDirectory() as folder:
            journals = FileJournals(Path(folder))
            world = World()
            journal = await journals.create(plan(), BY, world.now(), reason="why")
            first = journals.path("r1").stat().st_size
            await journal.append(Turned(trigger=Trigger.BEGIN), BY, world.now())
            await journal.append(Begun(way=Way.FORWARD, step=0), BY, world.now())
            await journal.close()
            path = journals.path("r1")
            good = path.read_bytes()
            cut = data.draw(st.integers(first, len(good)))
            path.write_bytes(good[:cut] + b"\0" * data.draw(st.integers(0, 20)))
            seq = good[:cut].count(b"\n")
            assert (await journals.progress("r1")).seq == seq
            again = await journals.open("r1")
            trigger = {1: Trigger.BEGIN, 2: Trigger.PAUSE, 3: Trigger.FAIL}[seq]
            await again.append(Turned(trigger=trigger), BY, world.now())
            await again.close()
            assert (await journals.progress("r1")).seq == seq + 1

    asyncio.run(tried())


# -- figures -------------------------------------------------------------------------------------------------


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    size = len(BOUNDS) + 1
    return Histogram(BOUNDS, tuple(draw(st.lists(st.integers(0, 400), min_size=size, max_size=size))))


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    requests = draw(st.integers(0, 3000))
    errors = draw(st.integers(0, requests))
    return Counts(requests=requests, errors=errors, ttft=draw(histograms()), tpot=draw(histograms()))


@given(histograms(), st.lists(st.floats(0, 1), min_size=2, max_size=6).map(sorted))
def test_a_greater_share_lies_below_a_greater_value(seen: Histogram, shares: list[float]) -> None:
    values = [seen.at(share) for share in shares]
    assert values == sorted(values)


@given(canary=counts(), stable=st.none() | counts(), look=st.integers(0, 30))
def test_what_was_measured_lies_in_its_interval(canary: Counts, stable: Counts | None, look: int) -> None:
    for one in judge(canary, stable, Limits(), look=look).evidence["limits"]:
        low, point, high = one["low"], one["measured"], one["high"]
        assert low is None or point is None or low <= point + 1e-6
        assert high is None or point is None or point <= high + 1e-6


@given(canary=counts(), stable=st.none() | counts(), look=st.integers(1, 30))
def test_a_look_on_the_way_fails_nothing_that_the_last_look_would_not(
    canary: Counts, stable: Counts | None, look: int
) -> None:
    if judge(canary, stable, Limits(), look=look).verdict is Verdict.FAIL:
        # The stable revision breaks a limit beyond doubt at a wider interval less often, which makes a failure its own.
        assert judge(canary, stable, Limits()).verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


ONLY_COMPARED = Limits(error_rate=None, ttft_p95_s=None, tpot_p50_s=None)


@given(counts())
def test_a_revision_that_does_as_the_stable_one_does_never_fails_the_comparison(same: Counts) -> None:
    assert judge(same, same, ONLY_COMPARED).verdict is not Verdict.FAIL


@given(counts(), counts())
def test_what_was_counted_between_two_readings_and_the_first_are_the_second(first: Counts, more: Counts) -> None:
    def add(a: Histogram, b: Histogram) -> Histogram:
        return Histogram(BOUNDS, tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)))

    second = Counts(
        requests=first.requests + more.requests,
        errors=first.errors + more.errors,
        ttft=add(first.ttft, more.ttft),
        tpot=add(first.tpot, more.tpot),
    )
    assert since(first, second) == more


@given(counts(), counts())
def test_figures_of_a_gateway_that_began_anew_count_from_nothing(before: Counts, after: Counts) -> None:
    if after.requests < before.requests:
        assert since(before, after) == after
