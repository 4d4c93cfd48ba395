"""Lanes of one wire: each in its order, none waiting for another."""

import socket
import struct
import threading
import time

import numpy as np
import pytest

from pqjax.errors import Drift, PeerGone, WireError
from pqjax.wire import tcp
from pqjax.wire.interface import LANES
from pqjax.wire.messenger import Messenger
from pqjax.wire.tcp import TcpWire
from pqjax.wire.word import LANE_SHIFT


def met(a, b):
    """Both ends, after a first frame each way."""
    for one, other in ((a, b), (b, a)):
        one.send(b"hello", 1, "hello")
        other.recv(5, "hello")
    return a, b


def test_every_lane_keeps_its_own_order(join):
    a, b = met(*join())
    rng, sent = np.random.default_rng(0), [[] for _ in range(LANES)]
    for _ in range(60):
        lane, n = int(rng.integers(LANES)), int(rng.integers(0, 200_000))
        payload = rng.integers(0, 256, n, dtype=np.uint8)
        sent[lane].append(payload)
        a.send(payload, 1, "x", lane)

    tickets = [
        [b.expect(len(p), f"{lane}", None, lane) for p in sent[lane]] for lane in range(LANES)
    ]

    for lane in reversed(range(LANES)):
        for ticket, payload in zip(tickets[lane], sent[lane], strict=True):
            np.testing.assert_array_equal(ticket.wait()[0], payload)
    assert a.sent_bytes == b.received_bytes


@pytest.mark.parametrize("lane", range(1, LANES))
def test_a_frame_that_nobody_awaits_keeps_none_of_another_lane(join, lane):
    a, b = met(*join())
    awaited = b.expect(3, "behind", None, lane)

    for n in (100_000, 0, 7):
        a.send(np.full(n, n % 251, np.uint8), 1, "in front")
    a.send(b"abc", 1, "behind", lane)

    assert awaited.wait()[0].tobytes() == b"abc"
    for n in (100_000, 0, 7):
        got = b.recv(n, "in front")[0]
        np.testing.assert_array_equal(got, np.full(n, n % 251, np.uint8))


def test_who_sends_what_nobody_awaits_is_held_back_at_some_point(monkeypatch):
    monkeypatch.setattr(tcp, "_EARLY_BYTES", 1000)
    one, two = socket.socketpair()
    front, back = TcpWire(one), TcpWire(two, deadline_s=0.3)
    with front as a, back as b:
        met(a, b)
        behind = b.expect(3, "behind", None, 1)
        a.send(bytes(600), 1, "in front")
        a.send(bytes(600), 1, "in front")  # no room for it
        a.send(b"abc", 1, "behind", 1)

        time.sleep(0.1)
        assert back._early_bytes == 600
        assert [b.recv(600, "in front")[0].size for _ in range(2)] == [600, 600]
        assert behind.wait()[0].tobytes() == b"abc" and back._early_bytes == 0


def test_a_frame_that_came_early_is_checked_when_it_is_asked_for(join):
    a, b = met(*join())
    behind = b.expect(3, "behind", None, 1)
    a.send(bytes(5), 1, "in front")
    a.send(b"abc", 1, "behind", 1)
    assert behind.wait()[0].tobytes() == b"abc"

    with pytest.raises(Drift, match="expected step 1 with 6 bytes, got step 1 with 5 bytes"):
        b.recv(6, "in front")


def test_a_lane_that_there_is_not_is_drift():
    raw, two = socket.socketpair()
    with raw, TcpWire(two) as b:
        ticket = b.expect(1, "here")
        raw.sendall(struct.pack("<IIQ", 0, 0, 1) + b"x")
        assert ticket.wait()[0].tobytes() == b"x"
        ticket = b.expect(1, "there")
        raw.sendall(struct.pack("<IIQ", LANES << LANE_SHIFT, 0, 1) + b"x")

        with pytest.raises(Drift, match=f"there: a frame in lane {LANES}"):
            ticket.wait()


def test_who_waits_patiently_waits_beyond_the_deadline_and_not_beyond_the_end(join):
    a, b = met(*join(deadline_s=0.2))
    for end in ("frame", "failure"):
        ticket = b.expect(1, "x", None, 1)
        act = a.abort if end == "failure" else lambda: a.send(b"x", 1, "x", 1)
        threading.Timer(0.6, act).start()
        if end == "frame":
            assert ticket.wait(patient=True)[0].tobytes() == b"x"
        else:
            with pytest.raises(PeerGone):
                ticket.wait(patient=True)


def test_who_closes_a_wire_ends_a_patient_wait(join):
    _, b = met(*join())
    ticket = b.expect(1, "x", None, 2)
    threading.Timer(0.2, b.abort).start()

    with pytest.raises(WireError):
        ticket.wait(patient=True)


def test_a_messenger_beside_has_a_clock_of_its_own_and_the_layers_books(join):
    a, b = met(*join())
    mine, theirs = Messenger(a, 0), Messenger(b, 1)
    mine.clock = theirs.clock = 1
    with mine.layer("offline", "stock"), theirs.layer("offline", "stock"):
        lane, other = mine.beside(1), theirs.beside(1)
    with mine.layer("online", "later"), theirs.layer("online", "later"):
        lane.send(np.zeros(2, np.uint8), 16)
        other.receive(16)

    assert (lane.clock, other.clock, mine.clock, theirs.clock) == (1, 2, 1, 1)
    assert [(e.layer, e.sent_bits) for e in mine.trace.entries] == [("stock", 16), ("later", 0)]
    assert [(e.layer, e.received_bits) for e in theirs.trace.entries] == [
        ("stock", 16),
        ("later", 0),
    ]
    assert lane.where == "stock"
