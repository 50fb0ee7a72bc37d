"""Checks of phase 1: images, Kubernetes objects, the chart, metrics, the OpenAI API."""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
from pathlib import Path
from typing import Any, Final

from inferdock import __version__
from inferdock.app.render import CHART_NAME, helm
from inferdock.app.verify import installed, openai_api, scraping
from inferdock.app.verify.chart import PRODUCTION, component, of_kind, rendered, root
from inferdock.app.verify.commands import Ran, find, run, running
from inferdock.app.verify.figures import ready_rows, status
from inferdock.app.verify.ground import LackingError, check, faultless, verdict
from inferdock.app.verify.target import Target
from inferdock.domain.errors import ConfigError
from inferdock.verify.check import Check, Evidence, Need

OLDEST: Final = "1.30"
"""Kubernetes that the chart begins with (deploy/versions.yaml)."""
BUILDERS: Final = ("docker", "podman", "buildah")
IMAGE: Final = f"inferdock/engine:{__version__}"
BUILD_S: Final = 3600.0
START_S: Final = 900.0
POLL_S: Final = 1.0


# -- 1.1 -------------------------------------------------------------------------------------------------------------


async def dockerfiles(target: Target) -> Evidence:
    """Hadolint finds nothing in the Dockerfiles."""
    linter = find("hadolint")
    if linter is None:
        raise LackingError("hadolint is not installed here: run `make setup`.")
    files = sorted(str(path.relative_to(root(target))) for path in (root(target) / "docker").rglob("Dockerfile*"))
    if not files:
        return verdict(False, "There is no Dockerfile.")
    said = await run(linter, *files, folder=root(target))
    return verdict(
        said.good, f"{len(files)} Dockerfiles, no finding." if said.good else said.last, f"hadolint {' '.join(files)}"
    )


async def built(target: Target) -> Evidence:
    """The engine's image builds."""
    said = await _build(target)
    return verdict(said.good, "Built." if said.good else said.last, "python -m scripts.build_images engine")


async def _build(target: Target) -> Ran:
    if not any(find(name) for name in BUILDERS):
        raise LackingError(f"Builds an image: install one of {', '.join(BUILDERS)}.")
    words = (sys.executable, "-m", "scripts.build_images", "engine")
    said = await run(*words, "--print", folder=root(target))
    if not said.good:
        raise LackingError(said.last)
    return await run(*words, folder=root(target))


async def started(target: Target) -> Evidence:
    """The engine's image starts on a GPU and says that it is healthy."""
    docker = find("docker")
    if docker is None:
        raise LackingError("Runs an image on a GPU: install docker with the NVIDIA container toolkit.")
    if not (said := await _build(target)).good:
        return verdict(False, said.last)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ("run", "--rm", "--gpus", "all", "--shm-size", "1g", "-p", f"127.0.0.1:{port}:8000", IMAGE)
    async with running(docker, *words) as process:
        while process.returncode is None:
            if await _healthy(target, f"http://127.0.0.1:{port}"):
                return verdict(True, f"{IMAGE} is healthy.", f"docker {' '.join(words)}")
            await asyncio.sleep(POLL_S)
    return verdict(False, f"{IMAGE} ended with {process.returncode}.", f"docker {' '.join(words)}")


async def _healthy(target: Target, url: str) -> bool:
    try:
        async with target.http.get(f"{url}/health") as answer:
            return answer.status == 200
    except OSError:
        return False


async def health(target: Target) -> Evidence:
    """The gateway's health page answers 200."""
    async with target.http.get(f"{target.url}/health") as answer:
        return verdict(answer.status == 200, f"/health answers {answer.status}.", f"curl -i {target.url}/health")


async def engines(target: Target) -> Evidence:
    """Every engine behind the gateway answers 200 at its own health page."""
    rows = ready_rows(await status(target), target.model)
    faults = [] if rows else ["No replica is ready."]
    for row in rows:
        async with target.http.get(f"{row['url']}/health") as answer:
            faults += [f"{row['name']} answers {answer.status}."] if answer.status != 200 else []
    command = f"curl -i {rows[0]['url']}/health" if rows else ""
    return faultless(faults, f"{len(rows)} engines answer 200.", command, engines=len(rows))


# -- 1.2 and 1.3 -----------------------------------------------------------------------------------------------------


async def current(target: Target) -> Evidence:
    """The committed objects are those that the chart gives."""
    said = await run(sys.executable, "-m", "scripts.render_kubernetes", "--check", folder=root(target))
    return verdict(said.good, "k8s/ is what the chart gives." if said.good else said.last, "scripts/render --check")


