"""What the kubelet and the scheduler write of a pod: coming up, ready, and the usual troubles."""

from __future__ import annotations

from dataclasses import dataclass

from inferdock.kube.resources import KubeObject

TROUBLES = ("Unschedulable", "CrashLoopBackOff", "ImagePullBackOff", "InitFailed", "NotReady")


@dataclass(frozen=True)
class PodPlan:
    """How a pod comes up, or why it does not.

    Attributes:
        startup_s: from its container's start until it is ready.
        trouble: one of :data:`TROUBLES`; "" for none.
        message: what is said about it; "" for the usual.
        exit_code: of a container that crashes.
    """

    startup_s: float = 0.0
    trouble: str = ""
    message: str = ""
    exit_code: int = 1


def pod_status(pod: KubeObject, plan: PodPlan, state: str, *, address: str, restarts: int) -> KubeObject:
    """``status`` of a pod; ``state`` is a trouble, ``Starting`` or ``Ready``."""
    ready = state == "Ready"
    running = state in ("Starting", "Ready", "NotReady", "CrashLoopBackOff")
    status: KubeObject = {
        "phase": "Running" if running else "Pending",
        "conditions": [_scheduled(plan, state), {"type": "Ready", "status": "True" if ready else "False"}],
    }
    if state == "Unschedulable":
        return status
    status |= {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.255.0.1"}
    status["containerStatuses"] = [_container(pod, one, plan, state, restarts) for one in pod["spec"]["containers"]]
    if state == "InitFailed":
        status["initContainerStatuses"] = [_init(pod, plan)]
    return status


def _scheduled(plan: PodPlan, state: str) -> KubeObject:
    if state != "Unschedulable":
        return {"type": "PodScheduled", "status": "True"}
    said = plan.message or "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}


def _container(pod: KubeObject, container: KubeObject, plan: PodPlan, state: str, restarts: int) -> KubeObject:
    made: KubeObject = {
        "name": container["name"],
        "image": container.get("image", ""),
        "ready": state == "Ready",
        "restartCount": restarts,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }
    if state == "CrashLoopBackOff":
        said = f"back-off 40s restarting failed container={container['name']} pod={pod['metadata']['name']}"
        made |= {"restartCount": 3, "state": {"waiting": {"reason": state, "message": said}}}
        made["lastState"] = {"terminated": _ended(plan)}
    elif state == "ImagePullBackOff":
        said = plan.message or f'Back-off pulling image "{container.get("image", "")}"'
        made["state"] = {"waiting": {"reason": state, "message": said}}
    elif state == "InitFailed":
        made["state"] = {"waiting": {"reason": "PodInitializing"}}
    elif restarts:
        made["lastState"] = {"terminated": {"exitCode": 137, "reason": "Error"}}
    return made


def _init(pod: KubeObject, plan: PodPlan) -> KubeObject:
    name = (pod["spec"].get("initContainers") or [{"name": "model"}])[0]["name"]
    waiting = {"reason": "CrashLoopBackOff", "message": f"back-off 20s restarting failed container={name}"}
    return {
        "name": name,
        "ready": False,
        "restartCount": 2,
        "state": {"waiting": waiting},
        "lastState": {"terminated": _ended(plan)},
    }


def _ended(plan: PodPlan) -> KubeObject:
    ended: KubeObject = {"exitCode": plan.exit_code, "reason": "Error"}
    return {**ended, "message": plan.message} if plan.message else ended
