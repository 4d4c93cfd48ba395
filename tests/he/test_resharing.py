"""Widths of replies keep their bounds, errors are as stated, and slots of packed sums come apart."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from encrypted import exchange, filter_of, weights_of
from layers import ALIKE

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he import Filter, Modulus, Packing, ReplyPrecision, Sharing, Tiling, TwoWay
from pqjax.he.packing import pack_filters, packed_filter, slots
from pqjax.he.resharing import ERRORS_LOG2, mask, unmask, widths
from pqjax.he.shares import rounded
from pqjax.linear import LinearMap
from pqjax.ring import Ring

GUARDED, FLOODED, APPROXIMATE = Sharing.GUARDED, Sharing.FLOODED, Sharing.APPROXIMATE
MAP = LinearMap((30, 30), (3, 3), (1, 1), ALIKE, (1, 1), 1, 8, 12)


def least(sharing, plain_bits=12, squares=144 * 20, fewer=0):
    """The smallest modulus and all its bits back, or some fewer."""
    own = widths(plain_bits, Filter(squares, 144), 4096, sharing)[0]
    k = own.modulus.bits
    return dataclasses.replace(own, c1_bits=k, c0_bits=k - fewer)


def off(own, e, randomness=None):
    """What sums of given errors are off by, each under a mask of its own."""
    k, p = own.modulus.bits, own.plain_bits
    y = np.arange(e.size, dtype=np.uint64) * np.uint64(12345) & Ring(p).mask
    phase = (y << np.uint64(k - p)) + e.astype(np.uint64)
    phase = own.modulus.ring.reduce(phase).astype(np.uint64)
    c0, server = mask(phase, own, randomness or Randomness(bytes(16)))
    client = unmask(c0.astype(np.uint64) << np.uint64(k - own.c0_bits), own)
    ring = Ring(own.share_bits)
    both = ring.add(server, client)
    return ring.signed(ring.sub(both, ring.reduce(y << np.uint64(own.guard))))


@pytest.mark.parametrize("value", [0, 1, -1, 200, -200, 1000, -1000])
@pytest.mark.parametrize("fewer", [0, 3])
def test_approximate_sums_are_off_as_often_as_their_errors_are_large(value, fewer):
    own = least(APPROXIMATE, fewer=fewer)
    step, gap = 1 << fewer, 1 << own.modulus.bits - own.plain_bits

    found = off(own, np.full(1 << 18, value))

    rate = (found != 0).mean()
    assert np.abs(found).max() <= 1 and (found * np.sign(value) >= 0).all()
    slack = 7 * math.sqrt(max(rate, 2**-18) / found.size)
    assert abs(rate - abs(value) / gap) <= slack + (step / gap if fewer else 0)
    assert rate == 0 or value


@pytest.mark.parametrize("sharing,allowed", [(GUARDED, {0, 1}), (FLOODED, {0})])
@pytest.mark.parametrize("fewer", [0, 3])
def test_other_sums_are_exact_up_to_their_room_and_break_beyond(sharing, allowed, fewer):
    p = 12 if sharing is GUARDED else 6
    own = least(sharing, plain_bits=p, squares=9, fewer=fewer)
    n = 1 << 12
    inside = own.room - 1
    within = np.concatenate([np.full(n, e) for e in (inside, -inside, 0, 1, -1)])

    assert set(np.unique(off(own, within)).tolist()) <= allowed
    beyond = np.full(n, 2 * own.room + 3 * (1 << own.modulus.bits - own.share_bits - 1))
    assert not set(np.unique(off(own, beyond)).tolist()) <= allowed


@pytest.mark.parametrize("sharing", Sharing)
@pytest.mark.parametrize("plain_bits,squares", [(1, 1), (6, 12), (13, 600), (30, 5000)])
@pytest.mark.parametrize("degree", [1024, 2048, 4096])
def test_widths_keep_the_failure_bound_and_fewer_bits_do_not(sharing, plain_bits, squares, degree):
    found = widths(plain_bits, Filter(squares, squares), degree, sharing)

    for own in found:
        assert own.failure_log2 <= -64 and own.plain_bits == plain_bits
        assert sharing is not APPROXIMATE or own.error_log2 <= ERRORS_LOG2
        k, b1 = own.modulus.bits, own.c1_bits
        for name, bits in (("c1_bits", b1 - 3), ("c0_bits", own.c0_bits - 1)):
            try:
                less = dataclasses.replace(own, **{name: bits})
            except InputError:
                continue
            assert sharing is APPROXIMATE and less.error_log2 > ERRORS_LOG2
        assert k <= found[0].modulus.bits + 3
    if found and found[0].modulus.bits > plain_bits + 2:
        k = found[0].modulus.bits - 1
        try:
            less = dataclasses.replace(
                found[0], modulus=Modulus(degree, k, False), c1_bits=k, c0_bits=k
            )
            assert sharing is APPROXIMATE and less.error_log2 > ERRORS_LOG2
        except InputError:
            pass
    assert found or sharing is FLOODED or plain_bits == 30 or degree == 1024


@pytest.mark.parametrize("plain,c1,c0", [
    (0, 30, 30), (12, 13, 30), (12, 30, 13), (12, 41, 30), (12, 30, 41), (27, 40, 40),
])  # fmt: skip
def test_other_widths_are_refused(plain, c1, c0):
    with pytest.raises(InputError, match="bit"):
        ReplyPrecision(Modulus(4096, 40, False), Filter(144 * 20, 144), plain, c1, c0, GUARDED)


@pytest.mark.parametrize("degree,bits", [(1024, 27), (2048, 54), (4096, 65)])
def test_no_widths_go_beyond_the_table(degree, bits):
    with pytest.raises(InputError, match="allows"):
        Modulus(degree, bits, False)
    for plain_bits in range(1, 63):
        for own in widths(plain_bits, Filter(1, 1), degree, GUARDED):
            assert own.modulus.bits < bits


def layer(sharing=GUARDED, packing=Packing.NONE, **changes):
    rng = np.random.default_rng(5)
    w = weights_of(rng, MAP, 4)
    w[...] = w[..., :1].repeat(12, -1) * (1 - 2 * rng.integers(0, 2, w.shape)).astype(np.int8)
    own = dataclasses.replace(widths(14, filter_of(w), 4096, sharing)[0], **changes)
    return w, TwoWay(Tiling(MAP, 4096, (32, 32)), own, packing, 14)


def errors_of(monkeypatch, at, w):
    """What the client would decrypt with an operand of zero and no mask."""
    bare = lambda phase, own, _: (rounded(phase, own.modulus.bits, own.c0_bits), 0 * phase)
    monkeypatch.setattr("pqjax.he.exchange.mask", bare)
    x = np.zeros(MAP.in_shape, np.int64)
    found = [exchange(at, w, x, x.astype(np.uint16), key=bytes([n]) * 16) for n in range(4)]
    ring = at.precision.modulus.ring
    return np.concatenate([ring.signed(at.phase(f.secret, f.reply)).reshape(-1) for f in found])


def test_errors_have_the_stated_deviation_and_tail(monkeypatch):
    w, at = layer()
    at = dataclasses.replace(at, precision=dataclasses.replace(
        at.precision, c0_bits=at.precision.modulus.bits))  # fmt: skip
    own = at.precision
    scaled = errors_of(monkeypatch, at, w) / own.deviation

    assert own.c1_bits < own.modulus.bits
    assert abs(scaled.std() - 1) < 0.05 and abs(scaled.mean()) < 0.05
    assert abs((scaled**4).mean() - 3) < 0.2
    for tau in (1, 2, 3, 4):
        assert (np.abs(scaled) > tau).mean() <= 2 * math.exp(-tau * tau / 2)
    assert np.abs(scaled * own.deviation).max() < own.room


def test_a_bound_made_too_small_makes_wrong_sums(monkeypatch):
    w, at = layer()
    x = np.random.default_rng(0).integers(0, 8, MAP.in_shape)
    good = exchange(at, w, x, x.astype(np.uint16)).image()
    bits = at.precision.c1_bits - 5
    with pytest.raises(InputError, match="may fail"):
        dataclasses.replace(at.precision, c1_bits=bits)

    monkeypatch.setattr("pqjax.he.resharing.FAILURE_LOG2", 0)
    bad = dataclasses.replace(at, precision=dataclasses.replace(at.precision, c1_bits=bits))

    assert (exchange(bad, w, x, x.astype(np.uint16)).image() != good).any()


@pytest.mark.parametrize("bits", range(2, 7))
def test_slots_of_every_pair_of_shares(bits):
    for low in range(2, bits):
        shares = np.array(list(itertools.product(range(1 << bits), repeat=2)), np.uint64).T
        quarter = 1 << low - 2
        fits = (shares.sum(0).astype(np.int64) + quarter) % (1 << low) < 2 * quarter
        shares = shares[:, fits]
        mine, theirs = (slots(share, low, bits, rank) for rank, share in enumerate(shares))
        whole = (shares[0] + shares[1]).astype(np.int64) % (1 << bits)
        y = Ring(low).signed(Ring(low).reduce(whole))
        assert set(np.unique(y)) == set(range(-quarter, quarter))
        z = (whole - y >> low) % (1 << bits - low)

        np.testing.assert_array_equal((mine.low + theirs.low) % (1 << low), y % (1 << low))
        wrap = mine.rest + theirs.rest >> np.uint64(low)
        np.testing.assert_array_equal(wrap, (mine.rest | theirs.rest) >> np.uint64(low - 1))
        np.testing.assert_array_equal((mine.high + theirs.high + wrap) % (1 << bits - low), z)
        near = (mine.near + theirs.near).astype(np.int64) - z
        for value in np.unique(y):  # off by one for |y| of the 2^low lower halves of a share
            wrong = (near[y == value] % (1 << bits - low)) != 0
            assert wrong.mean() == abs(value) / (1 << low)


def test_packed_weights_are_bounded_as_stated():
    rng = np.random.default_rng(0)
    w = weights_of(rng, LinearMap.pointwise((1, 1), 7, 40), 4)

    packed = pack_filters(w, 9)

    squares = max(sum(int(n) ** 2 for n in row) for row in packed.reshape(-1, 40).T)
    bound = packed_filter(filter_of(w), 9)
    assert bound.squares / 4 < squares <= bound.squares and bound.terms == 4
    with pytest.raises(InputError, match="64"):
        pack_filters(w, 56)
