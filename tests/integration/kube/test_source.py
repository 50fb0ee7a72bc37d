"""The source keeps up with a cluster whatever the API server does."""

import asyncio
import contextlib
import json
import random

from inferdock.domain.endpoint import EndpointSpec
from inferdock.kube.access import ClusterAccess
from inferdock.kube.api import KubeClient
from inferdock.kube.endpoint_slices import SliceRules
from inferdock.kube.follow import BACKOFF_MAX_S
from inferdock.kube.source import EndpointSliceSource
from inferdock.telemetry.logs import EventLog
from tests.support.fake_kube import FakeKube, endpoint, endpoint_slice, running_fake_kube


class Follower:
    """A source at work: what it said, how long it paused, what it logged."""

    def __init__(self, fake: FakeKube) -> None:
        self.fake = fake
        self.said: list[list[EndpointSpec]] = []
        self.models: list[str] = []
        self.refusals: list[str] = []
        self.pauses: list[float] = []
        self.log = bytearray()

    def changed(self, specs: list[EndpointSpec], models: list[str]) -> None:
        """Remember what was said, or refuse it as ``refusals`` says."""
        if self.refusals:
            raise ValueError(self.refusals.pop())
        self.said.append(specs)
        self.models = models

    async def pause(self, seconds: float) -> None:
        """Remember the pause and hardly wait."""
        self.pauses.append(seconds)
        await asyncio.sleep(0.002)

    @property
    def hosts(self) -> list[str]:
        """Addresses last heard of."""
        return [spec.host for spec in self.said[-1]] if self.said else []

    def lines(self, event: str) -> list[dict]:
        """What was logged under this name."""
        return [line for line in map(json.loads, self.log.splitlines()) if line["event"] == event]

    async def until_hosts(self, *hosts: str) -> None:
        """Wait until these are the addresses."""
        await self.until(lambda: self.hosts == list(hosts) and bool(self.said))

    async def until_requests(self, count: int) -> None:
        """Wait until the server had so many requests."""
        await self.until(lambda: len(self.fake.queries) >= count)

    async def until(self, holds) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def following(fake: FakeKube, *, steady_after_s: float = 5.0, selector: str = "inferdock.io/model"):
    follower = Follower(fake)
    log = EventLog(follower.log.extend, level="debug")
    async with KubeClient(ClusterAccess(fake.url)) as client:
        source = EndpointSliceSource(
            client,
            namespace="ns",
            selector=selector,
            rules=SliceRules(),
            log=log,
            steady_after_s=steady_after_s,
            sleep=follower.pause,
            uniform=lambda _, longest: longest,
        )
        task = asyncio.create_task(source.run(follower.changed))
        follower.flush = log.flush
        try:
            yield follower
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def slice_of(name: str, *hosts: str) -> dict:
    return endpoint_slice(name, *(endpoint(host, f"pod-{host}", ready=True) for host in hosts))


async def test_endpoints_come_change_and_go():
    async with running_fake_kube() as fake, following(fake) as follower:
        await follower.until(lambda: follower.said == [[]])
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        await fake.put(slice_of("a", "10.0.0.1", "10.0.0.2"))
        await follower.until_hosts("10.0.0.1", "10.0.0.2")
        await fake.delete("a")
        await follower.until_hosts()


async def test_a_change_that_changes_no_endpoint_is_not_told():
    async with running_fake_kube() as fake, following(fake) as follower:
        for host in ("10.0.0.1", "10.0.0.1", "10.0.0.2"):
            await fake.put(slice_of("a", host))
        await follower.until_hosts("10.0.0.2")
        assert len(follower.said) <= 3


async def test_a_slice_that_loses_its_label_is_gone():
    async with running_fake_kube() as fake, following(fake) as follower:
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        await fake.put(endpoint_slice("a", endpoint("10.0.0.1"), model=None))
        await follower.until_hosts()


async def test_a_watch_that_ends_is_resumed_from_the_last_bookmark_without_a_list():
    async with running_fake_kube() as fake:
        await fake.put(slice_of("a", "10.0.0.1"))
        async with following(fake) as follower:
            await follower.until(lambda: fake.open_watches)
            await fake.bookmark()
            await fake.end_watches()
            await follower.until_requests(3)
            assert [request.get("resourceVersion") for request in fake.queries[:3]] == [None, "101", "102"]


async def test_what_happens_while_the_watch_is_cut_is_not_missed():
    async with running_fake_kube() as fake, following(fake) as follower:
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        fake.refusals.extend([(500, {})] * 2)
        await fake.end_watches("cut")
        await fake.put(slice_of("b", "10.0.0.2"))
        await follower.until_hosts("10.0.0.1", "10.0.0.2")


async def test_history_that_is_gone_is_listed_anew():
    async with running_fake_kube() as fake, following(fake) as follower:
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        fake.refusals.append((410, {}))
        await fake.put(slice_of("b", "10.0.0.2"))
        await fake.delete("a")
        await fake.end_watches("gone")
        await follower.until_hosts("10.0.0.2")
        await follower.until(lambda: "watch" not in fake.queries[-2])


async def test_while_the_api_is_down_the_endpoints_stay_and_one_line_says_so():
    async with running_fake_kube() as fake, following(fake) as follower:
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        fake.refusals.extend([(503, {})] * 40)
        await fake.end_watches("cut")
        await follower.until_requests(40)
        follower.flush()
        assert follower.hosts == ["10.0.0.1"]
        (line,) = follower.lines("endpoint slices not followed")
        assert (line["level"], line["kept"]) == ("warning", 1)
        assert "503" in line["reason"]


