"""The cost algebra against a plain simulation of who waits for whom."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqjax.wire.channel import local_pair
from pqjax.wire.cost import NOTHING, Cost, crossing, draw, message, total

BITS = st.integers(0, 100)
MOVES = st.one_of(
    st.tuples(st.just("message"), st.integers(0, 1), BITS),
    st.tuples(st.just("crossing"), BITS, BITS),
)
SCHEDULES = st.lists(MOVES, max_size=12)


def cost_of(schedule):
    return total(
        [message(a, b) if kind == "message" else crossing(a, b) for kind, a, b in schedule]
    )


def chains(schedule):
    """For every message (sender, bits) the length of the longest chain of messages it ends.

    A message extends a chain if its sender had received that chain's last message before.
    """
    found = []  # (sender, bits, chain length, move it belongs to)
    for number, (kind, a, b) in enumerate(schedule):
        for sender, bits in [(a, b)] if kind == "message" else [(0, a), (1, b)]:
            # Own earlier messages pass on what they stood on, not themselves.
            heard = [n for s, _, n, move in found if s != sender and move < number]
            found.append((sender, bits, 1 + max(heard, default=0), number))
    return found


@given(SCHEDULES)
def test_bits_and_flows_are_those_of_the_longest_chain(schedule):
    found = chains(schedule)

    cost = cost_of(schedule)

    assert cost.sent == tuple(sum(b for s, b, *_ in found if s == rank) for rank in (0, 1))
    assert cost.bits == sum(b for _, b, *_ in found)
    assert cost.flows == max((n for *_, n, _ in found), default=0)


@settings(deadline=None, max_examples=40)
@given(SCHEDULES)
def test_flows_are_the_clock_that_real_wires_reach(schedule):
    wires = local_pair()

    def run(rank):
        clock, wire = 0, wires[rank]
        for kind, a, _ in schedule:
            if kind == "crossing":
                wire.send(b"", clock + 1, "x")
                clock = max(clock, wire.recv(0, "x")[1])
            elif a == rank:
                wire.send(b"", clock + 1, "x")
            else:
                clock = max(clock, wire.recv(0, "x")[1])
        return clock

    with ThreadPoolExecutor(2) as pool:
        clocks = tuple(pool.map(run, (0, 1)))

    cost = cost_of(schedule)
    assert cost.clocks() == clocks
    assert cost.flows == max(clocks)


@given(SCHEDULES, SCHEDULES, SCHEDULES)
def test_addition_is_associative_and_has_a_zero(a, b, c):
    x, y, z = cost_of(a), cost_of(b), cost_of(c)

    assert (x + y) + z == x + (y + z) == cost_of(a + b + c)
    assert x + NOTHING == NOTHING + x == x == Cost() + x
    assert sum([x, y, z]) == total([x, y, z])


@given(SCHEDULES, SCHEDULES)
def test_flows_of_two_schedules_are_at_most_their_sum(a, b):
    x, y = cost_of(a), cost_of(b)

    assert max(x.flows, y.flows) <= (x + y).flows <= x.flows + y.flows


@given(SCHEDULES, SCHEDULES, st.tuples(st.integers(0, 50), st.integers(0, 50)))
def test_clocks_run_through_one_schedule_after_the_other(a, b, start):
    x, y = cost_of(a), cost_of(b)

    assert (x + y).clocks(start) == y.clocks(x.clocks(start))


@given(SCHEDULES, st.integers(0, 40))
def test_repeating_is_adding_again_and_again(schedule, times):
    x = cost_of(schedule)

    assert x.repeated(times) == total([x] * times)


@given(SCHEDULES, st.integers(0, 9))
def test_scaling_scales_bits_and_keeps_flows(schedule, n):
    x = cost_of(schedule)

    assert (x * n).sent == (x.sent[0] * n, x.sent[1] * n)
    assert (x * n).flows == x.flows
    assert x * n == n * x


@pytest.mark.parametrize(
    ("cost", "flows"),
    [
        (NOTHING, 0),
        (message(0, 8), 1),
        (message(0, 8) + message(0, 8), 1),
        (message(0, 8) + message(1, 8), 2),
        (crossing(8), 1),
        (crossing(8) + crossing(8), 2),
        (message(0, 8) + crossing(8), 2),
        (crossing(8) + message(0, 8), 2),
        (message(0, 8) + message(1, 8) + message(0, 8), 3),
        (draw(0, 5) + draw(1, 7), 0),
    ],
)
def test_flows_of_small_schedules(cost, flows):
    assert cost.flows == flows


def test_draws_are_counted_by_their_sender():
    cost = draw(0, 5) + message(1, 3) + draw(1, 7) * 2

    assert cost.rots == (5, 14)
    assert cost.sent == (0, 3)
