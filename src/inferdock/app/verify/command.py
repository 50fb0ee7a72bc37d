"""Puts a run of checks together: finds the target and what stands beside it, and says what this run lacks."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from inferdock import __version__
from inferdock.app.verify import criteria, phase1, phase2, phase3, phase4
from inferdock.app.verify.target import Target
from inferdock.bench.client import first_model
from inferdock.domain.errors import InferdockError, UnreachableError
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.proxy import cluster_by
from inferdock.supervisor.engine import Machine
from inferdock.supervisor.state import read_state
from inferdock.verify.check import Check, Need, Result
from inferdock.verify.report import Report
from inferdock.verify.run import chosen, run_all

CHECKS: Final[tuple[Check[Target], ...]] = (
    *phase1.CHECKS,
    *phase2.CHECKS,
    *phase3.CHECKS,
    *phase4.CHECKS,
    *criteria.CHECKS,
)
"""Every check, in the order of the plan."""
DEFAULT_URL: Final = "http://127.0.0.1:8080"
ANSWER_S: Final = 120.0
_CHECKOUT: Final = ("helm/llm-inference/Chart.yaml", "terraform/model-registry/main.tf", "prometheus/rules")
_OPTIONS: Final = {
    Need.DISRUPTION: ("disruptive", "Takes replicas out of a running target: allow it with --disruptive."),
    Need.RELEASE: ("candidate", "Makes a release and goes back: name a version with --with-release NAME@VERSION."),
    Need.MINUTES: ("long", "Takes many minutes: allow it with --long."),
    Need.AWS: ("aws", "Uses the AWS account that the environment names: allow it with --aws."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked for; the fields of :class:`Target` mean the same here.

    Attributes:
        url: None: the platform that `inferdock up` runs here.
        kubernetes: whether the target runs in a cluster that may be asked.
        state_root: folder under which running platforms keep their state.
        only, skip: patterns of ids.
    """

    url: str | None
    state_root: Path
    port: int | None = None
    admin_url: str | None = None
    model: str | None = None
    api_key: str | None = None
    kubernetes: bool = False
    kube_context: str | None = None
    kube_api: str | None = None
    namespace: str = "default"
    release: str = "llm-inference"
    checkout: Path | None = None
    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    users: int = 50
    load_s: float = 30.0
    cost_per_hour: float | None = None
    disruptive: bool = False
    candidate: str | None = None
    long: bool = False
    aws: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The target, what the run lacks, and what is known of it."""

    target: Target
    lacking: Mapping[Need, str]
    facts: Mapping[str, str]


async def verify(
    order: Order, environment: Mapping[str, str], *, told: Callable[[Result, int], None] = lambda _, __: None
) -> Report:
    """Run the wanted checks.

    Args:
        told: hears of each result as it comes, and of how many there will be.

    Raises:
        ConfigError: a pattern fits no check, or the cluster cannot be reached as was asked.
        UnreachableError: several platforms run here and none was chosen.
    """
    checks = chosen(CHECKS, only=order.only, skip=order.skip)
    at, began = datetime.datetime.now(datetime.UTC), time.monotonic()
    async with find(order, environment) as found:
        results = await run_all(
            checks, found.target, lacking=found.lacking, told=lambda result: told(result, len(checks))
        )
    return Report(
        target=found.target.url,
        facts=found.facts,
        at=at.isoformat(timespec="seconds"),
        results=tuple(results),
        seconds=time.monotonic() - began,
    )


@contextlib.asynccontextmanager
async def find(order: Order, environment: Mapping[str, str]) -> AsyncIterator[Found]:
    """The target of an order, for as long as the block runs."""
    state, document = _platform(order)
    url = (order.url or document.get("url") or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {order.api_key}"} if order.api_key else {}
    async with contextlib.AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers, timeout=timeout))
        cluster = await stack.enter_async_context(_cluster(order, environment))
        model, trouble = await _model(http, url, order.model)
        target = Target(
            url=url,
            model=model,
            http=http,
            admin_url=order.admin_url or document.get("admin_url"),
            state=state,
            checkout=order.checkout,
            users=order.users,
            load_s=order.load_s,
            cost_per_hour=order.cost_per_hour,
            api_key=order.api_key,
            cluster=cluster,
            namespace=order.namespace,
            release=order.release,
            candidate=order.candidate,
        )
        engine = str(document.get("engine", ""))
        yield Found(target=target, lacking=_lacking(order, target, trouble, engine), facts=_facts(target, engine))


def checkout_at(folder: Path) -> Path | None:
    """The checkout that a folder lies in, by what only a checkout has."""
    whole = folder.resolve()
    return next((at for at in (whole, *whole.parents) if all((at / name).exists() for name in _CHECKOUT)), None)


def _platform(order: Order) -> tuple[Path | None, dict[str, Any]]:
    """The state file of the platform that runs here, and what it says; nothing where another one is meant."""
    port = order.port
    if port is None and order.url is not None:
        found = _by_url(order)
        return found if found is not None else (None, {})
    try:
        document = read_state(order.state_root, port)
    except UnreachableError as error:
        if port is not None or error.message.startswith("Several"):
            raise
        return None, {}
    return _by_url(order, document["url"]) or (None, document)


def _by_url(order: Order, url: str | None = None) -> tuple[Path, dict[str, Any]] | None:
    wanted = urlsplit(url or order.url or "")
    for path in sorted(order.state_root.glob("up-*/state.json")):
        with contextlib.suppress(InferdockError, ValueError):
            document = read_state(order.state_root, int(path.parent.name.removeprefix("up-")))
            if (at := urlsplit(document["url"])).port == wanted.port and at.hostname == wanted.hostname:
                return path, document
    return None


@contextlib.asynccontextmanager
async def _cluster(order: Order, environment: Mapping[str, str]) -> AsyncIterator[KubeObjects | None]:
    if not order.kubernetes:
        yield None
        return
    async with cluster_by(order.kube_api, order.kube_context, environment) as access, KubeObjects(access) as api:
        yield api


async def _model(http: aiohttp.ClientSession, url: str, wanted: str | None) -> tuple[str, str]:
    """The model to ask for, and why the target cannot be asked ("" when it can)."""
    try:
        first = await first_model(http, f"{url}/v1")
    except UnreachableError as error:
        return wanted or "", str(error)
    return wanted or first, ""


def _lacking(order: Order, target: Target, trouble: str, engine: str) -> dict[Need, str]:
    lacking = {need: text for need, (name, text) in _OPTIONS.items() if not getattr(order, name)}
    if trouble:
        lacking[Need.TARGET] = trouble
    if engine == "sim":
        lacking[Need.ENGINE] = "The target's engine is simulated: start `inferdock up` with a real one."
    if target.admin_url is None:
        lacking[Need.ADMIN] = "The admin port is not known: give --admin-url."
    if target.checkout is None:
        lacking[Need.CHECKOUT] = "Looks into a checkout of Inferdock: run it in one, or give --checkout."
    if target.cluster is None:
        lacking[Need.CLUSTER] = "Needs a cluster with the chart: give --target kubernetes (and --namespace, --release)."
    if not Machine.here().gpus:
        lacking[Need.GPU] = "Needs a GPU: run it on a machine that has one."
    return lacking


def _facts(target: Target, engine: str) -> dict[str, str]:
    facts = {"model": target.model, "engine": engine, "inferdock": __version__}
    if target.cluster is not None:
        facts["cluster"] = f"release {target.release} in namespace {target.namespace}"
    return {name: text for name, text in facts.items() if text}
