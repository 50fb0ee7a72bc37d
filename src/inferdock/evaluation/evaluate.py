"""Asks both sides every task and reaches a verdict: what the command and the release gate call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inferdock.evaluation import report
from inferdock.evaluation.bootstrap import Drawing
from inferdock.evaluation.client import Asker, Endpoint, session
from inferdock.evaluation.divergence import Divergence, diverge
from inferdock.evaluation.limits import Rules, for_groups
from inferdock.evaluation.metrics import Outcome
from inferdock.evaluation.report import Report, Side
from inferdock.evaluation.tasks import Regex, Task, TaskSet
from inferdock.evaluation.texts import Texts
from inferdock.evaluation.verdict import Finding, Measure, judge, measure, overall

ProgressSink = Callable[[int, int, int], None]
"""Tasks done, tasks in all, tasks that a side failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How the asking is done.

    Attributes:
        concurrency: tasks under way; each has a request on either side.
        timeout_s: for one request.
        logprobs: ask for log-probabilities too, where the engines give them.
        drawing: of the intervals.
    """

    concurrency: int = 8
    timeout_s: float = 120.0
    logprobs: bool = True
    drawing: Drawing = field(default_factory=Drawing)


async def evaluate(
    champion: Endpoint,
    candidate: Endpoint,
    tasks: TaskSet,
    rules: Rules,
    progress: ProgressSink | None = None,
    *,
    how: How | None = None,
) -> Report:
    """Compare a candidate with the champion.

    Raises:
        ConfigError: a limit names a group that is not there, or a task's pattern is none.
        ResourceError: the extra ``eval`` is not installed.
        UnreachableError: one of the two does not answer at all.
    """
    how = how or How()
    started = time.monotonic()
    texts = Texts()
    for_groups(rules, tasks.groups)
    _check_patterns(tasks, texts)
    async with session(how.timeout_s) as http:
        sides = Asker(http, champion), Asker(http, candidate)
        await asyncio.gather(*(side.connect() for side in sides))
        rooms = await asyncio.gather(*(side.kv_cache_tokens() for side in sides))
        outcomes = await _ask_all(tasks.tasks, *sides, progress, how)
    measures, findings, shown = await asyncio.to_thread(_conclude, outcomes, tasks, rules, texts, how)
    return Report(
        verdict=overall(findings),
        champion=_side(outcomes, champion, sides[0].model, rooms[0], champion=True),
        candidate=_side(outcomes, candidate, sides[1].model, rooms[1], champion=False),
        tasks_name=tasks.name,
        tasks_digest=tasks.digest,
        tasks=len(tasks.tasks),
        compared=sum(outcome.answered for outcome in outcomes),
        changed=sum(map(report.differs, outcomes)),
        measures=tuple(measures.values()),
        findings=tuple(findings),
        examples=shown,
        notes=tuple(_notes(outcomes, measures, rules)),
        drawing=how.drawing,
        seconds=time.monotonic() - started,
    )


def _side(outcomes: Sequence[Outcome], endpoint: Endpoint, model: str, room: int | None, *, champion: bool) -> Side:
    return report.side(
        outcomes,
        champion=champion,
        urls=endpoint.base_urls,
        model=model,
        weight_bytes=endpoint.weight_bytes,
        kv_cache_tokens=room,
    )


def _check_patterns(tasks: TaskSet, texts: Texts) -> None:
    for pattern in {check.pattern for task in tasks.tasks for check in task.checks if isinstance(check, Regex)}:
        texts.compile(pattern)


async def _ask_all(
    tasks: Sequence[Task], champion: Asker, candidate: Asker, progress: ProgressSink | None, how: How
) -> list[Outcome]:
    """Outcomes in the order of the tasks; some tasks are under way at once."""
    outcomes: dict[int, Outcome] = {}
    left = iter(enumerate(tasks))
    failed = 0

    async def work() -> None:
        nonlocal failed
        for place, task in left:
            outcomes[place] = await _ask(task, champion, candidate, logprobs=how.logprobs)
            failed += not outcomes[place].answered
            if progress is not None:
                progress(len(outcomes), len(tasks), failed)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(how.concurrency, len(tasks))):
            group.create_task(work())
    return [outcomes[place] for place in range(len(tasks))]


async def _ask(task: Task, champion: Asker, candidate: Asker, *, logprobs: bool) -> Outcome:
    before, after = await asyncio.gather(champion.answer(task), candidate.answer(task))
    found: Divergence | None = None
    if logprobs and not before.error and not after.error and before.prompt_ids == after.prompt_ids:
        found = await _diverge(before.prompt_ids, before.ids, champion, candidate)
    return Outcome(task=task, champion=before, candidate=after, divergence=found)


async def _diverge(
    prompt: tuple[int, ...], ids: tuple[int, ...], champion: Asker, candidate: Asker
) -> Divergence | None:
    """Both read the champion's answer; nothing where one does not say what it thinks of it."""
    ours, theirs = await asyncio.gather(champion.positions(prompt, ids), candidate.positions(prompt, ids))
    return diverge(ids, ours, theirs) if ours is not None and theirs is not None else None


def _conclude(
    outcomes: Sequence[Outcome], tasks: TaskSet, rules: Rules, texts: Texts, how: How
) -> tuple[dict[tuple[str, str], Measure], list[Finding], tuple[report.Example, ...]]:
    """The arithmetic; some seconds of it for thousands of tasks, so it runs beside the event loop."""
    measures = measure(outcomes, tasks.groups, texts, how.drawing)
    return measures, judge(measures, rules, tasks.groups), report.examples(outcomes, texts)


def _notes(outcomes: Sequence[Outcome], measures: dict[tuple[str, str], Measure], rules: Rules) -> list[str]:
    found: list[str] = []
    if lost := sum(bool(o.champion.error) for o in outcomes):
        found.append(f"The champion failed {lost} tasks, which do not count.")
    if lost := sum(bool(o.candidate.error) and not o.champion.error for o in outcomes):
        found.append(f"The candidate failed {lost} tasks that the champion answered.")
    if not any(("", name) in measures for name in ("exact", "contains", "regex", "bleu")):
        found.append("No task says what is right: only drift from the champion is judged.")
    if ("", "kl") not in measures:
        found.append("Log-probabilities were not compared: the engines do not give them, or the tokenizers differ.")
    if not rules.given:
        found.append("The limits are the defaults.")
    for champion, word in ((True, "champion"), (False, "candidate")):
        revisions = {(o.champion if champion else o.candidate).revision for o in outcomes} - {""}
        if len(revisions) > 1:
            found.append(f"Answers of the {word} came from {len(revisions)} revisions: the comparison is mixed.")
    return found
