"""Questions about the response cache that the parent puts to all workers, and the answers it makes one of."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from inferdock.domain.errors import RequestError, unavailable

ANSWER_S = 5.0
"""Longest wait; then those that have answered count."""

Reply = Callable[[list[bytes] | RequestError], None]


@dataclass(slots=True)
class _Open:
    missing: set[int]
    reply: Reply
    answers: list[bytes] = field(default_factory=list)
    error: RequestError | None = None


class Questions:
    """Any number at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}

    def ask(self, send: Callable[[int], set[int]], reply: Reply) -> None:
        """Put a question.

        Args:
            send: sends it with its number, and returns the ids of the workers that will answer.
            reply: gets the answers, or the error of a worker where none has answered.
        """
        number = next(self._numbers)
        question = self._open[number] = _Open(send(number), reply)
        if question.missing:
            self._loop.call_later(ANSWER_S, self._end, number)
        else:
            self._end(number)

    def came(self, worker: int, number: int, answer: bytes, error: RequestError | None) -> None:
        """A worker has answered."""
        question = self._open.get(number)
        if question is None or worker not in question.missing:
            return
        if error is None:
            question.answers.append(answer)
        else:
            question.error = error
        self._settle(worker, number, question)

    def gone(self, worker: int) -> None:
        """Nothing more is expected of a worker."""
        for number, question in list(self._open.items()):
            if worker in question.missing:
                self._settle(worker, number, question)

    def _settle(self, worker: int, number: int, question: _Open) -> None:
        question.missing.discard(worker)
        if not question.missing:
            self._end(number)

    def _end(self, number: int) -> None:
        question = self._open.pop(number, None)
        if question is None:
            return
        nobody = unavailable("No worker has answered.", code="no_worker", retry_after_s=1)
        question.reply(question.answers or question.error or nobody)
