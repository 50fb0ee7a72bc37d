"""What the API sends is decoded, or refused with a reason."""

import pytest

from inferdock.kube.errors import ApiGone, ApiNonsense, ApiRefused
from inferdock.kube.objects import read_event, read_list, read_status


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
