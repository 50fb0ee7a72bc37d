"""The gates of a release: digests, health, smoke test by the OpenAI client, quality against what serves.

Each is a `release.gate.Gate`. What cannot be looked at (nobody answers, a package is missing) is inconclusive: the
release pauses, and nothing is guessed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from inferdock.domain.errors import ConfigError, InferdockError, IntegrityError, RegistryError, UnreachableError
from inferdock.domain.verdict import Verdict
from inferdock.evaluation.client import Endpoint
from inferdock.evaluation.evaluate import How, evaluate
from inferdock.evaluation.limits import Rules
from inferdock.evaluation.report import Report, spell_finding, spell_sizes
from inferdock.evaluation.tasks import TaskSet
from inferdock.registry.names import Reference
from inferdock.registry.progress import Silent
from inferdock.registry.registry import Registry
from inferdock.registry.verify import verify
from inferdock.release.clock import Clock, SystemClock
from inferdock.release.judging.analysis import needed
from inferdock.release.judging.figures import NOTHING, Counts, Meter, Shadows, since
from inferdock.release.judging.gate import SHADOW, Context, Finding, Gate
from inferdock.release.judging.shadow import judge_copies
from inferdock.release.plan import Plan
from inferdock.release.plan_text import counted
from inferdock.release.steps import Limits, Shadow, Target

REQUEST_S: Final = 120.0
SHADOW_POLL_S: Final = 2.0
MAX_TOKENS: Final = 16
QUESTION: Final = "What is Inferdock?"
SCHEMA: Final = {"type": "string", "enum": ["ready", "not ready"]}
"""A choice, not an object: between the parts of an object a small model may write blanks without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestGate:
    """Every byte in the registry is the one that was pushed."""

    registry: Registry

    async def check(self, target: Target, context: Context) -> Finding:
        """See `release.gate.Gate`."""
        return await asyncio.to_thread(self._look, target)

    def _look(self, target: Target) -> Finding:
        try:
            version = self.registry.version(Reference.parse(target.reference))
            faults = verify(self.registry, version, Silent())
        except (IntegrityError, RegistryError) as exc:
            return Finding(verdict=Verdict.FAIL, reason=exc.message)
        except UnreachableError as exc:
            return Finding(verdict=Verdict.INCONCLUSIVE, reason=exc.message)
        evidence = {
            "revision": version.manifest.revision,
            "files": len(version.manifest.content.files),
            "signed_by": list(version.signed_by),
            "faults": {fault.path: fault.fault for fault in faults[:20]},
        }
        if faults:
            reason = f"{faults[0].path} of {version} {faults[0].fault}."
            return Finding(verdict=Verdict.FAIL, reason=reason, evidence=evidence)
        reason = f"All {evidence['files']} files of {version} are what was pushed."
        return Finding(verdict=Verdict.PASS, reason=reason, evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthGate:
    """Every ready replica says that it is healthy and answers one real request."""

    async def check(self, target: Target, context: Context) -> Finding:
        """See `release.gate.Gate`."""
        if not context.addresses:
            return Finding(verdict=Verdict.INCONCLUSIVE, reason=f"No replica of {target.reference} is ready.")
        timeout = aiohttp.ClientTimeout(total=REQUEST_S)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            found = {url: await _health(http, url, context.model) for url in context.addresses}
        bad = {url: trouble for url, trouble in found.items() if trouble}
        if bad:
            url, trouble = next(iter(bad.items()))
            return Finding(verdict=Verdict.FAIL, reason=f"{url} {trouble}.", evidence={"replicas": found})
        reason = f"{counted(len(found))} {'is' if len(found) == 1 else 'are'} healthy and answered a request."
        return Finding(verdict=Verdict.PASS, reason=reason, evidence={"replicas": found})


async def _health(http: aiohttp.ClientSession, url: str, model: str) -> str:
    """What is wrong with a replica, "" when nothing is."""
    body = {"model": model, "prompt": QUESTION, "max_tokens": 1, "temperature": 0}
    try:
        async with http.get(f"{url}/health") as response:
            if response.status != 200:
                return f"says {response.status} at /health"
        async with http.post(f"{url}/v1/completions", json=body) as response:
            answer = await response.json()
            if response.status != 200 or not answer["choices"]:
                return f"answered a request with {response.status}"
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as exc:
        return f"does not answer ({type(exc).__name__})"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeGate:
    """The official OpenAI client gets what it expects: models, chat, completion, stream, structured output."""

    async def check(self, target: Target, context: Context) -> Finding:
        """See `release.gate.Gate`."""
        if not context.addresses:
            return Finding(verdict=Verdict.INCONCLUSIVE, reason=f"No replica of {target.reference} is ready.")
        try:
            openai = importlib.import_module("openai")
        except ModuleNotFoundError:
            reason = "The OpenAI client is not installed here (pip install openai)."
            return Finding(verdict=Verdict.INCONCLUSIVE, reason=reason)
        url = f"{context.addresses[0]}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", timeout=REQUEST_S, max_retries=0) as client:
            found = {name: await tried(step, client, context.model) for name, step in SMOKE.items()}
        bad = {name: trouble for name, trouble in found.items() if trouble}
        evidence = {"client": f"openai {openai.__version__}", "steps": found}
        if bad:
            name, trouble = next(iter(bad.items()))
            return Finding(verdict=Verdict.FAIL, reason=f"{name}: {trouble}", evidence=evidence)
        return Finding(verdict=Verdict.PASS, reason=f"The client's {len(found)} calls work.", evidence=evidence)