async def test_when_the_api_is_back_a_line_says_so():
    async with running_fake_kube() as fake, following(fake, steady_after_s=0.01) as follower:
        fake.refusals.extend([(503, {})] * 3)
        await follower.until_hosts()
        await follower.until(lambda: follower.flush() or follower.lines("endpoint slices followed again"))
        assert len(follower.lines("endpoint slices not followed")) == 1


async def test_pauses_double_up_to_a_limit_and_start_anew_after_an_event():
    async with running_fake_kube() as fake, following(fake) as follower:
        fake.refusals.extend([(500, {})] * 9)
        await follower.until_hosts()
        assert follower.pauses[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, BACKOFF_MAX_S, BACKOFF_MAX_S]
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        await fake.end_watches()
        await follower.until(lambda: follower.pauses[-1] == 0.5)


async def test_a_busy_server_is_left_alone_as_long_as_it_asks():
    async with running_fake_kube() as fake, following(fake) as follower:
        fake.refusals.extend([(429, {"Retry-After": "17"}), (429, {"Retry-After": "99999"})])
        await follower.until_hosts()
        assert follower.pauses[:2] == [17.0, 120.0]


async def test_a_server_that_ends_each_watch_at_once_is_not_pressed():
    async with running_fake_kube() as fake, following(fake) as follower:
        await follower.until_hosts()
        for _ in range(4):
            await follower.until(lambda: fake.open_watches)
            await fake.end_watches()
        await follower.until(lambda: len(follower.pauses) >= 4)
        assert follower.pauses[:4] == [1.0, 2.0, 4.0, 8.0]


async def test_nonsense_in_a_watch_leads_to_a_new_list_and_no_harm():
    async with running_fake_kube() as fake, following(fake) as follower:
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        fake.send_line(b'{"type":"ADDED","object":"oops"}\n')
        await fake.put(slice_of("b", "10.0.0.2"))
        await follower.until_hosts("10.0.0.1", "10.0.0.2")


async def test_a_service_without_pods_still_names_its_model():
    async with running_fake_kube() as fake, following(fake) as follower:
        await fake.put(endpoint_slice("empty", model="sleeping", ports=[]))
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        assert follower.models == ["demo", "sleeping"]
        await fake.delete("empty")
        await follower.until(lambda: follower.models == ["demo"])
        follower.flush()
        assert follower.lines("endpoint slices left out") == []


async def test_endpoints_that_the_gateway_refuses_are_offered_again():
    async with running_fake_kube() as fake:
        await fake.put(slice_of("a", "10.0.0.1"))
        async with following(fake) as follower:
            follower.refusals = ["too many"] * 3
            await follower.until_hosts("10.0.0.1")
            follower.flush()
            (line,) = follower.lines("endpoint slices not followed")
            assert "too many" in line["reason"]


async def test_after_some_failures_in_a_row_the_version_is_no_longer_trusted():
    async with running_fake_kube() as fake, following(fake) as follower:
        await follower.until(lambda: fake.open_watches)
        before = len(fake.queries)
        fake.refusals.extend([(504, {})] * 2)  # as for a version that a restored etcd has not reached
        await fake.end_watches("cut")
        await follower.until_requests(before + 4)
        assert ["watch" in request for request in fake.queries[before:][:4]] == [True, True, False, True]


async def test_a_slice_that_cannot_be_used_is_named_once():
    async with running_fake_kube() as fake, following(fake, selector="") as follower:
        for _ in range(3):
            await fake.put(endpoint_slice("nameless", endpoint(), model=None))
        await fake.put(slice_of("a", "10.0.0.1"))
        await follower.until_hosts("10.0.0.1")
        follower.flush()
        (line,) = follower.lines("endpoint slices left out")
        assert "nameless has no label" in line["why"]


async def test_cancelling_closes_the_watch():
    async with running_fake_kube() as fake:
        async with following(fake) as follower:
            await follower.until(lambda: fake.open_watches)
        await follower.until(lambda: not fake.open_watches)


async def test_after_any_mixture_of_faults_the_endpoints_are_those_of_the_cluster():
    chance = random.Random(7)
    async with running_fake_kube() as fake, following(fake) as follower:
        fake.split = lambda line: _pieces(line, chance)
        for _ in range(60):
            name = chance.choice("abc")
            await fake.put(slice_of(name, *{f"10.0.0.{chance.randint(1, 9)}" for _ in range(chance.randint(0, 4))}))
            fault = chance.choice(["none", "none", "end", "cut", "gone", "compact", "refuse"])
            if fault == "compact":
                await fake.compact()
                await fake.end_watches("cut")
            elif fault == "refuse":
                fake.refusals.extend([(chance.choice([401, 403, 429, 500]), {})] * chance.randint(1, 3))
            elif fault != "none":
                await fake.end_watches(fault)
            await asyncio.sleep(0.001 * chance.randint(0, 5))
        fake.refusals.clear()
        await fake.put(slice_of("d", "10.0.1.1"))
        wanted = {e["addresses"][0] for one in fake.slices for e in one["endpoints"]}
        await follower.until(lambda: set(follower.hosts) == wanted)


def _pieces(line: bytes, chance: random.Random) -> list[bytes]:
    cut = chance.randint(0, len(line))
    return [piece for piece in (line[:cut], line[cut:]) if piece]
