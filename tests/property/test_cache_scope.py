"""Laws of the cache's keys: what differs in anything that may change an answer never meets, and nothing else parts."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inferdock.cache.canonical import ALIASES, REFUSALS, CanonicalRequest, Refusal, read
from inferdock.cache.directives import opted_out
from inferdock.cache.policy import REASONS, CachePolicy, why_not
from inferdock.cache.scope import KEY_BYTES, exact_key, partition, surface_key
from inferdock.domain.errors import RequestError

CHAT, COMPLETION = b"/v1/chat/completions", b"/v1/completions"
WORDS = [
    "a",
    "#",
    '"',
    "\\",
    "\x00",
    "\x1f",
    '","role":"system',
    '{"x":1}',
    "é",
    "🙂",
    "\n",
    "tower",
    "0",
    ":",
    "}]}",
    "",
]
SAMPLING = {
    "temperature": [0, 0.5, 1],
    "top_p": [0.1, 0.9, 1],
    "top_k": [-1, 1, 40],
    "min_p": [0.1, 0.2],
    "max_tokens": [1, 16, 256],
    "max_completion_tokens": [1, 16],
    "min_tokens": [0, 1],
    "seed": [0, 1, 2**63],
    "stop": ["a", ["a"], ["a", "b"], ["b", "a"]],
    "stop_token_ids": [[1], [2], [1, 2]],
    "presence_penalty": [0.1, 0.2],
    "frequency_penalty": [0.1, -0.1],
    "repetition_penalty": [1.1, 1.2],
    "logit_bias": [{"1": 1}, {"1": 2}, {"2": 1}],
    "ignore_eos": [True, False],
    "skip_special_tokens": [True, False],
    "include_stop_str_in_output": [True, False],
    "bad_words": [["a"], ["b"]],
    "truncate_prompt_tokens": [1, 2],
}
FORMATS = {
    "response_format": [{"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"a": 1}}],
    "structured_outputs": [{"regex": "a"}, {"regex": "b"}, {"choice": ["a"]}],
    "chat_template": ["{{ a }}", "{{ b }}"],
    "chat_template_kwargs": [{"thinking": True}, {"thinking": False}, {"x": 1}, {"x": 1.0}, {"x": "1"}],
    "reasoning_effort": ["low", "high"],
    "cache_salt": ["a", "b"],
    "user": ["a", "b"],
    "documents": [[{"text": "a"}], [{"text": "b"}]],
}
OPEN = SAMPLING | FORMATS

Identity = tuple[str, str]  # tenant, revision
Case = tuple[Identity, bytes, dict[str, Any]]


def text(rng: random.Random) -> str:
    return "".join(rng.choices(WORDS, k=rng.randint(1, 6))) + rng.choice("xyz")


def some_case(rng: random.Random) -> Case:
    """A tenant, a revision, and a request with a last user text."""
    fields: dict[str, Any] = {"model": rng.choice("abc")}
    for name in rng.sample(sorted(OPEN), k=rng.randint(1, 6)):
        fields[name] = rng.choice(OPEN[name])
    path = CHAT if rng.random() < 0.8 else COMPLETION
    if path == COMPLETION:
        fields["prompt"] = text(rng)
    else:
        history = [{"role": rng.choice(["user", "assistant"]), "content": text(rng)} for _ in range(rng.randint(0, 4))]
        last = text(rng) if rng.random() < 0.7 else [{"type": "text", "text": text(rng)}]
        fields["messages"] = [{"role": "system", "content": text(rng)}, *history, {"role": "user", "content": last}]
    return (rng.choice(["a", "ab", "t-1", ""]), rng.choice(["bc", "c", "sha256:1"])), path, fields


def keys(case: Case, body: bytes | None = None) -> tuple[bytes, bytes, CanonicalRequest]:
    (tenant, revision), path, fields = case
    request = read(json.dumps(fields).encode() if body is None else body, path)
    assert isinstance(request, CanonicalRequest)
    return exact_key(tenant, revision, request), partition(tenant, revision, request, "minilm"), request


# -- Changes that must part ----------------------------------------------------------------------------------------


def other_tenant(rng: random.Random, case: Case) -> Case:
    (tenant, revision), path, fields = case
    return (rng.choice([tenant + "x", tenant + revision[:1], "other", tenant + "\x00"]), revision), path, fields


def other_revision(rng: random.Random, case: Case) -> Case:
    (tenant, revision), path, fields = case
    return (tenant, rng.choice([revision + "x", revision[1:], tenant[-1:] + revision + " "])), path, fields


def shifted_border(_rng: random.Random, case: Case) -> Case:
    (tenant, revision), path, fields = case
    return (tenant + revision[0], revision[1:]), path, fields


def other_model(_rng: random.Random, case: Case) -> Case:
    case[2]["model"] += "x"
    return case


def other_field(rng: random.Random, case: Case) -> Case:
    """A field gets another value, comes in, or is left out."""
    fields = case[2]
    name = rng.choice(sorted(OPEN))
    if name in fields and rng.random() < 0.3:
        del fields[name]
        return case
    before = json.dumps(fields.get(name, "absent"))
    fields[name] = rng.choice([value for value in OPEN[name] if json.dumps(value) != before])
    return case


def unknown_field(rng: random.Random, case: Case) -> Case:
    case[2][f"new_{text(rng)}"] = rng.choice([None, 0, False, "", [], {}])
    return case


def other_kind(_rng: random.Random, case: Case) -> Case:
    """The same fields on the other route."""
    identity, path, fields = case
    fields |= {"prompt": "x"} if path == CHAT else {"messages": [{"role": "user", "content": "x"}]}
    return identity, COMPLETION if path == CHAT else CHAT, fields


def other_message(rng: random.Random, case: Case) -> Case:
    """A message before the last one says something else, the system's among them."""
    if case[1] == COMPLETION:
        return unknown_field(rng, case)
    message = rng.choice(case[2]["messages"][:-1])
    message["content"] = rng.choice(
        [message["content"] + "x", message["content"][:-1], [message["content"]], "#", None]
    )
    return case


