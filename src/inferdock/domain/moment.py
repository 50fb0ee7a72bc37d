"""Times as histories, manifests and journals spell them: UTC with milliseconds, of fixed width.

The order of the texts is that of the times.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

PATTERN: Final = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z\Z"
"""What :func:`spell` writes."""


def spell(moment: datetime) -> str:
    """A time as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def unspell(text: str) -> datetime:
    """The time that :func:`spell` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
