"""What a platform says of the room that it has: how many more replicas could start now, and why so many. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_UNLIMITED = "Neither main memory nor GPUs limit how many replicas of this engine start here."


def room(limits: Iterable[tuple[int, str] | None], *, kept: int, leaving: int) -> dict[str, Any]:
    """What ``GET /room`` shows.

    Args:
        limits: how many more fit, and the reason; None: that does not limit them.
        kept: replicas of the revision that are being taken away, but still serve: they may stay.
        leaving: replicas of any revision that stop, and hold what they have until they are gone.
    """
    known = [limit for limit in limits if limit is not None]
    if not known:
        return {"replicas": None, "reason": _UNLIMITED}
    replicas, reason = min(known)
    if kept:
        reason = f"{reason}; {kept} of it are being taken away and may stay"
    if leaving:
        reason = f"{reason}; {leaving} replica(s) are stopping, and what they hold is free when they are gone"
    return {"replicas": replicas + kept, "reason": f"{reason}."}
