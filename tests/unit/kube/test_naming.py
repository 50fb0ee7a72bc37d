"""Names made fit for Kubernetes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.kube.naming import label_value, traffic_key

LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


@pytest.mark.parametrize("text", ["1.0.0-abcdef012345", "a", "A_b.c-9", "x" * 63])
def test_what_a_label_can_hold_stays_as_it_is(text):
    assert label_value(text) == text


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1.0.0+gpu-abc", "1.0.0-gpu-abc-4f5c6f19"),
        ("org/model", "org-model-7bd61c0c"),
        ("-a-", "a-9c4b7e0d"),
    ],
    ids=["plus", "slash", "ends"],
)
def test_what_does_not_fit_is_still_recognised(text, label):
    assert label_value(text).rpartition("-")[0] == label.rpartition("-")[0]


@given(st.text(max_size=300))
def test_every_text_has_a_label_and_a_key_that_kubernetes_takes(text):
    assert LABEL.fullmatch(label_value(text))
    assert 0 < len(label_value(text)) <= 63
    key = traffic_key(text)
    assert KEY.fullmatch(key)
    assert key.endswith(".json")
    assert not key.startswith("..")


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_two_texts_share_one(one, other):
    if one != other:
        assert label_value(one) != label_value(other)
        assert traffic_key(one) != traffic_key(other)
