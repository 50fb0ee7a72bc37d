"""EndpointSlices become endpoints."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.domain.endpoint import EndpointSpec
from inferdock.kube.endpoint_slices import MAX_PROBLEMS, SliceRules, SliceSet, endpoint_specs, read_slices
from inferdock.kube.lines import LineSplitter
from inferdock.kube.objects import EndpointSlice, read_event
from tests.support.fake_kube import endpoint, endpoint_slice

RULES = SliceRules()


def typed(*slices: dict) -> list[EndpointSlice]:
    return [msgspec.convert(one, EndpointSlice) for one in slices]


def specs(*slices: dict, rules: SliceRules = RULES) -> list[EndpointSpec]:
    return endpoint_specs(typed(*slices), rules)


def names(*slices: dict, rules: SliceRules = RULES) -> list[str]:
    return [spec.name for spec in specs(*slices, rules=rules)]


def test_a_ready_pod_is_an_endpoint_under_its_own_name():
    assert specs(endpoint_slice("a", endpoint("10.0.0.1", "pod-1", ready=True))) == [
        EndpointSpec("pod-1", "10.0.0.1", 8000, "demo", "r1")
    ]


def test_an_endpoint_without_a_pod_is_called_by_its_address():
    slices = (
        endpoint_slice("a", endpoint("10.0.0.1", None)),
        endpoint_slice("b", endpoint("fd00::1", None), family="IPv6"),
    )
    assert names(*slices) == ["10.0.0.1:8000", "[fd00::1]:8000"]


@pytest.mark.parametrize(
    ("conditions", "used"),
    [
        ({}, True),
        ({"ready": None, "serving": None, "terminating": None}, True),
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False, "serving": False, "terminating": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),
        ({"terminating": True}, False),
        ({"serving": False}, True),
    ],
    ids=str,
)
def test_conditions_mean_what_the_api_says(conditions, used):
    assert bool(specs(endpoint_slice("a", endpoint(**conditions)))) is used


def test_conditions_may_be_missing_altogether():
    bare = endpoint()
    del bare["conditions"]
    assert names(endpoint_slice("a", bare)) == ["pod-1"]


def test_a_pod_in_two_slices_is_one_endpoint():
    assert len(specs(endpoint_slice("a", endpoint()), endpoint_slice("b", endpoint()))) == 1


def test_a_pod_that_one_slice_knows_to_terminate_is_left_out():
    assert specs(endpoint_slice("a", endpoint(ready=True)), endpoint_slice("b", endpoint(terminating=True))) == []


def test_a_pod_that_one_slice_knows_to_be_ready_is_used():
    assert names(endpoint_slice("a", endpoint(ready=False)), endpoint_slice("b", endpoint(ready=True))) == ["pod-1"]


def test_a_pod_with_both_kinds_of_address_is_reached_by_ipv4():
    six = endpoint_slice("a", endpoint("fd00::1"), family="IPv6")
    assert [spec.host for spec in specs(six, endpoint_slice("b", endpoint("10.0.0.1")))] == ["10.0.0.1"]
    assert [spec.url for spec in specs(six)] == ["http://[fd00::1]:8000"]


def test_a_pod_that_came_back_under_its_name_takes_the_place_of_the_one_that_leaves():
    slices = endpoint_slice(
        "a", endpoint("10.0.0.1", "p-0", "old", terminating=True), endpoint("10.0.0.2", "p-0", "new")
    )
    assert [(spec.name, spec.host) for spec in specs(slices)] == [("p-0", "10.0.0.2")]


def test_two_servers_under_one_name_get_longer_names():
    slices = endpoint_slice("a", endpoint("10.0.0.1", "p-0", "old"), endpoint("10.0.0.2", "p-0", "new"))
    assert names(slices) == ["p-0@10.0.0.1:8000", "p-0@10.0.0.2:8000"]


def test_two_names_of_one_address_are_one_endpoint():
    assert names(endpoint_slice("a", endpoint("10.0.0.1", "b"), endpoint("10.0.0.1", "a"))) == ["a"]


def test_the_port_is_found_by_its_name():
    ports = [
        {"name": "metrics", "port": 9090},
        {"name": "http", "port": 8000},
        {"name": "http", "protocol": "UDP", "port": 1},
    ]
    one = endpoint_slice("a", endpoint(), ports=ports)
    assert [spec.port for spec in specs(one, rules=SliceRules(port_name="http"))] == [8000]
    assert specs(one) == []


def test_a_port_without_a_name_is_found_by_the_empty_name():
    one = endpoint_slice("a", endpoint(), ports=[{"port": 8000}])
    assert [spec.port for spec in specs(one, rules=SliceRules(port_name=""))] == [8000]


@pytest.mark.parametrize("ports", [[], [{"name": "http"}], [{"port": 0}], [{"port": 65536}], [{"port": None}]], ids=str)
def test_a_slice_without_a_usable_port_is_left_out_and_named(ports):
    reading = read_slices(typed(endpoint_slice("odd", endpoint(), ports=ports), endpoint_slice("b", endpoint())), RULES)
    assert [spec.name for spec in reading.specs] == ["pod-1"]
    assert "odd" in reading.problems[0]


def test_a_label_becomes_the_model_that_clients_ask_for():
    rules = SliceRules(model_names={"mistral-7b": "mistralai/Mistral-7B"})
    assert [spec.model for spec in specs(endpoint_slice("a", endpoint(), model="mistral-7b"), rules=rules)] == [
        "mistralai/Mistral-7B"
    ]


def test_an_annotation_comes_before_the_label():
    one = endpoint_slice("a", endpoint())
    one["metadata"]["annotations"] = {"inferdock.io/model": "org/name", "inferdock.io/revision": "r2"}
    assert [(spec.model, spec.revision) for spec in specs(one)] == [("org/name", "r2")]


def test_a_slice_without_a_model_is_left_out_and_named():
    reading = read_slices(typed(endpoint_slice("nameless", endpoint(), model=None)), RULES)
    assert (reading.specs, len(reading.problems)) == ([], 1)
    assert "nameless" in reading.problems[0]


def test_a_revision_is_not_needed():
    assert [spec.revision for spec in specs(endpoint_slice("a", endpoint(), revision=None))] == [""]


@pytest.mark.parametrize("value", ["a\r\nset-cookie: x", "ü", "a b", "x" * 300])
def test_a_revision_that_would_not_fit_into_a_header_is_refused(value):
    one = endpoint_slice("a", endpoint())
    one["metadata"]["annotations"] = {"inferdock.io/revision": value}
    assert specs(one) == []


@pytest.mark.parametrize(
    ("address", "family"),
    [("", "IPv4"), ("replica.example", "FQDN"), ("10.0.0.1", "IPv6"), ("fd00::1", "IPv4"), ("10.0.0.300", "IPv4")],
)
def test_an_address_that_is_not_of_its_family_is_left_out(address, family):
    reading = read_slices(typed(endpoint_slice("a", endpoint(address), family=family)), RULES)
    assert (reading.specs, len(reading.problems)) == ([], 1)


def test_null_lists_are_empty_lists():
    one = endpoint_slice("a")
    one |= {"endpoints": None, "ports": None}
    assert specs(one) == []
    assert specs(endpoint_slice("a", {"addresses": None})) == []


def test_problems_are_bounded():
    slices = [endpoint_slice(f"s{n}", endpoint(), model=None) for n in range(100)]
    assert len(read_slices(typed(*slices), RULES).problems) == MAX_PROBLEMS


# -- Laws ----------------------------------------------------------------------------------------------------

CONDITION = st.sampled_from(
    [{}, {"ready": True}, {"ready": False}, {"ready": True, "terminating": True}, {"ready": None}]
)
ENDPOINT = st.builds(
    lambda host, pod, uid, conditions: endpoint(f"10.0.0.{host}", pod, uid, **conditions),
    st.integers(1, 5),
    st.sampled_from([None, "p-0", "p-1", "p-2"]),
    st.sampled_from(["u1", "u2"]),
    CONDITION,
)
SLICE = st.builds(
    lambda name, endpoints, model, port: endpoint_slice(
        name, *endpoints, model=model, ports=[{"name": "http", "port": port}]
    ),
    st.sampled_from(["a", "b", "c"]),
    st.lists(ENDPOINT, max_size=4),
    st.sampled_from(["m1", "m2", None]),
    st.sampled_from([8000, 8001]),
)


@given(st.lists(SLICE, max_size=4), st.randoms(use_true_random=False))
def test_names_and_addresses_are_unique_and_order_and_repetition_do_not_matter(slices, random):
    once = specs(*slices)
    assert len({spec.name for spec in once}) == len({(spec.host, spec.port) for spec in once}) == len(once)
    again = [{**one, "endpoints": random.sample(one["endpoints"], len(one["endpoints"])) * 2} for one in slices * 2]
    random.shuffle(again)
    assert specs(*again) == once


@given(st.lists(SLICE, max_size=12), st.randoms(use_true_random=False))
def test_changes_of_different_slices_may_come_in_any_order(changes, random):
    numbered = list(enumerate(changes))
    by_name = {name: [c for _, c in numbered if c["metadata"]["name"] == name] for name in "abc"}
    turns = [name for name in "abc" for _ in by_name[name]]
    random.shuffle(turns)
    mixed = [by_name[name].pop(0) for name in turns]
    assert endpoint_specs(followed(changes), RULES) == endpoint_specs(followed(mixed), RULES)


def followed(changes: list[dict]) -> SliceSet:
    held = SliceSet()
    for one in changes:
        event = read_event(msgspec.json.encode({"type": "MODIFIED", "object": one}))
        assert event is not None
        held.apply(event)
    return held


CHANGE = st.one_of(SLICE, st.sampled_from(["a", "b", "c"]))


@given(st.lists(CHANGE, max_size=10), st.integers(0, 10), st.data())
def test_a_watch_resumed_after_any_cut_ends_where_a_list_does(changes, listed_at, data):
    history, states = _history(changes)
    start = min(listed_at, len(history))
    held = SliceSet()
    held.replace(typed(*states[start].values()))
    version = start
    while version < len(history):
        stream = b"".join(history[version:])
        cut = data.draw(st.integers(0, len(stream)))
        lines = LineSplitter(10**6)
        middle = data.draw(st.integers(0, cut))
        for line in lines.feed(stream[:middle]) + lines.feed(stream[middle:cut]):
            event = read_event(line)
            assert event is not None
            held.apply(event)
            version = int(event.object.metadata.resource_version)
        if not cut:
            break  # hypothesis cut at nothing: enough
    else:
        assert endpoint_specs(held, RULES) == specs(*states[-1].values())


def _history(changes: list) -> tuple[list[bytes], list[dict]]:
    """Events, one per version from 1, and the slices at each version from 0."""
    history: list[bytes] = []
    states: list[dict] = [{}]
    for change in changes:
        version, state = len(history) + 1, dict(states[-1])
        name = change if isinstance(change, str) else change["metadata"]["name"]
        if isinstance(change, str):
            kind, one = ("DELETED", state.pop(name)) if name in state else ("BOOKMARK", {"metadata": {}})
        else:
            kind, one = ("MODIFIED" if name in state else "ADDED", change)
            state[name] = one
        one = {**one, "metadata": {**one["metadata"], "resourceVersion": str(version)}}
        history.append(msgspec.json.encode({"type": kind, "object": one}) + b"\n")
        states.append(state)
    return history, states
