"""Laws of resuming: wherever a stream is cut, however often, the client reads what an undisturbed run gives."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from inferdock.gateway.relay import FollowedStream
from inferdock.wire.continuation import ResumeMode, resume_mode
from inferdock.wire.openai import IDS_WISH, USAGE_WISH, raw, read_fields, with_wishes
from inferdock.wire.stream_tracker import StreamTracker
from tests.support.engine_stream import Engine, read

CHAT, COMPLETION = b"/v1/chat/completions", b"/v1/completions"
PROMPTS = st.lists(st.integers(8, 200), min_size=1, max_size=6)
STOPS = st.one_of(
    st.none(),
    st.sampled_from(["ab", "b", "a.", "日", "ab ", '"', "aé"]),
    st.lists(st.sampled_from(["ab", "bb", ".a", "é日", "aab "]), min_size=1, max_size=3),
)


def request_body(*, chat: bool, tokens: int, stop: object = None, usage: bool = False, **more: object) -> bytes:
    body: dict = {"model": "m", "stream": True, "max_tokens": tokens} | more
    body |= {"messages": [{"role": "user", "content": "x"}]} if chat else {"prompt": "x"}
    if stop is not None:
        body["stop"] = stop
    if usage:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body, separators=(",", ":")).encode()


def follow(path: bytes, client_body: bytes) -> tuple[FollowedStream, bytes]:
    fields = read_fields(client_body)
    drop = fields.stream_options is None
    asked = raw(fields.return_token_ids) == b"true"
    body = with_wishes(client_body, (b"" if asked else IDS_WISH) + (USAGE_WISH if drop else b""))
    relay = FollowedStream(
        mode=resume_mode(fields, path), fields=fields, path=path, body=body, http10=True, drop_usage=drop
    )
    relay.chunked = False
    return relay, body


def cut_and_resume(path: bytes, client_body: bytes, prompt: list[int], cuts: list[int]) -> bytes:
    """Serve the request by one engine after the other; each dies after so many events (then in the middle of one)."""
    relay, body = follow(path, client_body)
    seen = b""
    for number, cut in enumerate([*cuts, 10**9]):
        engine = Engine(prompt, name="x" * (number + 1))
        if number and relay.tracker.first_event:
            rest = relay.rest_request(512)
            if rest.ended:
                return seen + relay.finish() + relay.end()
            guard = None
            if relay.needs_seam and not rest.replay:
                text = seam_text(relay.tracker, engine)
                rest = relay.rest_request(512)
                guard = None if rest.replay else relay.seam(text)
                if rest.ended:
                    return seen + relay.finish()
            seen += relay.go_on(replay=rest.replay, guard=guard)
            events = engine.stream(rest.path, rest.body)
        else:
            relay, body = follow(path, client_body)  # the client has nothing yet: a plain retry
            events = engine.stream(path, body)
        for place, event in enumerate(events):
            if place >= cut:
                seen += relay.take(event[: len(event) // 2], [])
                break
            seen += relay.take(event, [])
            assert not relay.broken
            if relay.ended:
                return seen
        else:
            return seen + relay.end()
    raise AssertionError("not finished")


def seam_text(tracker: StreamTracker, engine: Engine) -> str:
    """As gateway.seam does it, without a socket."""
    while True:
        ids = [int(i) for i in bytes(tracker.ids).split(b",") if i]
        text = engine.text_of(ids)
        if not text.endswith("\ufffd"):
            return text
        tracker.drop_last()


@settings(max_examples=300, deadline=None)
@given(
    chat=st.booleans(),
    prompt=PROMPTS,
    tokens=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 45), max_size=4),
    usage=st.booleans(),
    stop=STOPS,
    shown=st.booleans(),
    least=st.integers(0, 12),
    ids=st.booleans(),
)
def test_a_cut_stream_reads_like_an_undisturbed_one(
    chat: bool,
    prompt: list[int],
    tokens: int,
    cuts: list[int],
    usage: bool,
    stop: object,
    shown: bool,
    least: int,
    ids: bool,
) -> None:
    path = CHAT if chat else COMPLETION
    more = {"include_stop_str_in_output": shown, "min_tokens": min(least, tokens)}
    more |= {"return_token_ids": True} if ids else {}
    body = request_body(chat=chat, tokens=tokens, stop=stop, usage=usage, **more)
    undisturbed = read(b"".join(Engine(prompt).stream(path, body)))
    resumed = read(cut_and_resume(path, body, prompt, cuts))
    assert (resumed.text, resumed.finish, resumed.stop) == (undisturbed.text, undisturbed.finish, undisturbed.stop)
    assert resumed.usage == undisturbed.usage
    assert resumed.ids == undisturbed.ids
    assert resumed.done
    assert len(resumed.identities) == 1


@settings(max_examples=150, deadline=None)
@given(chat=st.booleans(), prompt=PROMPTS, tokens=st.integers(1, 40), cuts=st.lists(st.integers(0, 45), max_size=4))
def test_a_replayed_stream_reads_like_an_undisturbed_one(
    chat: bool, prompt: list[int], tokens: int, cuts: list[int]
) -> None:
    path = CHAT if chat else COMPLETION
    body = request_body(chat=chat, tokens=tokens, usage=True, seed=5, temperature=0.8)
    assert resume_mode(read_fields(body), path) is ResumeMode.REPLAY
    undisturbed = read(b"".join(Engine(prompt).stream(path, body)))
    resumed = read(cut_and_resume(path, body, prompt, cuts))
    assert (resumed.text, resumed.finish, resumed.usage) == (undisturbed.text, undisturbed.finish, undisturbed.usage)


@settings(max_examples=200, deadline=None)
@given(
    chat=st.booleans(),
    prompt=PROMPTS,
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    usage=st.booleans(),
)
def test_pieces_do_not_matter(chat: bool, prompt: list[int], sizes: list[int], usage: bool) -> None:
    path = CHAT if chat else COMPLETION
    client_body = request_body(chat=chat, tokens=30, usage=usage)
    whole, body = follow(path, client_body)
    stream = b"".join(Engine(prompt).stream(path, body))
    expected = whole.take(stream, []) + whole.end()
    pieces, _ = follow(path, client_body)
    got, rest = b"", stream
    for size in [*sizes, len(stream)]:
        piece, rest = rest[:size], rest[size:]
        out = pieces.take(piece, [])
        assert out == b"" or out.endswith(b"\n\n")
        got += out
    assert got + pieces.end() == expected
    assert pieces.tracker.ids == whole.tracker.ids
    assert pieces.tokens == whole.tokens
    assert expected == b"".join(Engine(prompt).stream(path, client_body))  # the very bytes that the client asked for
