"""Linear layers over RLWE against the plain convolution, on every kind of map."""

import numpy as np
import pytest
from encrypted import filter_of, layer, operands, plain, weights_of
from hypothesis import given, settings
from layers import ALIKE, NONE, maps

from pqjax.errors import InputError
from pqjax.he import STATIC, Filter, Tiling, cheapest, precision_for, tilings
from pqjax.linear import LinearMap
from pqjax.ring import Ring

KINDS = {
    "dense": (LinearMap.pointwise((1, 1), 300, 5), 16, 4, None, 1),
    "many polynomials": (LinearMap.pointwise((1, 1), 4100, 2), 18, 3, None, 1),
    "tiles of rows and columns": (
        LinearMap((20, 23), (3, 2), (1, 1), ALIKE, (1, 1), 1, 3, 4), 14, 4, (8, 9), 1,
    ),
    "filters share a hint": (
        LinearMap((12, 12), (3, 3), (1, 1), ALIKE, (1, 1), 1, 8, 5), 15, 4, None, 2,
    ),
    "filters and tiles": (
        LinearMap((12, 13), (3, 3), (1, 1), ALIKE, (1, 1), 1, 7, 7), 15, 4, (7, 8), 3,
    ),
    "step": (LinearMap((15, 14), (3, 3), (2, 2), ((0, 1), (1, 0)), (1, 1), 1, 4, 4), 14, 4, None, 1),
    "subsampled": (LinearMap((15, 14), (1, 1), (2, 2), NONE, (1, 1), 1, 4, 4), 12, 4, None, 1),
    "step with shared hints": (
        LinearMap((15, 14), (5, 3), (2, 3), ALIKE, (1, 1), 1, 3, 4), 14, 4, None, 4,
    ),
    "dilated": (LinearMap((16, 12), (3, 2), (1, 2), ALIKE, (3, 2), 1, 4, 4), 14, 4, None, 1),
    "grouped": (LinearMap((10, 11), (3, 2), (2, 1), ALIKE, (1, 2), 3, 6, 9), 14, 4, None, 1),
    "depthwise": (LinearMap((30, 30), (3, 3), (1, 1), ALIKE, (1, 1), 9, 9, 9), 13, 8, None, 1),
    "wide weights": (LinearMap.pointwise((3, 3), 20, 3), 17, 12, None, 1),
    "widest sums": (LinearMap.pointwise((2, 2), 16, 3), 25, 4, None, 1),
    "narrowest sums": (LinearMap.pointwise((2, 2), 16, 3), 1, 2, None, 1),
}  # fmt: skip


def check(rng, m, sum_bits, w, tiling=None, own=None):
    at = layer(m, w, sum_bits, tiling, own)
    x, x0 = operands(rng, m, sum_bits)

    server, client, errors = at.infer(x, x0)

    both = Ring(sum_bits + 1).add(server, client)
    y = plain(m, w.astype(np.int64), x.astype(np.int64)) % (1 << sum_bits)
    np.testing.assert_array_equal(both >> both.dtype.type(1), y)
    assert np.abs(errors).max() < at.precision.room
    return at


@pytest.mark.parametrize("kind", KINDS)
def test_guarded_shares_are_twice_the_plain_convolution(kind):
    m, sum_bits, w_bits, tile, filters = KINDS[kind]
    rng = np.random.default_rng(0)
    w = weights_of(rng, m, w_bits)
    tiling = own = None
    if tile or filters > 1:
        found = layer(m, w, sum_bits).tiling
        tiling = Tiling(m, STATIC.degree, tile or found.tile, filters)
        own = precision_for(sum_bits, filter_of(w).packed(filters))

    check(rng, m, sum_bits, w, tiling, own)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(maps())
def test_any_map_in_any_tiling(m):
    rng = np.random.default_rng(m.pixels)
    w = weights_of(rng, m, 3)

    check(rng, m, 12, w)


@pytest.mark.parametrize("weight", [-8, 7, 0])
@pytest.mark.parametrize("shares", [(0, 0), (-1, 0), (0, 1), (-1, -1), (1 << 15, 1 << 15)])
def test_operands_and_weights_at_their_limits(weight, shares):
    m = LinearMap((9, 9), (3, 3), (1, 1), ALIKE, (1, 1), 1, 24, 2)
    w = np.full(m.weight_shape, weight, np.int8)
    at = layer(m, w, 16)
    x, x0 = (np.full(m.in_shape, share, np.int64) for share in shares)

    server, client, _ = at.infer(Ring(16).reduce(x), Ring(16).reduce(x0))

    y = plain(m, w.astype(np.int64), x) % (1 << 16)
    np.testing.assert_array_equal(Ring(17).add(server, client) >> 1, y)


def test_an_exact_truncation_rounds_the_sum():
    m, shift = LinearMap.pointwise((3, 3), 20, 4), 5
    rng = np.random.default_rng(2)
    w = weights_of(rng, m, 4)
    x = rng.integers(-32, 32, m.in_shape)
    at = layer(m, w, 14)

    server, client, _ = at.infer(Ring(14).reduce(x), operands(rng, m, 14)[1])

    ring = Ring(15)
    moved = ring.signed(ring.add(ring.add(server, client), np.uint16(1 << shift)))
    y = plain(m, w.astype(np.int64), x)
    np.testing.assert_array_equal(moved >> shift + 1, y + (1 << shift - 1) >> shift)


@pytest.mark.parametrize("tile,filters,groups", [
    ((2, 5), 1, 1), ((11, 5), 1, 1), ((10, 10), 21, 1), ((5, 5), 2, 2), ((5, 5), 0, 1),
])  # fmt: skip
def test_tilings_that_do_not_hold_together_are_refused(tile, filters, groups):
    m = LinearMap((10, 10), (3, 3), (1, 1), NONE, (1, 1), groups, 4, 40)

    with pytest.raises(InputError):
        Tiling(m, 2048, tile, filters)


def test_weights_beyond_the_bounds_of_their_widths_are_refused():
    m = LinearMap.pointwise((1, 1), 64, 2)
    small, large = (np.full(m.weight_shape, n, np.int8) for n in (1, 7))

    with pytest.raises(InputError, match="larger"):
        layer(m, large, 14, precision=precision_for(14, filter_of(small)))


@pytest.mark.parametrize("largest,dtype", [(127, np.int8), (-128, np.int8), (128, np.int16)])
def test_weights_are_kept_as_narrow_as_they_are(largest, dtype):
    m = LinearMap.pointwise((2, 2), 20, 3)
    rng = np.random.default_rng(1)
    w = weights_of(rng, m, 4).astype(np.int64)
    w[..., 1] = largest

    assert check(rng, m, 14, w).key.weights.dtype == dtype


def test_more_than_one_tiling_is_worth_a_look_and_the_cheapest_follows_the_number_of_inferences():
    m = LinearMap((18, 18), (3, 3), (1, 1), ALIKE, (1, 1), 1, 16, 32)
    costs = {}
    for inferences in (1, 10_000):
        found, own = cheapest(m, 14, Filter(300, m.terms), inferences)
        price = lambda t, p, n=inferences: t.hint_cost(p.hint_bits) + n * t.sent_cost(p.sent_bits)
        every = [Tiling(m, 2048, t.tile, f) for t in tilings(m, 2048) for f in range(1, 33)
                 if t.area * f <= 2048]  # fmt: skip
        packed = [precision_for(14, Filter(300, m.terms).packed(t.filters)) for t in every]
        assert price(found, own) == min(map(price, every, packed))
        costs[inferences] = found.filters
    assert costs[1] > costs[10_000] == 1
