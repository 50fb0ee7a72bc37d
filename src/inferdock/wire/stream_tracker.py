"""Follows the stream of one answer, so that another replica can continue it.

The gateway asks the engine for token ids (``return_token_ids``). For each event the tracker takes the ids out - it
writes the ``null`` that the engine sends to those who did not ask - and remembers how far the client's text and the
ids reach. It works on bytes; only rare events are decoded. Events stay whole: what is handed on always ends where
an event ends, whatever pieces the bytes came in.

Shapes: vLLM 0.32 (``tests/contract/engine``). The patterns cannot match inside of a JSON string, because there every
quote is preceded by a backslash.
"""

from __future__ import annotations

import re

import msgspec

from inferdock.wire.openai import NO_CHOICES, Usage, find_usage

MAX_EVENT_BYTES = 8 * 1024 * 1024
"""Largest event that is waited for; a stream with a larger one is handed on as it comes, without tracking."""

MAX_TRACKED_BYTES = 4 * 1024 * 1024
"""Most bytes of ids and text that are kept for one stream; beyond, it cannot be resumed any more."""

_IDS = b',"token_ids":'
_IDS_LIST = re.compile(rb',"token_ids":\[(\d[\d,]*)\]')
_PROMPT_IDS = b'"prompt_token_ids":'
_GOES_ON = b'"finish_reason":null'
_TEXT = re.compile(rb'"(?:content|text)":"((?:[^"\\]|\\.)*)"')
_FINISH = re.compile(rb'"finish_reason":"([a-z_]+)"')
_OTHER_OUTPUT = re.compile(rb'"(?:reasoning|reasoning_content|tool_calls|refusal)":(?!null|\[\]|"")')
_OTHER_LOST = "reasoning and tool calls cannot be continued"
_ERROR = re.compile(rb'data:\s*\{\s*"error"')


