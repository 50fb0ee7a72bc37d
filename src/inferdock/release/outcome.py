"""How a step can end other than by being done. Raised inside this room only; the runner turns each into a state."""

from __future__ import annotations

from inferdock.release.machine import Trigger
from inferdock.release.records.mailbox import Request


class StepFailedError(Exception):
    """The step cannot be done, or showed that the new revision is not good enough: the release goes back."""


class UnsureError(Exception):
    """Nobody can tell whether the step may be left: the release pauses."""


class AskedError(Exception):
    """A command came in that changes the release's state."""

    def __init__(self, request: Request, trigger: Trigger) -> None:
        super().__init__(request.wish)
        self.request = request
        self.trigger = trigger