async def tried(step: Callable[[Any, str], Awaitable[str]], client: Any, model: str) -> str:
    """What is wrong with a call by the OpenAI client, "" when nothing is."""
    try:
        return await step(client, model)
    except Exception as exc:  # whatever a client's user would see
        return f"{type(exc).__name__}: {str(exc)[:300]}"


async def _models(client: Any, model: str) -> str:
    listed = [entry.id async for entry in client.models.list()]
    return "" if model in listed else f"`{model}` is not among the models {listed[:5]}"


async def _chat(client: Any, model: str) -> str:
    answer = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=MAX_TOKENS, temperature=0
    )
    return "" if answer.choices[0].message.content and answer.usage.completion_tokens else "the answer is empty"


async def _completion(client: Any, model: str) -> str:
    answer = await client.completions.create(model=model, prompt=QUESTION, max_tokens=MAX_TOKENS, temperature=0)
    return "" if answer.choices and answer.usage.completion_tokens else "the answer is empty"


async def _stream(client: Any, model: str) -> str:
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=MAX_TOKENS,
        temperature=0,
        stream=True,
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    ended = any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks)
    return "" if text and ended else "the stream is empty or does not end"


async def _structured(client: Any, model: str) -> str:
    answer = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": f"{QUESTION} Answer as JSON."}],
        max_tokens=MAX_TOKENS,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}},
    )
    text = answer.choices[0].message.content or ""
    try:
        return "" if json.loads(text) in SCHEMA["enum"] else f"the answer does not keep to the schema: {text[:100]!r}"
    except (ValueError, TypeError):
        return f"the answer is not the JSON that was asked for: {text[:100]!r}"


