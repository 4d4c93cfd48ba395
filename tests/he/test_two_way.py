"""Layers whose result comes back, against the plain convolution, and what goes each way."""

import dataclasses
import math

import numpy as np
import pytest
from encrypted import exchange, filter_of, plain, weights_of
from hypothesis import given, settings
from layers import ALIKE, NONE, maps

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he import CHEETAH, HEQUANT, Filter, Options, Packing, Sharing, Tiling, TwoWay, two_way
from pqjax.he.packing import halved, packed_filter
from pqjax.he.phases import Phases
from pqjax.he.resharing import widths
from pqjax.linear import LinearMap
from pqjax.linear.keys import own_key_cost
from pqjax.ring import Ring

X_BITS = 3
GUARDED, FLOODED, APPROXIMATE = Sharing.GUARDED, Sharing.FLOODED, Sharing.APPROXIMATE
NO, WITHIN, CROSS = Packing.NONE, Packing.WITHIN, Packing.CROSS
SMALL = LinearMap((12, 13), (3, 3), (1, 1), ALIKE, (1, 1), 1, 6, 4)


def accumulator(w):
    """Bits that hold all sums of operands of `X_BITS`, and their sign."""
    most = np.abs(w.astype(int)).sum((0, 1, 2)).max()
    return int(most * ((1 << X_BITS) - 1)).bit_length() + 1


def made(m, w, packing=NO, sharing=GUARDED, tile=None, filters=1, degree=2048, sum_bits=None):
    """A layer in tiles of a given shape, the whole image if none is, and the smallest widths."""
    sum_bits = sum_bits or accumulator(w)
    of, inner, plain_bits = filter_of(w), m, packing.plain_bits(sum_bits)
    if packing is CROSS:
        of, inner = packed_filter(of, sum_bits), halved(m)
    own = widths(plain_bits, of.packed(filters), degree, sharing)[0]
    tile = tile or Phases(inner).image
    return TwoWay(Tiling(inner, degree, tile, filters), own, packing, sum_bits)


def operands(rng, at, m):
    """Images of X_BITS, and shares of the server."""
    x = rng.integers(0, 1 << X_BITS, m.in_shape)
    return x, Ring(at.operand_bits).reduce(rng.integers(0, 1 << 62, m.in_shape))


def expected(at, m, w, x):
    return plain(m, w.astype(np.int64), x) % (1 << at.sum_bits)


KINDS = {
    "dense": (LinearMap.pointwise((1, 1), 300, 5), 4, NO, GUARDED, None, 2, 2048),
    "many polynomials": (LinearMap.pointwise((1, 1), 4100, 2), 2, NO, GUARDED, None, 1, 2048),
    "tiles": (
        LinearMap((20, 23), (3, 2), (1, 1), ALIKE, (1, 1), 1, 3, 4), 4, NO, GUARDED, (8, 9), 3, 1024,
    ),
    "step": (
        LinearMap((15, 14), (5, 3), (2, 3), ALIKE, (1, 1), 1, 3, 4), 4, NO, GUARDED, None, 4, 2048,
    ),
    "dilated groups": (
        LinearMap((10, 11), (3, 2), (2, 1), ALIKE, (1, 2), 3, 6, 9), 4, NO, GUARDED, None, 1, 2048,
    ),
    "depthwise": (LinearMap((20, 20), (3, 3), (1, 1), ALIKE, (1, 1), 5, 5, 5), 8, NO, GUARDED, None,
                  1, 2048),
    "pairs of tiles": (SMALL, 4, WITHIN, GUARDED, (8, 6), 2, 2048),
    "tiles of which one is alone": (SMALL, 4, WITHIN, GUARDED, (6, 15), 1, 4096),
    "one tile in a pair": (SMALL, 3, WITHIN, GUARDED, None, 1, 4096),
    "pairs of tiles in groups": (
        LinearMap((10, 11), (3, 2), (2, 1), ALIKE, (1, 2), 3, 6, 9), 4, WITHIN, GUARDED, (2, 9), 1, 2048,
    ),
    "channels across": (SMALL, 4, CROSS, GUARDED, None, 2, 4096),
    "odd channels across": (LinearMap.pointwise((3, 3), 7, 3), 3, CROSS, GUARDED, None, 2, 2048),
    "channels across with a step": (
        LinearMap((15, 14), (3, 3), (2, 2), ((0, 1), (1, 0)), (1, 1), 1, 4, 4), 3, CROSS, GUARDED,
        (5, 8), 1, 4096,
    ),
    "flooded": (LinearMap.pointwise((3, 3), 4, 3), 2, NO, FLOODED, None, 2, 4096),
    "flooded pairs": (LinearMap((4, 6), (1, 1), (1, 1), NONE, (1, 1), 3, 3, 3), 1, WITHIN, FLOODED,
                      (4, 3), 1, 4096),
}  # fmt: skip


