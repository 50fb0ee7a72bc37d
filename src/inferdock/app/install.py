"""Installs or upgrades the chart with Helm's own SDK, and waits until every pod is ready or it is clear why not.

Helm stores the release as it always does, so `helm list`, `helm rollback` and `helm uninstall` know it. What Helm
itself would say while it waits ("context deadline exceeded") is of no use to anybody, so we wait ourselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from inferdock.app.registry import open_registry
from inferdock.app.render import helm, merged, objects, render, sentence
from inferdock.config.settings import RegistrySettings
from inferdock.domain.errors import (
    CheckFailedError,
    ConfigError,
    ConflictError,
    InconclusiveError,
    InferdockError,
    UnreachableError,
)
from inferdock.kube.errors import KubeError
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.proxy import cluster_by
from inferdock.kube.resources import DEPLOYMENTS, PODS
from inferdock.registry.names import Reference
from inferdock.release.drivers.kubernetes.troubles import gave_up, problem_of
from inferdock.release.drivers.kubernetes.views import Deployment, Pod, views

LOOK_S: Final = 2.0
"""Seconds between two looks at the pods."""
HELM_S: Final = 300
"""Seconds that Helm may take to send the objects; it waits for nothing."""
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"

NO_SUCH_KIND: Final = ("no matches for kind", "could not find the requested resource", "ensure CRDs are installed")
ADDED: Final = frozenset({"gateway.networking.k8s.io"})
"""Groups with a name like Kubernetes' own that do not come with it."""

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be installed, and where.

    Attributes:
        name: of the Helm release.
        namespace: where it is installed.
        chart: folder or archive.
        values: over the chart's own.
        context: of the kubeconfig; None: the current one, or the pod's account.
        api_url: address of the API server, for instance of a `kubectl proxy`.
        create_namespace: make the namespace if it is not there.
        replace: let Helm delete engines that the new values no longer name.
    """

    name: str
    namespace: str
    chart: Path
    values: Mapping[str, Any]
    context: str | None = None
    api_url: str | None = None
    create_namespace: bool = False
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What Helm did.

    Attributes:
        number: the release's revision in Helm's count.
        upgraded: whether there was one before.
        deployments: names of the Deployments that it brought.
    """

    number: int
    upgraded: bool
    deployments: tuple[str, ...]


def with_revisions(
    values: Mapping[str, Any], registry: RegistrySettings, environment: Mapping[str, str], told: Told
) -> dict[str, Any]:
    """The values with version and revision of the models that come from the registry and name none.

    A model without a version gets its champion.

    Raises:
        RegistryError: the registry has no such version.
        UnreachableError: it cannot be reached.
    """
    result = dict(values)
    for key, model in dict(values.get("models") or {}).items():
        if not isinstance(model, dict) or model.get("source") or model.get("revision"):
            continue
        url = (values.get("registry") or {}).get("url") or registry.url
        wanted = f"{key}@{model['version']}" if model.get("version") else key
        opened = open_registry(registry.model_copy(update={"url": url}), environment)
        manifest = opened.version(Reference.parse(wanted)).manifest
        told(f"{key}: version {manifest.version}, revision {manifest.revision[:12]} of the registry.")
        found = {"version": manifest.version, "revision": manifest.revision}
        result = merged(result, {"models": {key: found}})
    return result


def apply_chart(wish: Wish, context: Any = None) -> Installed:
    """Install the release, or upgrade the one that is there. Blocks; does not wait for pods.

    Args:
        wish: what and where.
        context: a ``HelmContext`` by which another thread may cancel.

    Raises:
        ConfigError: values, chart or kubeconfig are wrong.
        ConflictError: the new values would delete engines that serve, or others own fields.
        UnreachableError: the cluster does not answer, or refuses.
    """
    sdk = helm()
    try:
        with _config(sdk, wish) as config:
            before = _before(sdk, config, wish.name)
            if before is not None and not wish.replace:
                _check_engines_stay(config, wish, before)
            return _send(config, wish, context, upgrade=before is not None)
    except (sdk.HelmValuesError, sdk.HelmRenderError, sdk.HelmChartLoadError, sdk.HelmInvalidArgError) as exc:
        raise ConfigError(sentence(str(exc))) from exc
    except sdk.HelmCancelledError as exc:
        raise UnreachableError("The installation was cancelled.") from exc
    except sdk.HelmError as exc:
        raise _translated(str(exc), wish) from exc


