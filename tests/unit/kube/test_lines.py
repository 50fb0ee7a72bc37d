"""The bytes of a watch become lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.kube.errors import ApiNonsense
from inferdock.kube.lines import LineSplitter


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.data())
def test_any_cutting_of_a_stream_gives_the_same_lines(lines, data):
    stream = b"".join(line + b"\n" for line in lines) + b"half"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    splitter, got = LineSplitter(100), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += splitter.feed(stream[start:end])
    assert got == [line for line in lines if line]


@pytest.mark.parametrize(
    "pieces", [[b"x" * 11], [b"x" * 6, b"x" * 5], [b"ok\n" + b"x" * 11], [b"x" * 6, b"x" * 5 + b"\n"]]
)
def test_a_line_that_is_too_long_is_refused_whether_or_not_it_ends(pieces):
    splitter = LineSplitter(10)
    for piece in pieces[:-1]:
        splitter.feed(piece)
    with pytest.raises(ApiNonsense, match="longer than 10"):
        splitter.feed(pieces[-1])


def test_many_short_lines_at_once_are_no_long_line():
    assert len(LineSplitter(10).feed(b"1234567\n" * 1000)) == 1000