def inference(kind, seed=0):
    m, w_bits, packing, sharing, tile, filters, degree = KINDS[kind]
    rng = np.random.default_rng(seed)
    w = weights_of(rng, m, w_bits)
    at = made(m, w, packing, sharing, tile, filters, degree)
    x, x0 = operands(rng, at, m)
    return m, w, x, exchange(at, w, x, x0)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_the_plain_convolution_exactly_and_messages_have_their_costs(kind):
    m, w, x, found = inference(kind)
    at, own = found.at, found.at.precision

    np.testing.assert_array_equal(found.image(), expected(at, m, w, x))
    assert own.error_log2 <= -64
    for sent, bits in ((found.sent, own.modulus.bits), (found.reply.c1, own.c1_bits),
                       (found.reply.c0, own.c0_bits)):  # fmt: skip
        assert sent.dtype == np.uint64 and int(sent.max()).bit_length() <= bits
    assert at.sent_cost == found.sent.size * own.modulus.bits
    back = found.reply.c1.size * own.c1_bits + found.reply.c0.size * own.c0_bits
    assert at.reply_cost == back
    assert own_key_cost(own.modulus).bits == found.public.size * own.modulus.bits + 128
    assert at.wraps == (0 if at.packing is NO else found.reply.c0.size)
    if at.packing is not WITHIN:
        assert found.reply.c0.size == m.outputs * math.prod(m.out_image)


@pytest.mark.parametrize("packing,tile,degree", [
    (NO, None, 2048), (WITHIN, (7, 15), 4096), (CROSS, None, 4096),
])  # fmt: skip
@pytest.mark.parametrize("weight", [-8, 7, 0])
@pytest.mark.parametrize("value,share", [(0, 0), (7, 0), (7, 7), (7, -1), (0, 1 << 14)])
def test_operands_and_weights_at_their_limits(packing, tile, degree, weight, value, share):
    w = np.full(SMALL.weight_shape, weight, np.int8)
    at = made(SMALL, w, packing, GUARDED, tile, 1, degree)
    x = np.full(SMALL.in_shape, value, np.int64)

    found = exchange(at, w, x, Ring(at.operand_bits).reduce(np.full_like(x, share)))

    np.testing.assert_array_equal(found.image(), expected(at, SMALL, w, x))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(maps())
def test_any_map_in_the_cheapest_tiling(m):
    rng = np.random.default_rng(m.pixels)
    w = weights_of(rng, m, 3)
    at = two_way(m, accumulator(w), filter_of(w), HEQUANT)
    x, x0 = operands(rng, at, m)

    np.testing.assert_array_equal(exchange(at, w, x, x0).image(), expected(at, m, w, x))


def test_uniform_widths_err_by_one_and_as_often_as_stated():
    rng = np.random.default_rng(0)
    m = LinearMap((30, 30), (3, 3), (1, 1), ALIKE, (1, 1), 1, 16, 12)
    w = weights_of(rng, m, 8)
    at = two_way(m, 20, filter_of(w), CHEETAH)
    x, x0 = operands(rng, at, m)

    found = exchange(at, w, x, x0).image()

    off = Ring(37).signed(Ring(37).sub(found, Ring(37).reduce(expected(at, m, w, x))))
    assert (at.sum_bits, at.degree, at.precision.modulus.bits, at.tiling.filters) == (
        37,
        4096,
        64,
        1,
    )
    assert np.abs(off).max() <= 1
    assert (off != 0).mean() <= 2**at.precision.error_log2 + 7 * math.sqrt(1e-4 / off.size)


IDEAS = ("widths", "tiling", "packing")


