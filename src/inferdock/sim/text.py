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

    __slots__ = ("_decoder", "_held", "_keep_stop", "_longest", "_stops", "stopped_by")

    def __init__(self, stops: Sequence[str] = (), *, keep_stop: bool = False) -> None:
        """``keep_stop``: the text includes the stop string that ends it, so nothing needs to be held back."""
        self._keep_stop = keep_stop
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
        if self._keep_stop:
            return self._with_stop(fresh, may_stop=may_stop)
        text = self._held + fresh
        end, self.stopped_by = self._first_stop(text, len(self._held)) if may_stop else (0, None)
        if self.stopped_by is not None:
            self._held = ""
            return text[: end - len(self.stopped_by)]
        certain = max(0, len(text) - self._longest)
        self._held = text[certain:]
        return text[:certain]

    def _with_stop(self, fresh: str, *, may_stop: bool) -> str:
        """``_held`` is text that is out already, in which a stop string may have begun."""
        text = self._held + fresh
        out = len(self._held)
        end, self.stopped_by = self._first_stop(text, out) if may_stop else (0, None)
        self._held = text[max(0, len(text) - self._longest) :] if self._longest else ""
        return fresh if self.stopped_by is None else text[out:end]

    def _first_stop(self, text: str, old: int) -> tuple[int, str | None]:
        """The stop string that is complete first behind ``old`` characters, and where it ends, as in vLLM."""
        places = [(text.find(stop, max(0, old - len(stop) + 1)), stop) for stop in self._stops]
        return min(((place + len(stop), stop) for place, stop in places if place >= 0), default=(0, None))

    def rest(self) -> str:
        """What was held back, once, when the answer ends by other means than a stop string."""
        text = ("" if self._keep_stop else self._held) + self._decoder.decode(b"", final=True)
        self._held = ""
        return text
