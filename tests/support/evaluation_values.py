"""Made-up tasks, answers and sets for tests of the evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inferdock.evaluation.answers import Answer
from inferdock.evaluation.metrics import Outcome
from inferdock.evaluation.tasks import Exact, Message, Task, TaskSet

RIGHT = "the small ship sails to the north at night"


def task(name: str = "one", **changes: Any) -> Task:
    """A question with one right answer."""
    fields: dict[str, Any] = {
        "id": name,
        "messages": (Message(role="user", content=f"Where does the ship of {name} sail?"),),
        "reference": RIGHT,
        "checks": (Exact(),),
    }
    return Task(**(fields | changes))


def outcome(before: str = RIGHT, after: str = RIGHT, *, name: str = "one", **changes: Any) -> Outcome:
    """What the two sides said to a task."""
    fields: dict[str, Any] = {"task": task(name), "champion": Answer(text=before), "candidate": Answer(text=after)}
    return Outcome(**(fields | changes))


def task_set(*tasks: Task) -> TaskSet:
    """Tasks as if from a file."""
    return TaskSet(name="made-up.jsonl", digest="0" * 64, tasks=tasks)


def task_file(folder: Path, *lines: dict[str, Any] | str | bytes) -> Path:
    """A file with these lines: objects become JSON."""
    path = folder / "tasks.jsonl"
    raw = [line if isinstance(line, str | bytes) else json.dumps(line) for line in lines]
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in raw))
    return path
