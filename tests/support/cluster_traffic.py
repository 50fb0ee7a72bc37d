"""A model that serves from a fake cluster: simulated engines behind the pods, a real gateway, streams that go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import aiohttp
from msgspec.structs import replace

from inferdock.app.release_cluster import Cluster, cluster_place
from inferdock.app.release_gates import shadow_gate
from inferdock.app.release_places import Place
from inferdock.config.settings import Settings
from inferdock.kube.naming import label_value
from inferdock.kube.resources import PODS, KubeObject
from inferdock.release.clock import SystemClock
from inferdock.release.desk import Desk
from inferdock.release.events import Event
from inferdock.release.judging.gate import Gate
from inferdock.release.plan import Plan
from inferdock.release.planner import make_release, make_rollback
from inferdock.release.progress import Progress
from inferdock.release.records.cluster_lease import Timing
from inferdock.release.records.cluster_names import MODEL, REVISION
from inferdock.release.records.journal import Journal
from inferdock.release.records.mailbox import Mailbox, Request, Wish
from inferdock.release.runner import Listener, Runner
from inferdock.release.steps import Limits, Patience, Rules, Target
from inferdock.sim.engine import EOS
from inferdock.sim.language import Generator, decode, render_chat, seed_of
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.cluster_platform import NAME, NEW, NS, OLD, ClusterPlatform, cluster_platform
from tests.support.fake_driver import BY, FakeGate, World
from tests.support.gateway import gateway_process
from tests.support.releases import drafted

WEIGHTS = {OLD.revision: 1, NEW.revision: 2}
TOKENS = 12
LIMITS = Limits(error_rate=0.6, error_increase=0.6, ttft_p95_s=None, tpot_p50_s=None, ttft_ratio=None,
                tpot_ratio=None, min_requests=5, min_to_fail=5)  # fmt: skip
PATIENCE = Patience(poll_s=0.1, watch_s=0.3, start_s=120, drain_s=120, shift_s=60, grace_s=10)
RULES = Rules(
    weights=(0.1, 0.5, 1.0), gates=("smoke",), hold_s=1.5, hold_limit_s=30, bake_s=3, window_s=1, limits=LIMITS,
    patience=PATIENCE,
)  # fmt: skip
LEASE = Timing(duration_s=2.0, stop_s=1.2, renew_s=0.3, patience_s=30, look_s=0.1)


@lru_cache(maxsize=2000)
def right_answer(number: int, weights: int) -> str:
    """What an undisturbed replica of a version says."""
    generator = Generator(render_chat([("user", text_of(number))]), seed_of(weights, 0))
    ids = [generator.next(may_end=False) for _ in range(TOKENS)]
    return decode([token for token in ids if token != EOS])


def text_of(number: int) -> str:
    """What is asked."""
    return f"stream number {number}"


def body(number: int) -> dict[str, Any]:
    """A stream's request."""
    return {
        "model": NAME,
        "messages": [{"role": "user", "content": text_of(number)}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }


def judge(number: int, revision: str, text: str) -> str:
    """Whether a stream is whole, and what the revision that it names answers."""
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    if not events or events[-1] != "data: [DONE]":
        return f"no end mark: {text[-200:]!r}"
    said = ""
    for event in (json.loads(event.removeprefix("data: ")) for event in events[:-1]):
        if "error" in event:
            return f"error event: {event['error']}"
        said += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    expected = right_answer(number, WEIGHTS.get(revision, 0))
    return "right" if said == expected else f"{revision} said {said!r} instead of {expected!r}"


@dataclass
class Service:
    """A model that serves, and releases of it.

    Attributes:
        platform: the cluster.
        url: of the gateway.
        folder: for what is written on this machine.
        champion: of the registry.
        gates: by name; those that are not here pass.
        heard: events of releases, in this process.
    """

    platform: ClusterPlatform
    url: str
    folder: Path
    champion: World = field(default_factory=World)
    gates: dict[str, FakeGate] = field(default_factory=dict)
    heard: list[Event] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def place(self, **more: Any) -> AsyncIterator[Place]:
        """As a process of its own would reach the cluster."""
        cluster = Cluster(model=self.platform.model, namespace=NS, context=None, api_url=self.platform.cluster.url)
        settings = Settings(state_dir=self.folder / "state")
        async with cluster_place(settings, {}, cluster, timing=LEASE) as place:
            yield place

    def desk(self, place: Place) -> Desk:
        """In front of a place."""

        def make(journal: Journal, mailbox: Mailbox) -> Runner:
            gates: dict[str, Gate] = {
                "digests": FakeGate(self.champion),
                "smoke": FakeGate(self.champion),
                **self.gates,
            }
            gates |= shadow_gate(journal.progress.plan, place.meter, lambda said: None)
            return Runner(
                journal=journal,
                driver=place.driver,
                catalog=self.champion,
                gates=gates,
                meter=place.meter,
                lease=place.lease,
                mailbox=mailbox,
                clock=SystemClock(),
                by=BY,
                listener=Listener(event=self.heard.append),
            )

        return Desk(
            journals=place.journals,
            lease=place.lease,
            mailbox=place.mailbox,
            clock=SystemClock(),
            make_runner=make,
            holder="a runner of the test",
        )

    async def start(self, plan: Plan) -> Progress:
        """Begin a release and run it."""
        async with self.place() as place:
            return await self.desk(place).start(drafted(plan), BY, reason="a test")

    async def command(self, release: str, wish: Wish, number: int) -> Progress:
        """Give a command, as another process would."""
        now = datetime.now(UTC)
        wanted = Request(
            id=f"{number:032x}",
            wish=wish,
            actor="bob",
            origin="elsewhere",
            reason="",
            time=f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z",
        )
        async with self.place() as place:
            return await self.desk(place).command(release, wanted)

    async def progress(self, release: str) -> Progress | None:
        """How far a release is; None before it begins."""
        async with self.place() as place:
            return await place.journals.progress(release) if release in await place.journals.ids() else None

    async def until(self, release: str, holds: Any, within_s: float = 60.0) -> None:
        """Wait until a release is so far."""
        async with asyncio.timeout(within_s):
            while (progress := await self.progress(release)) is None or not holds(progress):
                await asyncio.sleep(0.05)


def release_plan(
    release: str, *, stable: Target = OLD, to: Target = NEW, spare: int | None = None, **changes: Any
) -> Plan:
    """A release with the rules of these tests."""
    rules = replace(RULES, **changes)
    made = make_release(
        id=release, model=NAME, stable=stable, to=to, rules=rules, champion=stable.reference, spare=spare
    )
    return made


def rollback_plan(release: str, *, bad: Target = NEW, to: Target = OLD, ready: int = 0) -> Plan:
    """The way from NEW to OLD."""
    return make_rollback(
        id=release, model=NAME, bad=bad, to=to, champion=bad.reference, ready=ready, spare=None, patience=PATIENCE
    )


@contextlib.asynccontextmanager
async def _engine(pod: KubeObject, options: Mapping[str, SimOptions]) -> AsyncIterator[tuple[str, int]]:
    revision = pod["metadata"]["labels"][REVISION]
    known = options.get(revision) or SimOptions(model=NAME, itl_s=0.005, ttft_s=0.02, weights=WEIGHTS[revision])
    async with running_sim(replace_options(known)) as sim:
        yield "127.0.0.1", sim.port


def replace_options(options: SimOptions) -> SimOptions:
    """With time for open requests to end."""
    return SimOptions(
        model=options.model, ttft_s=options.ttft_s, itl_s=options.itl_s, weights=options.weights, shutdown_timeout_s=10
    )


CONFIG = """
gateway:
  health_interval_s: 0.2
  kubernetes:
    enabled: true
    api_url: "{url}"
    namespace: ns
    label_selector: "{model}"
    port_name: http
    model_names: {{{label}: {name}}}
keys: {{check: never}}
log: {{level: warning}}
"""


@contextlib.asynccontextmanager
async def service(
    folder: Path,
    *,
    serves: Target = OLD,
    engines: Mapping[str, SimOptions] | None = None,
    work: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Service]:
    """The old version ``serves``; ``engines`` are by revision, other options as for :func:`cluster_platform`."""
    at_work = {"backend": lambda pod: _engine(pod, engines or {}), "drain_s": 0.5, **(work or {})}
    async with cluster_platform(work=at_work, **options) as platform:
        await platform.install(serves)
        await platform.until_ready(serves, serves.replicas)
        config = CONFIG.format(url=platform.cluster.url, model=MODEL, label=label_value(NAME), name=NAME)
        async with gateway_process(folder, [], config=config) as url:
            await _is_up(url)
            add_gateway(platform, "gateway-0", url)
            made = Service(platform, url, folder)
            made.champion.champion_is = serves.reference
            yield made


def add_gateway(platform: ClusterPlatform, name: str, url: str) -> None:
    """The pod of a gateway that runs outside the fake."""
    labels = {"app.kubernetes.io/component": "gateway"}
    ports = [{"name": "http", "containerPort": 8080}]
    status = {"phase": "Running", "podIP": "10.9.9.9", "conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "g", "ports": ports}]}}
    platform.cluster.store.create(PODS, NS, {**pod, "status": status})
    host, _, port = url.removeprefix("http://").partition(":")
    platform.cluster.backends[NS, name, 8080] = (host, int(port))


async def _is_up(url: str) -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{url}/ready") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
