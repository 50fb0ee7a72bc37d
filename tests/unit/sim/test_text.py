"""Text from tokens, with stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.sim.language import encode
from inferdock.sim.text import TextStream


def pieces(text: str, stops: list[str]) -> tuple[list[str], str | None]:
    stream = TextStream(stops)
    found = []
    for token in encode(text):
        found.append(stream.feed(token))
        if stream.stopped_by is not None:
            return found, stream.stopped_by
    return [*found, stream.rest()], None


@given(st.text(), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(text, stops):
    text = text.encode("utf-8", "replace").decode()
    found, stopped_by = pieces(text, stops)
    said = "".join(found)
    assert text.startswith(said)
    assert not any(stop in said for stop in stops)
    assert (stopped_by is None) == (said == text)


@pytest.mark.parametrize("stop", [" bread", "ad an", "d"])
def test_a_stop_string_may_span_tokens(stop):
    found, stopped_by = pieces(" water bread and salt", [stop])
    assert "".join(found) == " water bread and salt".partition(stop)[0]
    assert stopped_by == stop


def test_the_beginning_of_a_stop_string_is_held_back():
    stream = TextStream(["and salt"])
    said = "".join(stream.feed(token) for token in encode(" bread and"))
    assert "and" not in said
    assert said + stream.rest() == " bread and"


def test_what_was_held_back_is_given_once():
    stream = TextStream(["xyz"])
    stream.feed(encode("x")[0])
    assert (stream.rest(), stream.rest()) == ("x", "")


def test_a_character_of_several_tokens_comes_whole():
    stream = TextStream()
    assert [stream.feed(token) for token in encode("€")] == ["", "", "€"]


def test_stop_strings_do_not_count_before_they_may():
    stream = TextStream(["a"])
    assert stream.feed(encode("a")[0], may_stop=False) == "a"
    assert stream.stopped_by is None
