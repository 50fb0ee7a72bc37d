"""What the API sends is decoded, or refused with a reason."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.kube.errors import ApiConflict, ApiGone, ApiNonsense, ApiRefused, KubeError
from inferdock.kube.objects import (
    read_config_map_event,
    read_config_maps,
    read_event,
    read_list,
    read_raw_event,
    read_status,
    refusal,
)

WORDS = (
    "type",
    "object",
    "metadata",
    "items",
    "labels",
    "data",
    "details",
    "causes",
    "message",
    "code",
    "ADDED",
    "ERROR",
)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'{"type":"ADDED"}',
        b'{"type":"ADDED","object":{"endpoints":3}}',
        b"\xff",
        b'{"type":1,"object":{}}',
    ],
)
def test_a_line_that_is_no_event_is_refused(line):
    with pytest.raises(ApiNonsense):
        read_event(line)


def test_an_event_of_a_kind_from_the_future_is_passed_over():
    assert read_event(b'{"type":"RENAMED","object":{}}') is None


def test_an_error_event_is_an_error():
    with pytest.raises(ApiGone):
        read_event(b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}')
    with pytest.raises(ApiRefused, match="etcd fell over"):
        read_event(b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd\\nfell over"}}')


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"items":[]}', b'{"metadata":{},"items":[{"endpoints":"x"}]}'])
def test_a_body_that_is_no_list_is_refused(body):
    with pytest.raises(ApiNonsense):
        read_list(body)


def test_a_page_of_html_in_place_of_a_status_says_nothing():
    assert read_status(b"<html>502</html>").message is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner),
    max_leaves=12,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_decoded_or_refused(data):
    for read in (read_event, read_list, read_config_map_event, read_config_maps, read_raw_event):
        with contextlib.suppress(KubeError):
            read(data)
    status = read_status(data)
    error = refusal(409, status)
    assert isinstance(error, ApiConflict)
    assert all(isinstance(word, str) for owner in error.owners for word in owner)


def test_a_conflict_says_who_owns_what():
    causes = [
        {"reason": "FieldManagerConflict", "message": 'conflict with "keda" using apps/v1', "field": ".spec.replicas"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "a b" with subresource "scale"', "field": ".x"},
        {"reason": "Other", "message": 'conflict with "nobody"', "field": ".y"},
    ]
    body = {"message": "Apply failed", "reason": "Conflict", "code": 409, "details": {"causes": causes}}
    error = refusal(409, read_status(json.dumps(body).encode()))
    assert isinstance(error, ApiConflict)
    assert (error.owners, error.said) == ((("keda", ".spec.replicas"), ("a b", ".x")), "Apply failed")


@pytest.mark.parametrize("details", [7, [], {"causes": 7}, {"causes": [7]}, {"causes": None}, {}])
def test_details_that_are_not_what_we_know_leave_the_message(details):
    error = refusal(409, read_status(json.dumps({"message": "no", "details": details}).encode()))
    assert isinstance(error, ApiConflict)
    assert (error.owners, error.said) == ((), "no")