def _config(sdk: Any, wish: Wish) -> Any:
    if wish.api_url is not None:
        return sdk.Config(kube_apiserver=wish.api_url, namespace=wish.namespace)
    return sdk.Config(kube_context=wish.context, namespace=wish.namespace)


def _before(sdk: Any, config: Any, name: str) -> str | None:
    """The manifest of the release that is there; None where there is none."""
    try:
        manifest: str = config.status(name).get("manifest", "")
    except sdk.HelmNotFoundError:
        return None
    return manifest


def _check_engines_stay(config: Any, wish: Wish, before: str) -> None:
    """Refuse to let Helm delete what serves: a change of version in the values is no release.

    Raises:
        ConflictError: the new objects lack an engine that is there.
    """
    rendered = config.render(helm().Chart.load(wish.chart), dict(wish.values), name=wish.name, namespace=wish.namespace)
    after = {name for text in rendered.values() for name in _deployments(text, "engine")}
    gone = sorted(set(_deployments(before, "engine")) - after)
    if gone:
        raise ConflictError(
            f"With these values Helm would delete {', '.join(gone)} at once, with what it serves.",
            cure="Bring a version in by `inferdock release start NAME@VERSION --target kubernetes`, and keep the first "
            "one in the values; or say --replace.",
        )


def _send(config: Any, wish: Wish, context: Any, *, upgrade: bool) -> Installed:
    options: dict[str, Any] = {"context": context, "timeout": HELM_S, "description": "inferdock install"}
    if upgrade:
        done = config.upgrade(wish.chart, wish.name, dict(wish.values), max_history=10, **options)
    else:
        options["create_namespace"] = wish.create_namespace
        done = config.install(wish.chart, wish.name, dict(wish.values), **options)
    names = tuple(_deployments(done.get("manifest", "")))
    return Installed(number=int(done.get("version", done.get("revision", 0)) or 0), upgraded=upgrade, deployments=names)


def _deployments(manifest: str, component: str | None = None) -> list[str]:
    """Names of the Deployments in a text of YAML documents."""
    if "kind:" not in manifest:
        return []
    found = [one for one in yaml.safe_load_all(manifest) if isinstance(one, dict) and one.get("kind") == "Deployment"]
    ours = [one["metadata"] for one in found if component in (None, one["metadata"]["labels"].get(COMPONENT))]
    return [meta["name"] for meta in ours]


def _translated(text: str, wish: Wish) -> InferdockError:
    said = " ".join(text.split()).rstrip(".")
    if "execution error at" in said or "meet the specifications of the schema" in said:
        return ConfigError(sentence(text))
    if "another operation" in said:
        return ConflictError(f"Helm says: {said}.", cure="Wait for it, or clear it with `helm rollback`.")
    if "conflict" in said:
        return ConflictError(f"Somebody else owns what the chart sets: {said}.", cure="Let one of the two own it.")
    if any(words in said for words in NO_SUCH_KIND) and (asked := _foreign(wish)):
        return ConfigError(
            f"The cluster lacks a kind of object. These values ask for {', '.join(asked)}; Helm says: {said}.",
            cure="Install what brings it (KEDA, Prometheus operator, Gateway API), or switch it off in the values.",
        )
    if "namespaces" in said and "not found" in said:
        return ConfigError(f"Helm says: {said}.", cure="Make the namespace, or add --create-namespace.")
    return UnreachableError(f"Helm says: {said}.", cure="Does `kubectl get pods` work with the same context?")


def _foreign(wish: Wish) -> list[str]:
    """Kinds among the objects that Kubernetes does not bring itself."""
    found = objects(render(wish.chart, wish.values, name=wish.name, namespace=wish.namespace))
    groups = [(one["apiVersion"].rpartition("/")[0], one["kind"]) for one in found]
    beyond = {
        f"{kind} ({group})" for group, kind in groups if group.count(".") and (group in ADDED or ".k8s.io" not in group)
    }
    return sorted(beyond)


