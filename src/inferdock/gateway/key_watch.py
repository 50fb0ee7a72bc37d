"""Keeps the keys of a running gateway as the key file has them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from inferdock.domain.errors import ConfigError
from inferdock.gateway.auth import Authenticator, Stamped
from inferdock.telemetry.logs import EventLog

if TYPE_CHECKING:
    from inferdock.config.settings import KeysSettings


class KeyWatch:
    """Looks at the key file every few seconds; a file that cannot be used leaves the keys as they were.

    Attributes:
        auth: who asks it gets the newest keys.
        settings: may be replaced at any time; how keys are checked is decided at the start.
    """

    def __init__(self, settings: KeysSettings, source: Stamped, log: EventLog) -> None:
        self.settings = settings
        self.auth = Authenticator(check=settings.check)
        self._source = source
        self._log = log
        self._problem = ""

    def load(self) -> None:
        """Read the keys for the first time.

        Raises:
            ConfigError: the file cannot be used, and without it anybody would be served.
        """
        if self.settings.check == "never":
            return
        try:
            self.auth.refresh(self._source)
        except ConfigError as exc:
            if not self.auth.enabled:
                raise
            self._complain(exc)  # nobody gets in until it can be used

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self.settings.reload_interval_s)
            self.look()

    def look(self) -> None:
        """Read the keys if the file has changed."""
        if self.settings.check == "never":
            return
        try:
            if self.auth.refresh(self._source):
                self._log.event("info", "keys read")
            self._problem = ""
        except ConfigError as exc:
            self._complain(exc)

    def _complain(self, exc: ConfigError) -> None:
        """Once per problem, not once per look."""
        if str(exc) != self._problem:
            self._problem = str(exc)
            self._log.event("error", "keys not read", reason=self._problem)
