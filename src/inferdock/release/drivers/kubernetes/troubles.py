"""Why pods do not get ready, in the sentence that a person needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from inferdock.release.drivers.kubernetes.views import ContainerStatus, Deployment, Pod, Terminated

CRASHES: Final = 5
"""Starts of a container that failed, with the growing pauses between them, after which waiting is of no use."""
MAX_CHARS: Final = 300
_IMAGE: Final = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_SETUP: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


def problem_of(deployments: Iterable[Deployment], pods: Iterable[Pod]) -> str:
    """What is wrong with a revision, "" when nothing is known.

    The worst of what its pods say; what only takes its time (pulling an image, loading a model) is no problem.
    """
    found = [trouble for pod in pods if not pod.ready and not pod.leaves if (trouble := _of_pod(pod))]
    found += [trouble for deployment in deployments if (trouble := _of_deployment(deployment))]
    if not found:
        return ""
    _, worst = max(found, key=lambda one: one[0])
    same = sum(text == worst for _, text in found)
    return worst if same < 2 else f"{worst} ({same} pods)"


def gave_up(deployments: Iterable[Deployment], pods: Iterable[Pod]) -> bool:
    """Whether waiting is of no use: no progress within its deadline, or nothing but containers that crash."""
    for deployment in deployments:
        progress, status = deployment.condition("Progressing"), deployment.status
        current = status is not None and status.observed_generation >= deployment.metadata.generation
        late = progress is not None and progress.status == "False" and progress.reason == "ProgressDeadlineExceeded"
        if deployment.replicas and current and late:
            return True
    staying = [pod for pod in pods if not pod.leaves and not pod.over]
    return bool(staying) and all(_crashes(pod) for pod in staying)


def _crashes(pod: Pod) -> bool:
    statuses = (*(pod.status.container_statuses or ()), *(pod.status.init_container_statuses or ()))
    return not pod.ready and any(one.restart_count >= CRASHES and not one.ready for one in statuses)


def _of_deployment(deployment: Deployment) -> tuple[int, str] | None:
    failure = deployment.condition("ReplicaFailure")
    if failure is not None and failure.status == "True":
        return 8, f"pods cannot be made: {_clean(failure.message or failure.reason)}"
    progress = deployment.condition("Progressing")
    if deployment.replicas and progress is not None and progress.reason == "ProgressDeadlineExceeded":
        return 1, f"no progress within its deadline: {_clean(progress.message or deployment.metadata.name)}"
    return None


def _of_pod(pod: Pod) -> tuple[int, str] | None:
    """How bad it is, and what."""
    name, status = pod.metadata.name, pod.status
    for inner, statuses in ((True, status.init_container_statuses), (False, status.container_statuses)):
        for container in statuses or ():
            if (trouble := _of_container(container, name, inner=inner)) is not None:
                return trouble
    for condition in status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return 5, f"pod {name} has no place: {_clean(condition.message or condition.reason)}"
    return None


def _of_container(container: ContainerStatus, pod: str, *, inner: bool) -> tuple[int, str] | None:
    state = container.state
    waiting = state.waiting if state is not None else None
    reason = (waiting.reason or "") if waiting is not None else ""
    who = f"the init container `{container.name}` of pod {pod}" if inner else f"container `{container.name}` of {pod}"
    if reason in _IMAGE and waiting is not None:
        return 9, f"the image of {who} cannot be had ({reason}): {_clean(waiting.message)}"
    if reason in _SETUP and waiting is not None:
        return 9, f"{who} cannot be started ({reason}): {_clean(waiting.message)}"
    ended = _ended(container)
    if ended is not None and ended.exit_code and (reason == "CrashLoopBackOff" or container.restart_count or inner):
        times = f", {container.restart_count} times" if container.restart_count > 1 else ""
        why = f": {_clean(ended.message)}" if ended.message else ""
        return 7, f"{who} ended with exit code {ended.exit_code}{_reason(ended)}{times}{why}"
    return (6, f"{who} crashes again and again") if reason == "CrashLoopBackOff" else None


def _ended(container: ContainerStatus) -> Terminated | None:
    """How it ended the last time, where it did."""
    states = (container.state, container.last_state)
    return next((state.terminated for state in states if state is not None and state.terminated is not None), None)


def _reason(ended: Terminated) -> str:
    return f" ({_clean(ended.reason)})" if ended.reason and ended.reason != "Error" else ""


def _clean(text: str | None) -> str:
    """In one line, not too long, fit to be printed."""
    line = " ".join((text or "no reason is given").split())
    return "".join(c if c.isprintable() else "?" for c in line[:MAX_CHARS]).rstrip(".")