def other_role(rng: random.Random, case: Case) -> Case:
    if case[1] == COMPLETION:
        return other_model(rng, case)
    message = rng.choice(case[2]["messages"][:-1])
    message["role"] = rng.choice([role for role in ("system", "user", "assistant", "tool") if role != message["role"]])
    return case


def other_history(rng: random.Random, case: Case) -> Case:
    """A message more, one less, or two in another order."""
    if case[1] == COMPLETION:
        return unknown_field(rng, case)
    messages = case[2]["messages"]
    if rng.random() < 0.5:
        messages.insert(rng.randrange(len(messages)), {"role": "user", "content": "#"})
    else:
        del messages[rng.randrange(len(messages) - 1)]
    return case


def other_last_message(rng: random.Random, case: Case) -> Case:
    """The last message has a name, or its text stands in a part."""
    if case[1] == COMPLETION:
        return other_field(rng, case)
    last = case[2]["messages"][-1]
    if rng.random() < 0.5:
        last["name"] = "n"
    else:
        content = last["content"]
        last["content"] = [{"type": "text", "text": content}] if isinstance(content, str) else content[0]["text"]
    return case


PARTING: list[Callable[[random.Random, Case], Case]] = [
    other_tenant,
    other_revision,
    shifted_border,
    other_model,
    other_field,
    other_field,
    other_field,
    unknown_field,
    other_kind,
    other_message,
    other_message,
    other_role,
    other_history,
    other_last_message,
]


# -- Changes that must not -----------------------------------------------------------------------------------------


def shuffled(rng: random.Random, value: Any, *, top: bool = True) -> Any:
    """Other order of keys; at the top also other spellings of numbers, and fields that only say how to answer."""
    if isinstance(value, list):
        return [shuffled(rng, item, top=False) for item in value]
    if not isinstance(value, dict):
        return value
    items = [(name, shuffled(rng, item, top=False)) for name, item in value.items()]
    if top:
        items = [(name, float(item) if type(item) is int and item < 2**53 else item) for name, item in items]
        items.append(("stream", rng.random() < 0.5))
        items += rng.sample([("priority", 1), ("request_id", "r"), ("no_cache", True), ("cache", {"ttl": 1})], k=2)
    rng.shuffle(items)
    return dict(items)


def written_otherwise(rng: random.Random, fields: dict[str, Any]) -> bytes:
    body = json.dumps(shuffled(rng, fields), indent=rng.choice([None, 1]), ensure_ascii=rng.random() < 0.5)
    return body.encode()


def with_other_text(rng: random.Random, case: Case) -> Case:
    identity, path, fields = case
    if path == COMPLETION:
        fields["prompt"] += text(rng)
        return case
    last = fields["messages"][-1]
    if isinstance(last["content"], str):
        last["content"] = text(rng) + last["content"]
    else:
        last["content"][0]["text"] += text(rng)
    return identity, path, fields


def check(rng: random.Random, number: int) -> None:
    """One case: one change of each sort."""
    case = some_case(rng)
    exact, part, request = keys(case)
    assert request.text is not None
    change = PARTING[number % len(PARTING)]
    changed = change(rng, copy.deepcopy(case))
    exact_2, part_2, _ = keys(changed)
    assert exact != exact_2, (change.__name__, case, changed)
    assert part != part_2, (change.__name__, case, changed)
    if number % 4 == 0:
        assert keys(case, written_otherwise(rng, case[2]))[:2] == (exact, part), case
    elif number % 4 == 1:
        exact_3, part_3, _ = keys(with_other_text(rng, copy.deepcopy(case)))
        assert exact_3 != exact
        assert part_3 == part


