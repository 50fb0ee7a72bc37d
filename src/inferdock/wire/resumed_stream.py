"""Turns the stream of the replica that continues an answer into the rest of the stream that the client is reading.

The client must not notice: same id, time and model in each event, same shape, no text twice, none missing, counts of
the whole answer, and a stop string is found although its beginning was generated elsewhere. See
:mod:`inferdock.wire.continuation` for the two ways of continuing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferdock.wire.openai import Usage, raw
from inferdock.wire.sse import EventSplitter, SseError
from inferdock.wire.stream_tracker import StreamTracker

_ENCODE = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


class Diverged(Exception):
    """The other replica does not continue the text that the client has."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_EVENT = msgspec.json.Decoder(_Event)


class StopGuard:
    """Looks for stop strings in the rest of an answer, the text before the cut included.

    An engine looks for them only in what it generates itself, and holds text back while it does, so that we would
    learn of a stop string that began before the cut some tokens late. So the other replica is asked to show stop
    strings, and they are found and taken out here: the one that is complete first wins, as in vLLM.
    """

    __slots__ = ("_keep_stop", "_longest", "_min_tokens", "_sent", "_stops", "_window", "found")

    def __init__(self, stops: list[str], *, keep_stop: bool, min_tokens: int, before: str, unsent: str) -> None:
        """``before``: text before the cut; ``unsent``: its end that the client has not got yet."""
        self._stops = stops
        self._min_tokens = min_tokens
        self._longest = max(map(len, stops), default=1) - 1
        self._keep_stop = keep_stop
        self._window = before[max(0, len(before) - max(self._longest, len(unsent))) :]
        self._sent = len(self._window) - len(unsent)
        self.found: str | None = None

    def feed(self, text: str, count: int, *, last: bool) -> str:
        """Take generated text; return what the client may have now. ``found`` is set when a stop string ended it.

        ``count``: tokens of the whole answer so far; below the request's ``min_tokens`` nothing ends it.
        """
        old = len(self._window)
        self._window += text
        hit = self._first_hit(old) if count > self._min_tokens else None
        if hit is not None:
            self.found, cut = hit
        elif last or self._keep_stop:
            cut = len(self._window)
        else:
            cut = max(self._sent, len(self._window) - self._longest)
        certain = self._window[self._sent : cut]
        self._sent = max(self._sent, cut)
        self._forget()
        return certain

    def _forget(self) -> None:
        """Keep only what the client lacks and what a stop string may still begin in."""
        surplus = min(self._sent, len(self._window) - self._longest)
        if surplus > 0:
            self._window = self._window[surplus:]
            self._sent -= surplus

    def _first_hit(self, old: int) -> tuple[str, int] | None:
        """The stop string that is complete first within the new text, and where the client's text ends."""
        best: tuple[str, int] | None = None
        best_end = len(self._window) + 1
        for stop in self._stops:
            place = self._window.find(stop, max(0, old - len(stop) + 1))
            if place >= 0 and place + len(stop) < best_end:
                best_end = place + len(stop)
                best = stop, best_end if self._keep_stop else place
        return best


