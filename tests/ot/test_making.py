"""Making random OTs beside the protocol: order, room, and every way in which it can end."""

import threading
import time

import numpy as np
import pytest

from pqjax.errors import DeadlineExceeded, OutOfCorrelations, PeerGone
from pqjax.ot.making import Maker, Round
from pqjax.ot.silent import Silent
from pqjax.ot.silent_sets import SETS
from pqjax.ot.stock import Stock
from pqjax.ot.stocked import SoftSpoken
from pqjax.ot.tuning import MOST_OFFERED
from pqjax.protocols.party import make_party, run_pair
from pqjax.wire.channel import local_pair
from pqjax.wire.messenger import Messenger


def counting(n, at, before=lambda hear: None):
    """A round of n rows that say which they are."""

    def make(hear):
        before(hear)
        first = np.arange(at, at + n, dtype=np.uint64)
        yield np.stack([first, first], axis=1), (first % 2).astype(np.uint8)

    return Round(n, make)


def test_rounds_come_in_order_whatever_is_drawn():
    maker, got = Maker(Stock()), []
    maker.order(counting(10, 10 * i) for i in range(20))

    for n in (1, 35, 0, 9, 60, 95):
        rows, bits = maker.draw(n)
        got += rows[:, 0].tolist()
        np.testing.assert_array_equal(bits, rows[:, 0] % 2)

    assert got == list(range(200))
    with pytest.raises(OutOfCorrelations):
        maker.draw(1)


def test_no_more_than_two_rounds_are_held():
    stock = Stock()
    maker, made, most = Maker(stock), [0], 0
    rounds = [
        counting(10, 10 * i, lambda hear: made.__setitem__(0, made[0] + 10)) for i in range(30)
    ]
    maker.order(rounds)

    for drawn in range(1, 301):
        maker.draw(1)
        if drawn % 7 == 0:
            time.sleep(0.002)
        most = max(most, made[0] - drawn)

    assert 10 <= most <= 20


def test_what_was_ordered_can_be_waited_for_whole_or_in_part():
    stock = Stock()
    maker = Maker(stock)
    maker.order(counting(10, 10 * i) for i in range(6))

    maker.wait(2)
    assert stock.left == 20
    maker.wait()
    assert stock.left == 60
    maker.wait()
    assert stock.left == 60


def test_making_goes_on_while_nobody_draws():
    maker, done = Maker(Stock()), threading.Event()
    maker.order([counting(5, 0, lambda hear: done.set())])

    assert done.wait(5.0)
    assert maker.draw(5)[0].shape == (5, 2)


def test_the_next_round_does_not_wait_for_a_party_that_waits_for_the_other():
    maker, begun = Maker(Stock()), threading.Semaphore(0)
    maker.order(counting(n, n, lambda hear: begun.release()) for n in (5, 10, 10))

    assert begun.acquire(timeout=5.0) and begun.acquire(timeout=5.0)  # with nobody to draw
    assert not begun.acquire(timeout=0.1)  # the second is more than half of what may be held
    maker.wait()
    assert begun.acquire(timeout=5.0)


def test_a_fault_is_raised_where_its_ots_are_drawn_and_ends_all_that_follow():
    def fail(hear):
        raise MemoryError("in the second")

    stock = Stock()
    maker = Maker(stock)
    maker.order([counting(10, 0), counting(10, 10, fail), counting(10, 20)])

    with pytest.raises(MemoryError, match="in the second"):
        maker.draw(15)
    assert stock.left == 10
    with pytest.raises(OutOfCorrelations):
        maker.draw(15)


@pytest.mark.parametrize("end", ["silence", "leaving"])
def test_who_draws_what_the_other_side_never_sends_hears_why(end):
    a, b = local_pair(deadline_s=0.4)
    lane = Messenger(b, 1).beside(1)
    maker = Maker(Stock())
    asked = lane.expect(8)
    maker.order([counting(1, 0, lambda hear: hear(asked))])
    time.sleep(0.8)  # nobody draws yet: there is no deadline
    if end == "leaving":
        a.abort()

    with pytest.raises(DeadlineExceeded if end == "silence" else PeerGone):
        maker.draw(1)
    b.abort()
    _no_threads_left()


def _no_threads_left():
    until = time.monotonic() + 5
    while any("ots-of" in t.name for t in threading.enumerate()):
        assert time.monotonic() < until, "a thread is left"
        time.sleep(0.01)


@pytest.mark.parametrize("source", [SoftSpoken(4), Silent(("b10", "b10"))], ids=lambda s: s.name)
def test_ots_made_ahead_are_those_that_were_priced_and_correlate(source, monkeypatch):
    monkeypatch.setattr("pqjax.ot.stocked._ROUND", 1 << 14)
    monkeypatch.setattr("pqjax.ot.silent_sets.GROUP_LEAVES", 1 << 15)
    n = 3 * SETS["b10"].gain if isinstance(source, Silent) else 100_000

    def run(party):
        messenger = party.messenger
        with messenger.layer("online", "stock"):
            party.fill((n, n // 2), streamed=True)
        entry = messenger.trace.entries[-1]
        ends = party.sender, party.receiver
        drawn = [[], []]
        wanted = (n, n // 2) if party.rank == 0 else (n // 2, n)
        for i, (end, most) in enumerate(zip(ends, wanted, strict=True)):
            for at in range(0, most, 50_000):
                drawn[i].append(end.maker.draw(min(50_000, most - at)))
        return drawn, entry, messenger.clock, party.sender._delta

    mine, theirs = run_pair(
        lambda wire: run(make_party(wire, 0, source)), lambda wire: run(make_party(wire, 1, source))
    )

    setup, (cost, _) = source.set_up_cost(), source.fill((0, 0), (n, n // 2))
    assert (mine[1].sent_bits, mine[1].received_bits) == cost.sent
    assert (theirs[1].sent_bits, theirs[1].received_bits) == cost.sent[::-1]
    assert (mine[2], theirs[2]) == cost.clocks(setup.clocks())
    for sends, takes in ((mine, theirs), (theirs, mine)):
        q = np.concatenate([rows for rows, _ in sends[0][0]])
        t, bits = (np.concatenate(x) for x in zip(*takes[0][1], strict=True))
        np.testing.assert_array_equal(q ^ t, bits[:, None].astype(np.uint64) * sends[3])
    _no_threads_left()


def test_a_receiver_may_draw_a_whole_tile_before_its_sender_hears_of_it():
    source, n = Silent(("b10", "b10")), MOST_OFFERED
    assert n > SETS["b10"].gain

    def side(wire, rank):
        party = make_party(wire, rank, source)
        with party.messenger.layer("online", "tile"):
            party.fill((n, 0), streamed=True)
            if rank == 0:
                return party.sender.accept(party.messenger.receive(n), n), party.sender._delta
            rows, raw = party.receiver.offer(np.ones(n, np.uint8))
            party.messenger.send(raw, n)
            return rows

    (zero, delta), rows = run_pair(lambda w: side(w, 0), lambda w: side(w, 1), 20.0)

    np.testing.assert_array_equal(zero ^ delta, rows)