@pytest.mark.parametrize("on", [(), *((idea,) for idea in IDEAS), IDEAS])
@pytest.mark.parametrize("sharing", [APPROXIMATE, GUARDED])
def test_each_idea_alone_gives_layers_that_are_right(on, sharing):
    rng = np.random.default_rng(1)
    w = weights_of(rng, SMALL, 2)
    options = Options(**{idea: idea in on for idea in IDEAS}, sharing=sharing, uniform_bits=20)
    at = two_way(SMALL, accumulator(w), filter_of(w), options)
    x, x0 = operands(rng, at, SMALL)

    found = exchange(at, w, x, x0).image()

    ring = Ring(at.sum_bits)
    off = ring.signed(ring.sub(found, ring.reduce(expected(at, SMALL, w, x))))
    assert np.abs(off).max() <= (sharing is APPROXIMATE) and (off != 0).mean() < 0.01
    assert (at.sum_bits == 20) == ("widths" not in on)
    assert at.tiling.filters == 1 or "tiling" in on
    assert at.packing is NO or "packing" in on


def test_what_published_tilings_minimise():
    """By the formula, over all tiles and numbers of filters."""
    m = LinearMap((14, 14), (3, 3), (1, 1), ALIKE, (1, 1), 1, 32, 48)
    of, n = Filter(600, m.terms), 4096
    options = dataclasses.replace(CHEETAH, tiling=True)

    def bits(high, wide, filters):
        channels = min(m.inputs, n // (high * wide * filters))
        tiles = -(-14 // (high - 2)) * -(-14 // (wide - 2))
        up, down = -(-m.inputs // channels) * n * 64, -(-m.outputs // filters) * n * 64
        return tiles * up, tiles * down + m.outputs * 14 * 14 * 64

    every = [bits(high, wide, filters) for high in range(3, 17) for wide in range(3, 17)
             for filters in range(1, 49) if high * wide * filters <= n]  # fmt: skip
    best = two_way(m, 16, of, options)
    assert best.sent_cost + best.reply_cost == min(map(sum, every))
    alone = [bits(high, wide, 1) for high in range(3, 17) for wide in range(3, 17)]
    first = two_way(m, 16, of, CHEETAH)
    assert (first.sent_cost, first.reply_cost) == min(alone)


def test_a_wrap_has_its_price():
    m, of = LinearMap((32, 32), (3, 3), (1, 1), ALIKE, (1, 1), 1, 3, 64), Filter(400, 27)
    free, dear = (two_way(m, 16, of, HEQUANT, wrap_bits=bits) for bits in (0, 1000))

    assert free.packing is not NO and free.wraps > 0
    assert dear.packing is NO and dear.wraps == 0
    assert dear.sent_cost + dear.reply_cost > free.sent_cost + free.reply_cost


@pytest.mark.parametrize("sum_bits,options,match", [
    (38, CHEETAH, "more than 37"),
    (16, dataclasses.replace(CHEETAH, uniform_bits=60), r"at most \d+ bits would do"),
    (40, dataclasses.replace(HEQUANT, sharing=FLOODED), r"at most \d+ bits would do"),
    (60, HEQUANT, r"at most \d+ bits would do"),
])  # fmt: skip
def test_sums_that_no_parameters_hold_are_refused_with_those_that_some_do(sum_bits, options, match):
    with pytest.raises(InputError, match=match) as problem:
        two_way(SMALL, sum_bits, Filter(600, 54), options)

    if "at most" in match:
        most = int(str(problem.value).split("at most ")[1].split()[0])
        wider = dataclasses.replace(options, uniform_bits=most)
        assert two_way(SMALL, min(sum_bits, most), Filter(600, 54), wider).sum_bits == most


def test_packing_alone_finds_no_room_for_two_uniform_sums():
    alone = dataclasses.replace(CHEETAH, packing=True)
    found = two_way(SMALL, 16, Filter(600, 54), alone)

    assert found == two_way(SMALL, 16, Filter(600, 54), CHEETAH)
    assert widths(2 * 37, Filter(600, 54), 4096, APPROXIMATE) == ()


def test_what_does_not_belong_together_is_refused():
    m, w, _, found = inference("channels across")
    at, x0 = found.at, np.zeros(m.in_shape, np.uint64)

    def reply(at, weights, matrix):
        at.reply(weights, found.sent, found.public, matrix, x0, Randomness(bytes(16)))

    with pytest.raises(InputError, match="polynomials"):
        reply(at, w, dataclasses.replace(found.matrix, count=9))
    with pytest.raises(InputError, match="larger"):
        reply(at, w * 2, found.matrix)
    with pytest.raises(InputError, match="does not go"):
        dataclasses.replace(at, packing=NO)
    with pytest.raises(InputError, match="across"):
        halved(KINDS["depthwise"][0])
    with pytest.raises(InputError, match="once"):
        at.encrypt(found.secret, found.matrix, x0)