class StreamTracker:
    """State of one stream.

    Attributes:
        ids: output token ids as JSON spells them, each followed by a comma.
        count: how many they are.
        flushed, flushed_count: length of ``ids`` and number of tokens up to the last event that carried text. What
            came after has not shown itself to the client yet and may be generated again.
        prompt_ids: token ids of the prompt, as JSON, without brackets; None until they have come.
        text: text that the client has, JSON-escaped (only with ``keep_text``).
        first_event: first event that was handed on; its id, time and model stay those of the whole stream.
        lost: why the stream cannot be continued from its ids; "" while it can.
        broken: the replica ended the answer before its end (an abort or an error); that event was not handed on.
        finished: the event with the finish reason has been handed on.
        done: the final ``[DONE]`` has been handed on.
        usage: as the engine reports it, once it has.
        events: events with output that were handed on.
        shown: ids that the client has got, where it asked for them.
    """

    __slots__ = (
        "_held",
        "_hide_ids",
        "_hide_usage",
        "_keep_text",
        "_raw",
        "broken",
        "count",
        "done",
        "events",
        "finished",
        "first_event",
        "flushed",
        "flushed_count",
        "ids",
        "lost",
        "prompt_ids",
        "shown",
        "text",
        "usage",
    )

    def __init__(self, *, keep_text: bool = False, hide_ids: bool = True, hide_usage: bool = False) -> None:
        """``hide_*``: the client did not ask for token ids, or for the usage event."""
        self._keep_text = keep_text
        self._hide_ids = hide_ids
        self._hide_usage = hide_usage
        self._held = b""
        self._raw = False
        self.ids = bytearray()
        self.count = 0
        self.flushed = 0
        self.flushed_count = 0
        self.prompt_ids: bytes | None = None
        self.text = bytearray()
        self.first_event = b""
        self.lost = ""
        self.broken = ""
        self.finished = False
        self.done = False
        self.usage: Usage | None = None
        self.events = 0
        self.shown = 0

    @property
    def prompt_count(self) -> int:
        """Tokens of the prompt; 0 while they are not known."""
        return self.prompt_ids.count(b",") + 1 if self.prompt_ids else 0

    def feed(self, data: bytes) -> bytes:
        """Take payload bytes of the replica's stream; return what the client gets of them now."""
        if self._raw:
            return data
        if self._held:
            data = self._held + data
            self._held = b""
        end = data.rfind(b"\n\n") + 2
        if end < len(data) or end == 1:
            rest = data[end:] if end > 1 else data
            data = data[:end] if end > 1 else b""
            if len(rest) > MAX_EVENT_BYTES:
                self._raw = True
                self.lost = "an event was too large"
                return data + rest
            self._held = rest
            if not data:
                return b""
        return self._take_usual(data) or b"".join([self._take(event + b"\n\n") for event in data[:-2].split(b"\n\n")])

    def _take_usual(self, data: bytes) -> bytes | None:
        """The whole block at once if each of its events is the usual one: some text, its ids, and it goes on."""
        found = _IDS_LIST.findall(data)
        count = len(found)
        if (
            data.count(b"\n\n") != count
            or data.count(_GOES_ON) != count
            or data.count(b'"content":"') + data.count(b'"text":"') != count
            or b'":""' in data
            or not self.first_event
            or self._keep_text
            or self.broken
        ):
            return None
        before = self.count
        self.append(b",".join(found))
        self.shown += self.count - before
        self.flush()
        self.events += count
        return _IDS_LIST.sub(b',"token_ids":null', data) if self._hide_ids else data

    # -- One event -------------------------------------------------------------------------------------------

    def _take(self, event: bytes) -> bytes:
        if self.broken:
            return b""
        place = event.find(_IDS)
        if place < 0 or event.find(_GOES_ON) < 0 or not self.first_event:
            return self._take_rare(event)
        event = self._take_ids(event, place)
        self.events += 1
        if self._has_text(event):
            self._take_text(event)
        elif _OTHER_OUTPUT.search(event):
            self.lost = _OTHER_LOST
        return event

    @staticmethod
    def _has_text(event: bytes) -> bool:
        """Some text, not an empty one."""
        return (b'"content":"' in event or b'"text":"' in event) and b'":""' not in event

    def _take_ids(self, event: bytes, place: int) -> bytes:
        """Note the ids at ``place``; return the event as the client may see it."""
        start = place + len(_IDS)
        if event[start : start + 1] != b"[":
            self.lost = self.lost or "the replica gives no token ids"
            return event
        end = event.find(b"]", start)
        ids = event[start + 1 : end]
        if ids:
            self.append(ids)
            self.shown += 1 + ids.count(b",")
        if self._hide_ids:
            event = event[:start] + b"null" + event[end + 1 :]
        return event

    def append(self, ids: bytes) -> None:
        """Note output token ids, as JSON without brackets."""
        if len(self.ids) > MAX_TRACKED_BYTES:
            self.lost = "the answer is too long"
            return
        self.ids += ids
        self.ids += b","
        self.count += 1 + ids.count(b",")

    def flush(self) -> None:
        """All ids noted so far have shown themselves to the client."""
        self.flushed = len(self.ids)
        self.flushed_count = self.count

    def cut(self) -> None:
        """The replica is gone: what it began to say is void."""
        self._held = b""
        self.broken = ""

    def rewind(self) -> None:
        """Forget the ids behind the last text that the client got: they will be generated again."""
        del self.ids[self.flushed :]
        self.count = self.flushed_count

    def restart(self) -> None:
        """Forget all ids: the whole answer will be generated again."""
        self.flushed = self.flushed_count = 0
        self.rewind()

    def drop_last(self) -> None:
        """Forget the last id (half of a character, say): it will be generated again."""
        del self.ids[self.ids.rfind(b",", 0, len(self.ids) - 1) + 1 :]
        self.count = max(0, self.count - 1)

    def keep(self, text: bytes) -> None:
        """Note text that the client has got, JSON-escaped."""
        if self._keep_text:
            self.text += text
            if len(self.text) > MAX_TRACKED_BYTES:
                self.lost = "the answer is too long"

    def _take_text(self, event: bytes) -> None:
        """The client gets text: all ids so far have shown themselves."""
        self.flush()
        if self._keep_text:
            found = _TEXT.search(event)
            if found is not None:
                self.keep(found.group(1))

    def _take_rare(self, event: bytes) -> bytes:
        """First events, last events, usage, errors, comments and streams of other engines."""
        if _ERROR.match(event):
            return self._take_error(event)
        if b"[DONE]" in event and event.strip() == b"data: [DONE]":
            self.done = True
            return event
        if event.startswith(b"data:") and not self.lost and not _is_json(event[5:]):
            self.broken = "the replica sent an event that cannot be read"
            return b""
        if _PROMPT_IDS in event:
            event = self._take_prompt(event)
        if b'"usage":{' in event and NO_CHOICES.search(event):
            self.usage = find_usage(event) or self.usage
            return b"" if self._hide_usage else event
        return self._take_output(event)

    def _take_error(self, event: bytes) -> bytes:
        """An error of the replica can be healed elsewhere; one of the request is the client's to see."""
        if self.lost or _is_refusal(event):
            self.lost = self.lost or "the replica refused the request"
            return event
        self.broken = "the replica reported an error"
        return b""

    def _take_output(self, event: bytes) -> bytes:
        finish = _FINISH.search(event)
        if finish is not None and finish.group(1) == b"abort":
            self.broken = "the replica gave the answer up"
            return b""
        place = event.find(_IDS)
        if place >= 0:
            event = self._take_ids(event, place)
        elif self._has_text(event):
            self.lost = self.lost or "the replica gives no token ids"
        if _OTHER_OUTPUT.search(event):
            self.lost = _OTHER_LOST
        if self._has_text(event):
            self._take_text(event)
        if not self.first_event and event.startswith(b"data:"):
            self.first_event = event
        if finish is not None:
            self.finished = True
        if place >= 0 or finish is not None:
            self.events += 1
        return event

    def _take_prompt(self, event: bytes) -> bytes:
        start = event.find(_PROMPT_IDS) + len(_PROMPT_IDS)
        if event[start : start + 1] != b"[":
            return event
        end = event.find(b"]", start)
        self.prompt_ids = event[start + 1 : end]
        if self._hide_ids:
            event = event[:start] + b"null" + event[end + 1 :]
        return event


class _Problem(msgspec.Struct):
    code: int | str | None = None


class _ErrorEvent(msgspec.Struct):
    error: _Problem


def _is_refusal(event: bytes) -> bool:
    """Whether an error event has a code of the client's fault (vLLM writes the HTTP status)."""
    try:
        code = msgspec.json.decode(event[event.find(b"{") :], type=_ErrorEvent).error.code
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(code, int) and 400 <= code < 500


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
