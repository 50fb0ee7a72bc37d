"""From tokens to text, piece by piece, with stop strings. The engine feeds it as tokens come."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from inferdock.sim.language import token_bytes


class TextStream:
    """The text of one answer.

    Attributes:
        stopped_by: the stop string that ended the answer, once one has.
    """

    __slots__ = ("_decoder", "_held", "_longest", "_stops", "stopped_by")

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = stops
        self._longest = max(map(len, stops), default=1) - 1
        self._held = ""
        self.stopped_by: str | None = None

    def feed(self, token: int, *, may_stop: bool = True) -> str:
        """Text that is now certain; a beginning that may become a stop string is held back, as in vLLM."""
        fresh = self._decoder.decode(token_bytes(token))
        if not self._stops:
            return fresh
        text = self._held + fresh
        hits = [(text.find(stop), stop) for stop in self._stops if stop in text] if may_stop else []
        if hits:
            place, self.stopped_by = min(hits)
            self._held = ""
            return text[:place]
        certain = max(0, len(text) - self._longest)
        self._held = text[certain:]
        return text[:certain]

    def rest(self) -> str:
        """What was held back, once, when the answer ends by other means than a stop string."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return text
