"""Counters that workers share."""

import pytest

from inferdock.balance.board import Board


def test_each_worker_writes_its_own_row_and_all_see_the_sum():
    one = Board.shared(rows=3, columns=4)
    two = Board.attach(one.fd, rows=3, columns=4, row=1)
    one.add(2, 5)
    two.add(2, 7)
    two.add(2, -1)
    assert (one.total(2), two.total(2), one.own(2), two.own(2)) == (11, 11, 5, 6)
    assert one.of_row(1, 2) == 6


def test_the_row_of_a_dead_worker_is_forgotten():
    one = Board.shared(rows=2, columns=4)
    two = Board.attach(one.fd, rows=2, columns=4, row=1)
    two.set(0, 3)
    two.set(3, 4)
    one.set(0, 1)
    one.clear_row(1)
    assert [one.total(column) for column in range(4)] == [1, 0, 0, 0]


def test_a_row_outside_is_refused():
    with pytest.raises(ValueError, match="outside"):
        Board.shared(rows=2, columns=4, row=2)


def test_memory_that_is_too_small_is_refused():
    board = Board.shared(rows=1, columns=4)
    with pytest.raises(ValueError, match="smaller"):
        Board.attach(board.fd, rows=2, columns=4, row=0)
