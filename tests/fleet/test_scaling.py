"""How many replicas there are to be."""

import itertools

import pytest

from pqjax.errors import InputError
from pqjax.fleet.scaling import Scale, missing, surplus


def test_there_are_never_fewer_nor_more_than_allowed():
    scale = Scale(2, 5, seats=3)

    for ready, starting, free, waiting in itertools.product(range(6), range(3), range(4), range(9)):
        started = missing(scale, ready, starting, free, waiting)
        there = ready + starting
        assert started >= 0
        assert 2 <= there + started <= max(5, there)
        if there >= 2 and waiting <= free + 3 * starting:
            assert started == 0
        if started and there >= 2:  # no more than are filled
            assert waiting > free + 3 * (starting + started - 1)


@pytest.mark.parametrize(
    "there, started",
    [((0, 0, 0, 0), 1), ((1, 0, 0, 1), 1), ((1, 0, 0, 7), 3), ((1, 1, 0, 3), 0), ((4, 0, 0, 9), 0)],
)
def test_clients_that_wait_have_replicas_started(there, started):
    assert missing(Scale(1, 4, seats=3), *there) == started


def test_the_longest_idle_are_ended_down_to_the_least():
    scale, idle = Scale(2, 9, idle_s=10.0), {"a": 11.0, "b": 30.0, "c": 9.0, "d": 12.0}

    assert surplus(scale, idle, 5, 0) == ["b", "d", "a"]
    assert surplus(scale, idle, 4, 0) == ["b", "d"]
    assert surplus(scale, idle, 2, 0) == []
    assert surplus(scale, idle, 5, 1) == []


@pytest.mark.parametrize("wrong", [{"least": 0}, {"least": 3, "most": 2}, {"seats": 0}])
def test_bounds_of_nothing_are_an_input_error(wrong):
    with pytest.raises(InputError, match="expected, got|at least 1"):
        Scale(**wrong)
