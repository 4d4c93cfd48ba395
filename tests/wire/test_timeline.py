"""Work in costs, and the seconds that come of it."""

import dataclasses

import pytest

from pqjax.wire.cost import NOTHING, crossing, message, total, work
from pqjax.wire.link import Link
from pqjax.wire.timeline import Clocks, Timeline
from pqjax.wire.work import UNITS, Rates

LINK = Link(mbps=1, rtt_ms=2000)  # a second a flow, a microsecond a bit
MEGABIT = 10**6


def rates(turn_s=0.0, **seconds):
    return Rates(tuple(seconds.get(unit, 0.0) for unit in UNITS), turn_s)


WORDS = rates(words=1.0)


def test_work_adds_up_by_unit_and_rank_and_sends_nothing():
    both = work("words", 3) + work("blocks", 1, 2) + message(0, 8) + work("words", 0, 4) * 2

    assert both.work == {"blocks": (1, 2), "words": (3, 11)}
    assert both == message(0, 8)


def test_work_is_repeated_and_scaled_with_its_cost():
    piece = (work("words", 1, 2) + message(1, 5)) * 3

    assert piece.repeated(7).work == {"words": (21, 42)}
    assert piece.repeated(7) == message(1, 15).repeated(7)
    assert piece.repeated(1).work == piece.work
    assert piece.repeated(0).work == {}
    assert piece.piped(4).work == piece.work


def test_both_parties_work_at_once():
    line = Timeline(LINK, WORDS)

    assert line.seconds(work("words", 3, 5)) == 5
    assert line.computing(work("words", 3, 5) + work("words", 1, 1)) == (4, 6)


def test_a_message_waits_for_its_sender_and_the_link_and_its_receiver_for_it():
    line = Timeline(LINK, WORDS)

    assert line.seconds(message(0, 2 * MEGABIT)) == pytest.approx(3)
    assert line.seconds(work("words", 4, 0) + message(0, MEGABIT)) == pytest.approx(6)
    assert line.seconds(work("words", 0, 4) + message(0, MEGABIT)) == pytest.approx(4)
    assert line.seconds(message(0, MEGABIT) + work("words", 9, 0)) == pytest.approx(9)


def test_messages_of_one_direction_follow_each_other_on_the_link():
    line = Timeline(LINK, WORDS)

    assert line.seconds(message(0, MEGABIT) + message(0, MEGABIT)) == pytest.approx(3)
    assert line.seconds(crossing(MEGABIT)) == pytest.approx(2)
    assert line.seconds(message(0, MEGABIT) + message(1, MEGABIT)) == pytest.approx(4)


def test_what_repeats_takes_what_its_copies_take():
    line = Timeline(LINK, WORDS)
    piece = work("words", 1, 2) + message(1, MEGABIT) + work("words", 3, 0) + message(0, 5)
    begun = Clocks(2.0, 1.0, 5.0, 0.0)

    assert line.after(piece.repeated(9), begun) == pytest.approx(
        line.after(total([piece] * 9), begun)
    )


def test_of_pieces_work_overlaps_the_messages_of_others():
    line = Timeline(LINK, WORDS)
    whole = work("words", 0, 6) + message(1, 10 * MEGABIT) + work("words", 4, 0)

    assert line.seconds(whole) == pytest.approx(6 + 10 + 1 + 4)
    assert line.seconds(whole.piped(1)) == line.seconds(whole)
    assert line.seconds(whole.piped(10)) == pytest.approx(10 + 1 + 1)  # the link is busiest
    assert line.seconds(whole.piped(1e9)) == pytest.approx(10 + 1)


def test_a_turn_and_packing_take_time_without_a_link():
    line = Timeline(None, rates(turn_s=0.5, bits=0.25, messages=2.0))

    assert line.seconds(message(0, 4)) == (4 * 0.25 + 2.0) + 0.5 + (4 * 0.25 + 2.0)
    assert line.computing(message(0, 4)) == (3.0, 3.0)
    assert line.seconds(NOTHING) == 0


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_takes_less_at_a_slower_machine(unit):
    cost = total(work(each, 2, 3) + message(1, 7) for each in UNITS).piped(3)
    fast, slow = (
        Timeline(LINK, Rates(tuple(1.0 + (u == unit) * more for u in UNITS), 0.0))
        for more in (0.0, 1.0)
    )

    assert slow.seconds(cost) > fast.seconds(cost)


def test_where_rates_are_from_does_not_tell_them_apart():
    assert dataclasses.replace(WORDS, source="elsewhere") == WORDS
