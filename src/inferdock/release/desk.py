"""Where people's commands go: to the runner that is at work, or, where none is, to one that is made for them.

Used by the command line. A release is begun here, too: one at a time on a platform, under its lease.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from inferdock.domain.errors import ConflictError, UnreachableError
from inferdock.release.clock import Clock
from inferdock.release.events import Event, Refused
from inferdock.release.plan import Plan
from inferdock.release.progress import Progress
from inferdock.release.records.journal import By, Journal, Journals
from inferdock.release.records.lease import Lease
from inferdock.release.records.mailbox import Mailbox, Request
from inferdock.release.runner import Runner

POLL_S: Final = 0.1
"""Between two looks for an answer."""
ANSWER_S: Final = 30.0
"""A runner looks at commands at least every few seconds, so by then it has answered or is stuck."""

MakePlan = Callable[[], Awaitable[Plan]]
MakeMailbox = Callable[[str], Mailbox]
"""The commands for a release, by its id."""
MakeRunner = Callable[[Journal, Mailbox], Runner]
"""Puts a runner together from the platform's parts, the gates and so on."""


class Desk:
    """Begins releases and gives them commands.

    Args:
        journals: all releases of the platform.
        lease: of the platform.
        mailbox: says where commands for a release go.
        clock: time.
        make_runner: makes the runner of a journal.
        holder: who holds the lease while we do, for the others.
    """

    def __init__(
        self,
        *,
        journals: Journals,
        lease: Lease,
        mailbox: MakeMailbox,
        clock: Clock,
        make_runner: MakeRunner,
        holder: str,
    ) -> None:
        self._journals = journals
        self.mailbox = mailbox
        self._lease = lease
        self._clock = clock
        self._make_runner = make_runner
        self._holder = holder

    async def start(self, draft: MakePlan, by: By, *, reason: str = "") -> Progress:
        """Begin a release and run it until it is over, paused or stuck.

        Args:
            draft: makes the plan. Called under the lease, so that what it looks at is not changed meanwhile.
            by: who wants it.
            reason: why.

        Raises:
            ConflictError: another one is not over, or is being worked on.
        """
        await self._lease.acquire(self._holder, patient=True)
        try:
            if (open_one := await self._journals.unfinished()) is not None:
                raise ConflictError(
                    f"Release {open_one.plan.id} is {open_one.state}, and there is one at a time.",
                    cure="Resume, promote or abort it first.",
                )
            plan = await draft()
            journal = await self._journals.create(plan, by, self._clock.now(), reason=reason)
            try:
                return await self._make_runner(journal, self.mailbox(plan.id)).run()
            finally:
                await journal.close()
        finally:
            await self._lease.release()

    async def command(self, release: str, request: Request) -> Progress:
        """Have a command followed.

        By the runner that is at work: then this returns as soon as that has taken it. Where none is at work, by one of
        our own, which then runs on until the release is over, paused or stuck.

        Raises:
            RegistryError: there is no such release.
            ConflictError: the release as it stands cannot follow it.
            UnreachableError: the runner that is at work does not answer.
        """
        await self._journals.events(release)
        mailbox, posted = self.mailbox(release), False
        end = self._clock.monotonic() + ANSWER_S
        while True:
            try:
                await self._lease.acquire(self._holder)
            except ConflictError as exc:
                busy = exc
            else:
                return await self._follow(release, request, mailbox)
            if not posted:
                await mailbox.post(request)
                posted = True
            progress = await self._journals.progress(release)
            if (answer := progress.answered.get(request.id)) is not None:
                return _answered(answer, progress)
            if self._clock.monotonic() >= end:
                await mailbox.remove(request)
                raise UnreachableError(
                    f"No answer to `{request.wish}` within {ANSWER_S:g} s. {busy.message}",
                    cure="Look whether that process is alive; with it gone, the command works by itself.",
                )
            await self._clock.sleep(POLL_S)

    async def _follow(self, release: str, request: Request, mailbox: Mailbox) -> Progress:
        """Under the lease: no runner is at work, or it ended just now and may have answered."""
        try:
            journal = await self._journals.open(release)
            try:
                await mailbox.remove(request)
                if (answer := journal.progress.answered.get(request.id)) is not None:
                    return _answered(answer, journal.progress)
                return await self._make_runner(journal, mailbox).ask(request)
            finally:
                await journal.close()
        finally:
            await self._lease.release()


def _answered(answer: Event, progress: Progress) -> Progress:
    if isinstance(answer.entry, Refused):
        raise ConflictError(answer.reason, cure="Look at `inferdock release status`.")
    return progress