async def schemas(target: Target) -> Evidence:
    """Every base object fits the API's own schema."""
    try:
        validator = importlib.import_module("kubernetes_validate")
    except ModuleNotFoundError:
        raise LackingError("kubernetes-validate is not installed here: run `make setup`.") from None
    found = await asyncio.to_thread(installed.manifests, root(target) / "k8s" / "base")
    faults = [] if found else ["k8s/base holds no objects."]
    for one in found:
        try:
            validator.validate(one, OLDEST, strict=True)
        except validator.ValidationError as error:
            faults.append(f"{one['kind']} {one['metadata']['name']}: {error}")
    sentence = f"{len(found)} objects fit the schemas of Kubernetes {OLDEST}."
    return faultless(faults, sentence, objects=len(found))


async def linted(target: Target) -> Evidence:
    """`helm lint` finds nothing, warnings included."""
    chart = root(target) / "helm" / CHART_NAME
    findings = await asyncio.to_thread(_lint, chart)
    return faultless(findings, "Helm's lint finds nothing.", f"helm lint --strict helm/{CHART_NAME}")


def _lint(chart: Path) -> list[str]:
    try:
        report = helm().lint(chart, {}, strict=True, kube_version=f"v{OLDEST}.0")
    except ConfigError as error:
        raise LackingError(str(error)) from error
    found = [f"{one['path']}: {one['error']}" for one in report["messages"] if one["severity"] > 1]
    return [*found, *report["errors"]]


async def dry_run(target: Target) -> Evidence:
    """The chart renders, with the default values and with those of production, with a gateway and an engine."""
    faults, counts = [], []
    for files in ((), (PRODUCTION,)):
        found = await rendered(target, *files, values={})
        parts = {component(one) for one in of_kind(found, "Deployment")}
        counts.append(len(found))
        faults += [f"{files or 'default values'}: no {part}." for part in ("gateway", "engine") if part not in parts]
    command = f"inferdock render --values helm/{CHART_NAME}/{PRODUCTION}"
    return faultless(faults, f"{counts[0]} and {counts[1]} objects.", command, objects=sum(counts))


async def scaled(target: Target) -> Evidence:
    """`replicaCount=2` gives two replicas of the engine, and nothing else changes its number."""
    counts = [_replicas(await rendered(target, values={"replicaCount": number})) for number in (1, 2)]
    good = counts[0] == [1] * len(counts[0]) and counts[1] == [2] * len(counts[0]) and bool(counts[0])
    command = "inferdock render --set replicaCount=2"
    return verdict(good, f"Replicas of engines: {counts[0]} with replicaCount=1, {counts[1]} with 2.", command)


def _replicas(found: list[dict[str, Any]]) -> list[Any]:
    return [one["spec"].get("replicas") for one in of_kind(found, "Deployment") if component(one) == "engine"]


async def upgraded(target: Target) -> Evidence:
    """Helm's own code installs the chart into a fake API, and upgrades it (our test of that)."""
    said = await run(sys.executable, "-m", "pytest", "-q", "tests/deploy/test_installed.py", folder=root(target))
    if "No module named pytest" in said.text:
        raise LackingError("pytest is not installed here: run `make setup`.")
    return verdict(said.good and " passed" in said.text, said.last[-160:], "pytest tests/deploy/test_installed.py")


CHECKS: Final[tuple[Check[Target], ...]] = (
    check("1.1.dockerfile", "the Dockerfiles have no known fault", dockerfiles, Need.CHECKOUT, limit_s=60),
    check("1.1.build", "the engine's image builds", built, Need.CHECKOUT, Need.MINUTES, limit_s=BUILD_S),
    check(
        "1.1.start",
        "the engine's image starts on a GPU",
        started,
        *(Need.CHECKOUT, Need.GPU, Need.MINUTES),
        limit_s=BUILD_S + START_S,
    ),
    check("1.1.health", "the gateway's health page says yes", health, Need.TARGET),
    check("1.1.engines", "every engine's health page says yes", engines, Need.TARGET, Need.ADMIN),
    check("1.2.current", "the committed objects are those of the chart", current, Need.CHECKOUT, limit_s=120),
    check("1.2.schemas", "the base objects fit the API's schemas", schemas, Need.CHECKOUT, limit_s=60),
    *installed.BASE,
    openai_api.MODELS,
    check("1.3.lint", "helm lint finds nothing", linted, Need.CHECKOUT, limit_s=60),
    check("1.3.render", "the chart renders with default and production values", dry_run, Need.CHECKOUT, limit_s=60),
    check("1.3.replicas", "a number of replicas in the values is what comes out", scaled, Need.CHECKOUT, limit_s=60),
    *installed.CHART,
    check(
        "1.3.upgrade",
        "Helm installs and upgrades the chart (into a fake API)",
        upgraded,
        *(Need.CHECKOUT, Need.MINUTES),
        limit_s=900,
    ),
    *scraping.CHECKS,
    *openai_api.CHECKS,
)
