"""Edges and misuse of oblivious transfer: nothing at all, too little in store, cut messages."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import INLINE, STOCKED, dealt_party, extension_pair, of_rank, run_protocol

from pqjax.errors import InputError, OutOfCorrelations, WireError
from pqjax.ot.correlations import (
    Picks,
    Tables,
    chosen_both,
    chosen_both_cost,
    cot_cost,
    cot_receive,
    cot_send,
    pick_cost,
    pick_receive,
    pick_send,
)
from pqjax.ot.stocked import SoftSpoken
from pqjax.protocols.party import run_pair
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING

BOTH = pytest.mark.parametrize("source", [INLINE, STOCKED], ids=["inline", "stocked"])


@settings(max_examples=25, deadline=None)
@given(bits=st.integers(1, 64), n=st.integers(0, 40), seed=st.integers(0, 99))
def test_correlated_and_chosen_ot_at_every_width(bits, n, seed):
    rng = np.random.default_rng(seed)
    ring = Ring(bits)
    a, b = (ring.reduce(rng.integers(0, 2**64, n, dtype=np.uint64)) for _ in range(2))
    c = rng.integers(0, 2, n).astype(np.uint8)

    y = run_protocol(
        of_rank(lambda p, a: cot_send(p, a, ring), lambda p, c: cot_receive(p, c, ring)),
        (a,), (c,), STOCKED, cot_cost(STOCKED, 0, n, ring),
    )  # fmt: skip
    got = run_protocol(
        lambda p, a, b, c: chosen_both(p, a, b, c, ring), (a, b, c), (b, a, 1 - c), STOCKED,
        chosen_both_cost(STOCKED, n, ring),
    )  # fmt: skip

    np.testing.assert_array_equal(ring.add(*y), ring.mul(a, c.astype(ring.dtype)))
    np.testing.assert_array_equal(got[0], np.where(c, a, b))
    np.testing.assert_array_equal(got[1], np.where(1 - c, b, a))


@BOTH
def test_picking_from_no_tables_sends_nothing(source):
    run = of_rank(
        lambda p, w: pick_send(p, Tables(w, 4, 2)), lambda p, c: pick_receive(p, Picks(c, 4, 2))
    )

    shares = run_protocol(run, (np.zeros(0, np.uint64),), (np.zeros(0, np.uint8),), source, NOTHING)

    assert all(len(x) == 0 for (x,) in shares) and pick_cost(source, 0, (0, 4, 2)) == NOTHING


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_extended_rows_are_correlated_beyond_a_chunk(k):
    receiver, sender, delta = extension_pair(k)
    n = (1 << 16) + 3
    choices = np.random.default_rng(k).integers(0, 2, n).astype(np.uint8)

    t, raw = receiver.extend(choices)

    np.testing.assert_array_equal(sender.extend(raw, n) ^ t, choices[:, None] * delta)


def test_an_empty_store_stops_both_parties():
    def side(rank):
        return lambda wire: of_rank(
            lambda p: cot_send(p, np.ones(5, np.uint8), Ring(8)),
            lambda p: cot_receive(p, np.ones(5, np.uint8), Ring(8)),
        )(dealt_party(wire, rank, (4, 0)))

    with pytest.raises(OutOfCorrelations, match="5 random OTs are needed and 4 are left"):
        run_pair(side(0), side(1))


def test_a_cut_message_is_a_wire_error():
    def cut(wire):
        party = dealt_party(wire, 1, (64, 0))
        party.messenger.send(np.zeros(7, np.uint8), 56)  # 64 choice bits are 8 bytes
        return party.messenger.receive(64 * 8)

    with pytest.raises(WireError):
        run_pair(
            lambda wire: cot_send(dealt_party(wire, 0, (64, 0)), np.ones(64, np.uint8), Ring(8)),
            cut,
        )


@pytest.mark.parametrize("k", [-1, 0, 3, 5, 16, 128])
def test_only_four_parameters_are_allowed(k):
    with pytest.raises(InputError, match="k must be one of"):
        SoftSpoken(k)


@pytest.mark.parametrize("bits", [-1, 0, 65])
def test_no_ring_is_narrower_than_1_or_wider_than_64(bits):
    with pytest.raises(ValueError, match="1..64"):
        Ring(bits)


@pytest.mark.parametrize("m,t", [(0, 1), (5, 1), (4, 5), (2, 0), (1, 33)])
def test_the_receiver_too_refuses_tables_that_do_not_fit(m, t):
    nobody: Any = None
    with pytest.raises(InputError, match="1-of-2"):
        pick_receive(nobody, Picks(np.zeros(1, np.uint8), m, t))