SMOKE: Final = {
    "models": _models,
    "chat": _chat,
    "completion": _completion,
    "stream": _stream,
    "structured output": _structured,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityGate:
    """The new revision answers tasks as well as the one that serves (`inferdock eval`).

    Attributes:
        tasks: what both are asked.
        rules: limits.
        keep: is given the whole report, for people.
        registry: knows how large the weights are; None: the report does not say.
    """

    tasks: TaskSet
    rules: Rules
    keep: Callable[[str, Report], str] = lambda release, report: ""
    registry: Registry | None = None

    async def check(self, target: Target, context: Context) -> Finding:
        """See `release.gate.Gate`."""
        if context.stable is None:
            return Finding(verdict=Verdict.PASS, reason="Nothing serves yet that it could be compared with.")
        if not context.addresses or not context.stable_addresses:
            return Finding(verdict=Verdict.INCONCLUSIVE, reason="One of the two revisions has no ready replica.")
        champion, candidate = [
            Endpoint(
                base_urls=tuple(f"{url}/v1" for url in urls),
                model=context.model,
                weight_bytes=await asyncio.to_thread(self._weight_bytes, side.reference),
            )
            for urls, side in ((context.stable_addresses, context.stable), (context.addresses, target))
        ]
        try:
            report = await evaluate(champion, candidate, self.tasks, self.rules, how=How())
        except (UnreachableError, ConfigError) as exc:
            return Finding(verdict=Verdict.INCONCLUSIVE, reason=str(exc))
        worst = [finding for finding in report.findings if finding.verdict is report.verdict]
        reason = "; ".join(spell_finding(finding) for finding in worst[:3]) or f"{report.compared} tasks compared"
        document = report.document()
        evidence = {
            "tasks": report.tasks_name,
            "compared": report.compared,
            "changed": report.changed,
            "findings": [f"{finding.verdict}: {spell_finding(finding)}" for finding in report.findings],
            "sizes": spell_sizes(report),
            "examples": document.get("examples", [])[:3],
            "report": await asyncio.to_thread(self.keep, context.release, report),
        }
        return Finding(verdict=report.verdict, reason=reason, evidence=evidence)

    def _weight_bytes(self, reference: str) -> int | None:
        """Of a version's weight files; None for what is not in the registry, or when it does not answer just now."""
        if self.registry is None:
            return None
        try:
            return self.registry.version(Reference.parse(reference)).manifest.content.facts.weight_bytes
        except InferdockError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowGate:
    """Copies of what clients ask are answered in time, without failures, and where that is wanted alike.

    Waits until there are enough copies or the time is over. Asked again, it looks at new ones.

    Attributes:
        wanted: how long, how many, and what may differ.
        limits: of failures and times.
        meter: counts copies.
        clock: time.
        say: told how far it is.
    """

    wanted: Shadow
    limits: Limits
    meter: Meter
    clock: Clock
    say: Callable[[str], None] = lambda text: None

    async def check(self, target: Target, context: Context) -> Finding:
        """See `release.gate.Gate`."""
        mark, wanted = await self.meter.read(), self.wanted
        enough = max(wanted.min_samples, needed(self.limits))
        began, look, looked_at = self.clock.monotonic(), 0, 0
        while True:
            copies, stable = self._window(mark, await self.meter.read(), target, context)
            elapsed = self.clock.monotonic() - began
            if (elapsed >= wanted.hold_s and copies.sent >= enough) or elapsed >= wanted.hold_limit_s:
                return judge_copies(copies, stable, self.limits, wanted)
            if copies.sent >= max(2 * looked_at, self.limits.min_to_fail):
                look, looked_at = look + 1, copies.sent
                early = judge_copies(copies, stable, self.limits, wanted, look=look)
                if early.verdict is Verdict.FAIL:
                    return early
            self.say(f"copying: {elapsed:.0f} of {wanted.hold_s:g} s, {copies.sent} of {enough} copies")
            await self.clock.sleep(SHADOW_POLL_S)

    def _window(
        self, mark: Mapping[str, Counts], now: Mapping[str, Counts], target: Target, context: Context
    ) -> tuple[Shadows, Counts | None]:
        new = since(mark.get(target.revision, NOTHING), now.get(target.revision, NOTHING)).shadow
        if context.stable is None:
            return new, None
        stable = context.stable.revision
        return new, since(mark.get(stable, NOTHING), now.get(stable, NOTHING))


def shadow_gate(plan: Plan, meter: Meter, say: Callable[[str], None]) -> dict[str, Gate]:
    """The gate that a plan with copies needs, by its name; none for one without.

    Args:
        plan: the release.
        meter: counts copies.
        say: told how far it is.
    """
    if plan.shadow is None:
        return {}
    gate = ShadowGate(wanted=plan.shadow, limits=plan.limits, meter=meter, clock=SystemClock(), say=say)
    return {SHADOW: gate}
