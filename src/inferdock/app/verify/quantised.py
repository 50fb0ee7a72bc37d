"""Quantised versions in the target's registry: how much smaller they are, and how one does that is served."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from inferdock.app.verify import releases
from inferdock.app.verify.commands import inferdock_json
from inferdock.app.verify.figures import ready_rows, status
from inferdock.app.verify.ground import LackingError, verdict
from inferdock.app.verify.target import Target
from inferdock.domain.verdict import Verdict
from inferdock.verify.check import Evidence

LEAST_SAVED: Final = 0.40
MOST_GIB: Final = 12.0
QUALITY: Final = "quality"
_LOADED: Final = re.compile(r"Model loading took ([0-9.]+) Gi?B")
NONE_PUSHED: Final = "Needs a quantised version in the registry: `inferdock model quantize`, or push one."
NOT_SERVED: Final = "Needs a target that serves a quantised version: `inferdock up --model NAME@VERSION`."
_DIGITS: Final = 12


async def smaller(target: Target) -> Evidence:
    """The weights of a quantised version are smaller than those it was made from, by the plan's share."""
    versions = await _versions(target)
    parents = {one["revision"]: one for one in versions}
    pairs = [
        (one, parents[made["revision"]])
        for one in versions
        if (made := _made_from(one)) and made["revision"] in parents
    ]
    if not pairs:
        raise LackingError(NONE_PUSHED)
    saved = {f"{one['name']}@{one['version']}": 1 - _weights(one) / _weights(parent) for one, parent in pairs}
    name, least = min(saved.items(), key=lambda entry: entry[1])
    sentence = f"{len(saved)} quantised versions; the weights of {name} are {least:.0%} smaller than before."
    return verdict(least >= LEAST_SAVED, sentence, f"inferdock model show {name}", saved_ratio=least)


async def answers(target: Target) -> Evidence:
    """A quantised version loads, and answers."""
    served = await _served(target)
    body = {"model": target.model, "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]}
    async with target.http.post(f"{target.url}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        said = await answer.json()
    text = said["choices"][0]["message"]["content"]
    method = served["content"]["facts"]["quantization"]["method"]
    return verdict(bool(text), f"{served['name']}@{served['version']} ({method}) answered {text!r}.")


async def memory(target: Target) -> Evidence:
    """The engine's own word on what the weights take on the card."""
    await _served(target)
    logs = [Path(str(one["log"])) for one in releases.place(target)[1]["replicas"]]
    found = [
        float(number) for log in logs for number in _LOADED.findall(log.read_text(encoding="utf-8", errors="replace"))
    ]
    if not found:
        return verdict(False, "No engine's log says how much memory the model took.")
    sentence = f"The model took {max(found):g} GiB of the card."
    return verdict(max(found) < MOST_GIB, sentence, f"grep 'Model loading took' {logs[0].name}", gib=max(found))


async def as_good(target: Target) -> Evidence:
    """The quality gate of the release that brought a quantised version."""
    quantised = {one["revision"][:_DIGITS] for one in await _versions(target) if _is_quantised(one)}
    for progress in reversed(await releases.kept(target)):
        judged = releases.verdicts(progress, QUALITY)
        if progress.plan.to.revision.rpartition("-")[2] in quantised and judged:
            said = judged[-1].verdict
            sentence = f"The quality gate said {said} of {progress.plan.to.reference} against what served before."
            return verdict(said is Verdict.PASS, sentence, f"inferdock release history {progress.plan.id}")
    raise LackingError("Needs a quantised version that was released here with `inferdock release start --tasks FILE`.")


async def _served(target: Target) -> Mapping[str, Any]:
    """The manifest of the quantised version that answers; LackingError where none does."""
    digits = {str(row["revision"]).rpartition("-")[2] for row in ready_rows(await status(target), target.model)}
    for one in await _versions(target):
        if _is_quantised(one) and one["revision"][:_DIGITS] in digits:
            return one
    raise LackingError(NOT_SERVED)


async def _versions(target: Target) -> list[Mapping[str, Any]]:
    """Manifests of all versions in the target's registry."""
    config = target.state.with_name("gateway.yaml") if target.state is not None else None
    words = ("-f", config) if config is not None else ()
    models = [model["name"] for model in await inferdock_json("model", "list", *words)]
    listed = {name: await inferdock_json("model", "list", name, *words) for name in models}
    names = [f"{name}@{version['version']}" for name, versions in listed.items() for version in versions]
    return [await inferdock_json("model", "show", name, *words) for name in names]


def _made_from(one: Mapping[str, Any]) -> Mapping[str, Any] | None:
    made: Mapping[str, Any] | None = one["provenance"].get("made_from")
    return made


def _is_quantised(one: Mapping[str, Any]) -> bool:
    return bool(one["content"]["facts"]["quantization"])


def _weights(one: Mapping[str, Any]) -> int:
    return int(one["content"]["facts"]["weight_bytes"])