class ResumedStream:
    """The rest of one answer.

    Attributes:
        ended: the answer is complete for the client although the replica would go on; it should be stopped.
    """

    def __init__(
        self,
        tracker: StreamTracker,
        *,
        chat: bool,
        show_usage: bool,
        running_usage: bool,
        show_ids: bool,
        guard: StopGuard | None = None,
        skip: str = "",
    ) -> None:
        """``skip``: text that will come again and that the client already has (replay)."""
        self._tracker = tracker
        self._chat = chat
        self._show_usage = show_usage
        self._running_usage = running_usage
        self._show_ids = show_ids
        self._guard = guard
        self._skip = skip
        self._head = _head_of(tracker.first_event, chat=chat)
        self._events = EventSplitter()
        self._ids_again = tracker.shown - tracker.count if show_ids else 0
        self.ended = False

    def feed(self, payload: bytes) -> bytes:
        """Take payload bytes of the other replica's stream; return what the client gets.

        Raises:
            Diverged: what comes is no continuation of what the client has.
        """
        try:
            events = self._events.feed(payload)
        except SseError as exc:
            raise Diverged(str(exc)) from exc
        return b"".join([self._take(data) for data in events if not self._tracker.broken and not self.ended])

    def ending(self, reason: str = "length", stop: int | str | None = None) -> bytes:
        """What the client lacks when nothing more is generated: finish reason, usage, end mark."""
        parts = []
        if not self._tracker.finished:
            parts.append(self._event("", [], reason, stop))
            self._tracker.finished = True
        if self._show_usage and not self._tracker.done:
            parts.append(self._usage_event(self._tracker.count))
        if not self._tracker.done:
            parts.append(DONE)
            self._tracker.done = True
        self.ended = True
        return b"".join(parts)

    def lead(self) -> bytes:
        """Text before the cut that the first replica still held back, as far as it is certain."""
        text = self._guard.feed("", 0, last=False) if self._guard is not None else ""
        return self._event(text, [], None, None) if text else b""

    # -- One event -------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> bytes:
        tracker = self._tracker
        if data == b"[DONE]":
            tracker.done = True
            return DONE
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Diverged("the replica sent an event that cannot be read") from exc
        if raw(event.error):
            tracker.broken = "the replica reported an error"
            return b""
        if not event.choices:
            return self._take_usage(event.usage)
        return self._take_choice(event.choices[0])

    def _take_usage(self, usage: Usage | None) -> bytes:
        if usage is None:
            return b""
        self._tracker.usage = Usage(self._tracker.prompt_count or usage.prompt_tokens, self._tracker.count)
        return self._usage_event(self._tracker.count) if self._show_usage else b""

    def _take_choice(self, choice: _Choice) -> bytes:
        tracker = self._tracker
        if choice.finish_reason == "abort":
            tracker.broken = "the replica gave the answer up"
            return b""
        text = (choice.delta.content if choice.delta is not None else choice.text) or ""
        ids = choice.token_ids or []
        if ids:
            tracker.append(b",".join([b"%d" % token for token in ids]))
        ids = self._not_shown(ids)
        fresh = self._not_skipped(text, last=choice.finish_reason is not None)
        if self._guard is not None:
            return self._guarded(fresh, ids, choice)
        if fresh:
            tracker.flush()
        if choice.finish_reason is not None:
            tracker.finished = True
        elif not fresh and not ids:
            return b""
        return self._event(fresh, ids, choice.finish_reason, choice.stop_reason)

    def _guarded(self, fresh: str, ids: list[int], choice: _Choice) -> bytes:
        guard, tracker = self._guard, self._tracker
        assert guard is not None
        last = choice.finish_reason is not None
        if choice.finish_reason == "stop" and not isinstance(choice.stop_reason, str):
            fresh = ""  # of a token that ends answers: never shown, but for our wish to see stop strings
        text = guard.feed(fresh, tracker.count, last=last)
        if text:
            tracker.flush()
        if guard.found is not None:
            event = self._event(text, ids, "stop", guard.found)
            tracker.finished = True
            return event + self.ending()
        if last:
            tracker.finished = True
        elif not text and not ids:
            return b""
        return self._event(text, ids, choice.finish_reason, choice.stop_reason)

    def _not_shown(self, ids: list[int]) -> list[int]:
        """Those ids that the client has not got yet; none where it did not ask for any."""
        if not self._show_ids:
            return []
        again = min(self._ids_again, len(ids))
        self._ids_again -= again
        self._tracker.shown += len(ids) - again
        return ids[again:]

    def _not_skipped(self, text: str, *, last: bool) -> str:
        if not self._skip:
            return text
        known = text[: len(self._skip)]
        if not self._skip.startswith(known):
            raise Diverged("the answer did not come out equal again")
        self._skip = self._skip[len(known) :]
        if last and self._skip:
            raise Diverged("the answer came out shorter")
        return text[len(known) :]

    # -- Events out ------------------------------------------------------------------------------------------

    def _event(self, text: str, ids: list[int], finish: str | None, stop: int | str | None) -> bytes:
        choice: dict[str, Any] = {"index": 0}
        choice |= {"delta": {"content": text}} if self._chat else {"text": text}
        choice |= {"logprobs": None, "finish_reason": finish}
        if not self._chat:
            choice |= {"stop_reason": stop, "prompt_token_ids": None}
        elif finish is not None:
            choice["stop_reason"] = stop
        choice["token_ids"] = ids if self._show_ids else None
        event = self._head | {"choices": [choice]}
        if self._running_usage:
            event["usage"] = self._usage(self._tracker.count)
        self._tracker.events += 1
        self._tracker.keep(_ENCODE(text)[1:-1])
        return b"data: " + _ENCODE(event) + b"\n\n"

    def _usage_event(self, count: int) -> bytes:
        return b"data: " + _ENCODE(self._head | {"choices": [], "usage": self._usage(count)}) + b"\n\n"

    def _usage(self, count: int) -> dict[str, int]:
        prompt = self._tracker.prompt_count or (self._tracker.usage.prompt_tokens if self._tracker.usage else 0)
        return {"prompt_tokens": prompt, "total_tokens": prompt + count, "completion_tokens": count}


def _head_of(first_event: bytes, *, chat: bool) -> dict[str, Any]:
    """What all events of the stream share."""
    start = first_event.find(b"{")
    try:
        event = msgspec.json.decode(first_event[start:]) if start >= 0 else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event = {}
    shared = event if isinstance(event, dict) else {}
    kind = "chat.completion.chunk" if chat else "text_completion"
    return {
        "id": shared.get("id", ""),
        "object": shared.get("object", kind),
        "created": shared.get("created", 0),
        "model": shared.get("model", ""),
    }
