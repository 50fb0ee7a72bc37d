"""The right to write the files of one version, for as long as it is renewed.

It ends by itself when its holder dies, or sleeps too long; then the next push takes it over. Whoever holds it asks
:meth:`Claim.check` before each write. That another machine's clock is wrong does no harm: times are those of the
database (`table`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from inferdock.domain.errors import ConflictError, InferdockError

LEASE_S: Final = 60.0
"""How long a claim lasts without being renewed."""
RENEW_S: Final = 20.0
"""Between two renewals: two may fail before the claim ends."""


class Renewable(Protocol):
    """A claim as the table knows it."""

    def renew(self) -> bool:
        """Let it last longer; False when somebody else has it."""
        ...

    def release(self) -> None:
        """End it; what stands of it says whose files were left."""
        ...


def awake_clock() -> float:
    """Seconds that also pass while the machine sleeps, where the system can tell."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Claim:
    """Renews a claim in a thread of its own until it is closed.

    Args:
        held: the claim, just taken.
        what: the version, as messages call it.
        asked: when it was asked for, by ``clock``; None: now.
        lease_s, renew_s: seconds that it lasts, and between renewals.
        clock: seconds.
    """

    def __init__(
        self,
        held: Renewable,
        what: str,
        *,
        asked: float | None = None,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        clock: Callable[[], float] = awake_clock,
    ) -> None:
        self._held = held
        self._what = what
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._clock = clock
        self._until = (clock() if asked is None else asked) + lease_s
        self._lost = False
        self._used_up = False
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="registry-claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Go on only while the version is ours.

        Raises:
            ConflictError: somebody took it over.
            UnreachableError: it ended, and the table cannot be asked whether somebody did.
        """
        if not self._lost and self._clock() >= self._until:  # a sleep, or no network for a while
            with self._lock:
                self._renew()
        if self._lost:
            raise lost(self._what)

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Without a renewal meanwhile, which would be in the way of a transaction."""
        self.check()
        with self._lock:
            yield

    def use_up(self) -> None:
        """It was given for the version's record, and is no more."""
        self._used_up = True

    def close(self) -> None:
        """End it, unless it was lost or used up."""
        self._end.set()
        self._thread.join(1)
        if not self._lost and not self._used_up:
            with contextlib.suppress(InferdockError):  # then it ends by itself
                self._held.release()

    def _keep(self) -> None:
        while not self._end.wait(self._renew_s):
            with self._lock, contextlib.suppress(InferdockError):  # tried again at the next turn, or by `check`
                if self._used_up or self._lost:
                    return
                self._renew()

    def _renew(self) -> None:
        asked = self._clock()
        if self._held.renew():
            self._until = asked + self._lease_s
        else:
            self._lost = True


def lost(what: str) -> ConflictError:
    """Somebody else has the claim."""
    return ConflictError(
        f"Another push of {what} took over from this one, which was silent for too long.",
        cure="Run the command again: it goes on from what is there.",
    )
