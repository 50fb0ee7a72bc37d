"""The workflow that releases a model: what must hold in it, and the commands of ours that it runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(".github", "workflows", "model-release.yaml")
_PIN: Final = re.compile(r"[\w./-]+@[0-9a-f]{40}")
_OURS: Final = re.compile(r"(?:^|[\s(])inferdock ([^|\n&)]*)", re.MULTILINE)
Workflow = Mapping[Any, Any]


def read(checkout: Path) -> Workflow:
    """The workflow of a checkout."""
    document: Workflow = yaml.safe_load((checkout / FILE).read_text(encoding="utf-8"))
    return document


def steps(workflow: Workflow, job: str | None = None) -> Iterator[Mapping[str, Any]]:
    """Steps of a job, or of all."""
    for name, one in workflow["jobs"].items():
        if job in (None, name):
            yield from one["steps"]


def script(workflow: Workflow, job: str | None = None) -> str:
    """All that a job runs, in order."""
    return "\n".join(step["run"] for step in steps(workflow, job) if "run" in step)


def trigger_faults(workflow: Workflow) -> list[str]:
    """Whether a tag of a model starts it, and nothing that a stranger can do."""
    begins = workflow.get("on", workflow.get(True))  # YAML 1.1 reads `on` as true
    tags = begins.get("push", {}).get("tags", []) if isinstance(begins, dict) else []
    faults = [] if "model-v*" in tags else ["A tag model-v1.1.0 does not start it."]
    if not isinstance(begins, dict) or set(begins) - {"push", "workflow_dispatch"}:
        faults.append(f"It is started by more than tags: {begins}.")
    return faults


def pin_faults(workflow: Workflow) -> list[str]:
    """Actions that are not named by a commit."""
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    return [f"{one} is not pinned to a commit." for one in used if not _PIN.fullmatch(one)]


def image_faults(workflow: Workflow) -> list[str]:
    """Whether an image is built and pushed once, and is named by its digest from there on."""
    made = script(workflow)
    faults = []
    if made.count("scripts.build_images engine") != 1 or "--push" not in made:
        faults.append("The engine's image is not built and pushed exactly once.")
    if "containerimage.digest" not in made or "--image" not in made:
        faults.append("The version does not name its image by digest.")
    return faults


def order_faults(workflow: Workflow) -> list[str]:
    """Whether staging comes before production, each by a gated release, and what fails is taken back."""
    jobs, faults = workflow["jobs"], []
    missing = [name for name in ("build", "staging", "production") if name not in jobs]
    if missing:
        return [f"There is no job {name}." for name in missing]
    if "staging" not in _needs(jobs["production"]) or "build" not in _needs(jobs["staging"]):
        faults.append("Production does not wait for staging, or staging not for the build.")
    for name in ("staging", "production"):
        text = script(workflow, name)
        begun, taken_back = text.find("inferdock release start"), text.find("inferdock release abort")
        if begun < 0:
            faults.append(f"The job {name} makes no release.")
        if taken_back < begun:
            faults.append(f"The job {name} does not take back what fails.")
        if jobs[name].get("environment") != name:
            faults.append(f"The job {name} has no environment of that name, so nobody can be asked.")
    return faults


def _needs(job: Mapping[str, Any]) -> list[str]:
    found = job.get("needs") or []
    return [found] if isinstance(found, str) else list(found)


def commands(text: str) -> list[tuple[tuple[str, ...], frozenset[str]]]:
    """Commands of `inferdock` in a script: the words before the first argument or option, and the options."""
    found = []
    for line in _OURS.findall(text.replace("\\\n", " ")):
        words = shlex.split(re.sub(r"[0-9]?>.*", "", line))
        options = frozenset(word.partition("=")[0] for word in words if word.startswith("--"))
        group = words[:2] if words[:1] in (["model"], ["release"], ["cache"], ["keys"], ["config"]) else words[:1]
        found.append((tuple(group), options))
    return found
