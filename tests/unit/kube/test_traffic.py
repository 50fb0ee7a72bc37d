"""Weights in the traffic ConfigMap: what is taken, and what changes nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.domain.shadow import Shadow
from inferdock.kube.naming import label_value, traffic_key
from inferdock.kube.traffic import MAX_REVISIONS, Division, TrafficState, read_traffic, traffic_value

GOOD = '{"model": "m", "weights": {"r1": 90, "r2": 10.5}}'
KEY = traffic_key("m")
NONE = TrafficState()


def test_a_key_divides_its_model():
    assert read_traffic({KEY: GOOD}, NONE).weights == {"m": {"r1": 90.0, "r2": 10.5}}


def test_what_was_written_is_read():
    state = read_traffic({KEY: traffic_value("org/m", {"a": 1, "b": 0})}, NONE)
    assert (state.weights, state.problems) == ({"org/m": {"a": 1.0, "b": 0.0}}, ())


def test_copies_are_read_with_or_without_weights():
    text = traffic_value("m", {"a": 1}, Shadow("b", 0.1))
    assert read_traffic({KEY: text}, NONE).divisions == {"m": Division({"a": 1.0}, Shadow("b", 0.1))}
    state = read_traffic({KEY: traffic_value("m", {}, Shadow("1.0.0+gpu", 1))}, NONE)
    assert (state.weights, state.divisions["m"].shadow) == ({}, Shadow("1.0.0+gpu", 1))
    assert state.revision_names == {label_value("1.0.0+gpu"): "1.0.0+gpu"}
    assert "shadow" not in traffic_value("m", {"a": 1})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oops",
        "null",
        "[]",
        "{}",
        '{"model": "m"}',
        '{"model": 7, "weights": {"r1": 1}}',
        '{"model": "", "weights": {"r1": 1}}',
        '{"model": "a\\nb", "weights": {"r1": 1}}',
        '{"model": "m", "weights": []}',
        '{"model": "m", "weights": {"r1": "1"}}',
        '{"model": "m", "weights": {"r1": true}}',
        '{"model": "m", "weights": {"r1": -1}}',
        '{"model": "m", "weights": {"r1": 1e999}}',
        '{"model": "m", "weights": {"r1": 0}}',
        '{"model": "m", "weights": {"a b": 1}}',
        '{"model": "m", "weights": {"": 1}}',
        '{"model": "m", "weights": {"r\\u00e9": 1}}',
        GOOD + " more",
        "[" * 100_000,
        json.dumps({"model": "m", "weights": {f"r{n}": 1 for n in range(MAX_REVISIONS + 1)}}),
        json.dumps({"model": "m" * 201, "weights": {"r1": 1}}),
        '{"model": "m", "weights": {"r1": 1}, "shadow": {"revision": "r2"}}',
        '{"model": "m", "weights": {"r1": 1}, "shadow": {"revision": "r2", "share": 0}}',
        '{"model": "m", "weights": {"r1": 1}, "shadow": {"revision": "r2", "share": 1.1}}',
        '{"model": "m", "weights": {"r1": 1}, "shadow": {"revision": "", "share": 0.1}}',
        '{"model": "m", "weights": {"r1": 1}, "shadow": {"revision": "a b", "share": 0.1}}',
        '{"model": "m", "weights": {"r1": 1}, "shadow": "r2"}',
    ],
    ids=range(28),
)
def test_what_is_malformed_is_named_and_changes_nothing(text):
    before = read_traffic({KEY: GOOD}, NONE)
    state = read_traffic({KEY: text, traffic_key("n"): '{"model": "n", "weights": {"x": 1}}'}, before)
    assert state.weights == {"m": before.weights["m"], "n": {"x": 1.0}}
    (problem,) = state.problems
    assert problem.startswith(KEY)
    assert read_traffic({KEY: text}, NONE).weights == {}


def test_a_key_that_is_gone_takes_its_weights_along():
    before = read_traffic({KEY: GOOD, traffic_key("n"): '{"model": "n", "weights": {"x": 1}}'}, NONE)
    assert read_traffic({KEY: GOOD}, before).weights == {"m": {"r1": 90.0, "r2": 10.5}}
    assert read_traffic({}, before).weights == {}


def test_no_weights_are_none():
    before = read_traffic({KEY: GOOD}, NONE)
    state = read_traffic({KEY: '{"model": "m", "weights": {}}'}, before)
    assert (state.weights, state.problems) == ({}, ())


def test_other_keys_are_not_ours():
    assert read_traffic({"README": "hello"}, NONE) == NONE


def test_of_two_keys_of_one_model_the_one_with_its_name_counts():
    data = {key: f'{{"model": "m", "weights": {{"{key[:2]}": 1}}}}' for key in ("a.json", KEY, "z.json")}
    state = read_traffic(data, NONE)
    assert state.weights == {"m": {KEY[:2]: 1.0}}
    assert len(state.problems) == 2


def test_a_refusal_of_the_gateway_leaves_what_was():
    before = read_traffic({KEY: GOOD}, NONE)
    state = read_traffic({KEY: '{"model": "m", "weights": {"r9": 1}}'}, before).without("m", before, "no")
    assert (state.weights, state.problems) == (before.weights, (f"{KEY}: no",))


def test_revisions_that_no_label_can_hold_are_told_by_their_label():
    state = read_traffic({KEY: traffic_value("m", {"1.0.0+gpu": 1, "1.0.0": 1})}, NONE)
    assert state.revision_names == {label_value("1.0.0+gpu"): "1.0.0+gpu"}


@pytest.mark.parametrize("weights", [{"r": -1}, {"r": 0}, {"a b": 1}, {"r": float("nan")}, {"r": float("inf")}])
def test_weights_that_a_gateway_would_not_take_are_not_written(weights):
    with pytest.raises(ValueError, match="this traffic"):
        traffic_value("m", weights)


DATA = st.dictionaries(
    st.sampled_from(["a.json", "b.json", KEY, "README"]),
    st.sampled_from([GOOD, "oops", '{"model": "n", "weights": {"x": 1}}', '{"model": "m", "weights": {}}']),
)


@given(st.lists(DATA))
def test_after_any_history_only_keys_that_are_there_count(history):
    state = NONE
    for data in history:
        before, state = state, read_traffic(data, state)
        assert set(state.keys) <= set(data)
        for key, text in data.items():
            if text == "oops" and key in before.keys:
                assert state.keys[key] == before.keys[key]


@given(st.text(max_size=2000))
def test_no_text_does_harm(text):
    state = read_traffic({KEY: text}, read_traffic({KEY: GOOD}, NONE))
    assert set(state.weights) <= {"m"} or not state.problems
