"""Task files: what both sides are asked, and how answers are checked. JSONL, one task a line.

A file comes from outside: it is read line by line with bounds, and a wrong line is named with its number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec

from inferdock.domain.errors import ConfigError

MAX_LINE: Final = 1 << 20
"""Bytes of one line. A prompt of a million characters is no question any more."""
MAX_BYTES: Final = 256 << 20
"""Bytes of a file: all tasks are held in memory."""
MAX_TASKS: Final = 10_000
"""Beyond this a bootstrap says nothing new, and the answers would fill the memory."""
MAX_GROUPS: Final = 50
"""Each group has its own intervals, and seconds of work."""
MAX_PATTERN: Final = 1_000
"""Characters of a regular expression."""
DEMO: Final = Path(__file__).with_name("demo_tasks.jsonl")
"""The set of the demo model, written by ``python -m scripts.demo_model.eval_tasks``."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Group = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
_Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATTERN)]
_Tokens = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class Exact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="exact"):
    """The answer equals ``value`` (the task's reference without one) but for white space at the ends."""

    value: str | None = None
    ignore_case: bool = False


class Contains(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="contains"):
    """The answer contains ``value``."""

    value: Annotated[str, msgspec.Meta(min_length=1)]
    ignore_case: bool = False


class Regex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="regex"):
    """The pattern is found in the answer."""

    pattern: _Pattern
    ignore_case: bool = False


Check = Exact | Contains | Regex


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: _Name
    content: str


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question.

    Attributes:
        id: unique in its file.
        messages: a conversation for ``/v1/chat/completions``.
        prompt: a text for ``/v1/completions``; a task has one of the two.
        reference: the right answer, if there is one.
        checks: what a right answer must meet.
        group: tasks that can also be judged by themselves.
        max_tokens: longest answer.
    """

    id: _Name
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    reference: str | None = None
    checks: tuple[Check, ...] = ()
    group: _Group | None = None
    max_tokens: _Tokens = 256

    def __post_init__(self) -> None:
        """Refuse what the types allow and nobody can mean."""
        if bool(self.messages) == bool(self.prompt):
            raise ValueError("a task has either `messages` or `prompt`, and it is not empty")
        if any(isinstance(check, Exact) and check.value is None for check in self.checks) and self.reference is None:
            raise ValueError("an `exact` check without a `value` needs a `reference`")

    @property
    def question(self) -> str:
        """What is asked, for people: the last turn of a conversation."""
        return self.messages[-1].content if self.messages else self.prompt or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSet:
    """Tasks and where they came from.

    Attributes:
        name: file name.
        digest: SHA-256 of the file, in hex: a verdict names what it was reached on.
        tasks: at least one.
    """

    name: str
    digest: str
    tasks: tuple[Task, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups in order of the alphabet."""
        return tuple(sorted({task.group for task in self.tasks if task.group}))


def read_tasks(path: Path) -> TaskSet:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, holds no task or too many, or a line is wrong; names file and line.
    """
    digest = hashlib.sha256()
    tasks: dict[str, Task] = {}
    try:
        with path.open("rb") as file:
            for number, line in _lines(file, path.name):
                digest.update(line)
                if not line.strip():
                    continue
                task = _task(line, f"{path.name}, line {number}")
                if task.id in tasks:
                    raise ConfigError(f"{path.name}, line {number}: the id {task.id!r} was there before.")
                tasks[task.id] = task
                if len(tasks) > MAX_TASKS:
                    raise ConfigError(f"{path.name} has more than {MAX_TASKS:,} tasks.", cure="Draw a sample of them.")
    except OSError as exc:
        raise ConfigError(f"Cannot read the tasks {path}: {exc.strerror}.") from exc
    if not tasks:
        raise ConfigError(f"{path.name} has no tasks.", cure="Write one JSON object a line, with `id` and `messages`.")
    found = TaskSet(name=path.name, digest=digest.hexdigest(), tasks=tuple(tasks.values()))
    if len(found.groups) > MAX_GROUPS:
        raise ConfigError(f"{path.name} has more than {MAX_GROUPS} groups.", cure="Give fewer, larger groups.")
    return found


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; reads no more of a line than its limit."""
    number = total = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        total += len(line)
        if len(line) > MAX_LINE:
            raise ConfigError(f"{name}, line {number} is longer than {MAX_LINE >> 20} MiB.", cure="Is it JSONL?")
        if total > MAX_BYTES:
            raise ConfigError(f"{name} is larger than {MAX_BYTES >> 20} MiB.", cure="Draw a sample of its tasks.")
        yield number, line


def _task(line: bytes, where: str) -> Task:
    try:
        return msgspec.json.decode(line, type=Task)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(
            f"{where} is no task: {_shortened(exc)}.", cure="docs/evaluation.md shows what a task looks like."
        ) from exc


def _shortened(exc: Exception) -> str:
    """The reason in one line; msgspec quotes what it found."""
    text = " ".join(str(exc).split()).rstrip(".")
    return text if len(text) <= 300 else text[:297] + "..."