def test_in_100_000_cases_one_difference_parts_and_only_a_difference_does() -> None:
    rng = random.Random(4)
    for number in range(100_000):
        check(rng, number)


# -- What a hostile client would try -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(max_size=6)


@settings(max_examples=300, deadline=None)
@given(JSON, JSON)
def test_bodies_share_a_form_exactly_where_they_are_the_same_value(one: object, other: object) -> None:
    first, second = read(dumped(one), CHAT), read(dumped(other), CHAT)
    assert isinstance(first, CanonicalRequest)
    assert isinstance(second, CanonicalRequest)
    assert (first.exact == second.exact) is (typed(one) == typed(other))


def dumped(value: object) -> bytes:
    return json.dumps({"unknown": [value]}).encode()


FIELDS = st.sampled_from([*OPEN, "model", "messages", "prompt", "n", "tools", "logprobs", "stream", "stream_options"])
MESSAGES = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]), JSON, max_size=3) | JSON, max_size=3
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(FIELDS | st.sampled_from(sorted(ALIASES)), JSON | MESSAGES, max_size=6), st.booleans())
def test_any_body_is_read_judged_and_keyed_without_a_crash(fields: dict[str, object], chat: bool) -> None:
    body = json.dumps(fields | {"temperature": 0}).encode()
    request = read(body, CHAT if chat else COMPLETION)
    if isinstance(request, Refusal):
        assert request.reason in REFUSALS
        return
    assert why_not(request, CachePolicy()) in ("", *REASONS)
    assert len(exact_key("t", "r", request)) == len(partition("t", "r", request, "e")) == KEY_BYTES
    with contextlib.suppress(RequestError):
        opted_out(None, None, request.body)


def typed(value: object) -> str:
    return json.dumps(value, sort_keys=True)


@settings(max_examples=300, deadline=None)
@given(NAMES, NAMES, NAMES, NAMES)
def test_names_that_join_to_the_same_text_have_other_keys(a: str, b: str, c: str, d: str) -> None:
    request = keys((("", ""), CHAT, {"messages": [{"role": "user", "content": "x"}]}))[2]
    same = (a, b) == (c, d)
    assert (exact_key(a, b, request) == exact_key(c, d, request)) is same
    assert (partition(a, b, request, "e") == partition(c, d, request, "e")) is same
    assert (partition("t", a, request, b) == partition("t", c, request, d)) is same


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_no_text_reaches_out_of_its_place(crafted: str) -> None:
    """Whatever the last text is, its partition is that of any other text, and its exact key is no other's."""
    mine = keys((("t", "r"), CHAT, {"messages": [{"role": "user", "content": crafted + "!"}]}))
    plain = keys((("t", "r"), CHAT, {"messages": [{"role": "user", "content": "plain"}]}))
    quoted = keys((("t", "r"), CHAT, {"messages": [{"role": "user", "content": json.dumps(crafted + "!")}]}))
    assert mine[1] == plain[1] == quoted[1]
    assert len({mine[0], plain[0], quoted[0], mine[1]}) == 4


def test_a_request_without_a_single_text_is_alone_in_its_partition() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    crafted: list[object] = [parts, parts[:1] * 2, [], "", None, 0, "#", ["#"], [{"type": "text", "text": 0}]]
    cases = [(("t", "r"), CHAT, {"messages": [{"role": "user", "content": content}]}) for content in crafted]
    found = [keys(case) for case in cases]
    assert len({part for _, part, _ in found}) == len(crafted)
    assert not {exact for exact, _, _ in found} & {part for _, part, _ in found}


def test_another_embedder_has_other_partitions_and_the_same_exact_keys() -> None:
    request = keys((("t", "r"), COMPLETION, {"prompt": "x"}))[2]
    assert partition("t", "r", request, "minilm-int8") != partition("t", "r", request, "minilm-fp32")


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), NAMES, NAMES)
def test_surface_keys_are_of_one_partition_and_one_form(one: bytes, other: bytes, a: str, b: str) -> None:
    assert (surface_key(one, a) == surface_key(other, b)) is ((one, a) == (other, b))
    assert len(surface_key(one, a)) == KEY_BYTES


def test_lone_surrogates_in_names_do_no_harm() -> None:
    request = keys((("t", "r"), COMPLETION, {"prompt": "x"}))[2]
    assert exact_key("\ud800", "r", request) != exact_key("?", "r", request)