async def send_chart(wish: Wish) -> Installed:
    """:func:`apply_chart` beside the event loop; a Ctrl-C cancels it."""
    context = helm().HelmContext()
    task = asyncio.get_running_loop().run_in_executor(None, apply_chart, wish, context)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        context.cancel()
        with contextlib.suppress(Exception):
            await task
        raise


@contextlib.asynccontextmanager
async def reach(wish: Wish, environment: Mapping[str, str]) -> AsyncIterator[KubeObjects]:
    """The cluster's API by the same way as Helm's.

    Raises:
        ConfigError: it cannot be reached like that.
        UnreachableError: it does not answer.
    """
    async with cluster_by(wish.api_url, wish.context, environment) as access, KubeObjects(access) as api:
        yield api


async def wait_until_ready(
    api: KubeObjects,
    wish: Wish,
    names: Iterable[str],
    *,
    timeout_s: float,
    told: Told,
    look_s: float = LOOK_S,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until all Deployments have all their replicas, and say what happens meanwhile.

    Args:
        api: the cluster.
        wish: what was installed.
        names: of the Deployments.
        timeout_s: longest wait in seconds.
        told: gets a line whenever something has changed.
        look_s: seconds between two looks.
        clock: seconds, monotonic.

    Raises:
        CheckFailedError: waiting is of no use; with the reason.
        InconclusiveError: the time is over; with what is missing and why.
    """
    wanted, deadline = set(names), clock() + timeout_s
    said: dict[str, str] = {}
    while True:
        try:
            states = await _look(api, wish, wanted)
        except KubeError as exc:  # a moment without the API is no reason to give up
            states = {"the cluster": _State(f"does not answer: {exc.message}", ready=False)}
        for name, state in states.items():
            if said.get(name) != state.text:
                said[name] = state.text
                told(f"{name}: {state.text}")
        if all(state.ready for state in states.values()):
            return
        if stuck := [f"{name}: {state.text}" for name, state in states.items() if state.hopeless]:
            raise CheckFailedError(f"{'; '.join(stuck)}.", cure="Mend it and install again; nothing was taken back.")
        if clock() >= deadline:
            missing = [f"{name}: {state.text}" for name, state in states.items() if not state.ready]
            raise InconclusiveError(
                f"Not ready after {timeout_s:.0f} s. {'; '.join(missing)}.",
                cure="It may still come: look with `kubectl get pods`, or give --timeout more.",
            )
        await asyncio.sleep(look_s)


@dataclass(frozen=True, slots=True)
class _State:
    text: str
    ready: bool
    hopeless: bool = False


async def _look(api: KubeObjects, wish: Wish, wanted: set[str]) -> dict[str, _State]:
    selector = f"{INSTANCE}={wish.name}"
    bodies, _ = await api.list(DEPLOYMENTS, wish.namespace, selector=selector)
    pod_bodies, _ = await api.list(PODS, wish.namespace, selector=selector)
    deployments = {one.metadata.name: one for one in views(bodies, Deployment)}
    selectors = {body["metadata"]["name"]: body["spec"]["selector"]["matchLabels"] for body in bodies}
    states: dict[str, _State] = {}
    for name in sorted(wanted):
        if name not in deployments:
            states[name] = _State("is not there", ready=False)
            continue
        mine = [pod for pod in pod_bodies if selectors[name].items() <= pod["metadata"].get("labels", {}).items()]
        states[name] = _state(deployments[name], views(mine, Pod))
    return states


def _state(deployment: Deployment, pods: Iterable[Pod]) -> _State:
    pods, status = tuple(pods), deployment.status
    staying = [pod for pod in pods if not pod.leaves and not pod.over]
    ready = sum(pod.ready for pod in staying)
    current = status is not None and status.observed_generation >= deployment.metadata.generation
    whole = current and ready >= deployment.replicas and len(staying) <= deployment.replicas
    trouble = problem_of([deployment], pods)
    text = f"{ready} of {deployment.replicas} ready" + (f"; {trouble}" if trouble and not whole else "")
    return _State(text, ready=whole, hopeless=not whole and gave_up([deployment], pods))
