"""Layers whose filters' hints are merged: exact, within their bound, and nothing shows a secret."""

import dataclasses

import numpy as np
import pytest
from encrypted import SEED, encrypt, filter_of, layer, operands, plain, weights_of
from layers import ALIKE, NONE
from test_rlwe_secrets import differ, uniform

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he import (
    STATIC,
    Filter,
    Level,
    Matrix,
    Merging,
    Precision,
    Secret,
    Tiling,
    cheapest,
    merged_precision,
    merged_tilings,
)
from pqjax.he.merging import merged, turned
from pqjax.he.polynomial import product
from pqjax.he.sampling import errors
from pqjax.linear import LinearMap
from pqjax.ring import Ring

Q, N = STATIC.ring, STATIC.degree
MAP = LinearMap((12, 13), (3, 3), (1, 1), ALIKE, (1, 1), 1, 7, 13)
KINDS = {
    "dense": (LinearMap.pointwise((1, 1), 300, 45), 16, 4, None, 32),
    "pointwise, fewer filters than are merged": (
        LinearMap.pointwise((7, 7), 40, 20), 14, 4, None, 32,
    ),
    "tiles of rows and columns": (MAP, 14, 4, (7, 8), 8),
    "step": (
        LinearMap((15, 14), (5, 3), (2, 3), ((0, 1), (1, 0)), (1, 1), 1, 4, 5), 14, 4, None, 4,
    ),
    "dilated": (LinearMap((16, 12), (3, 2), (1, 2), ALIKE, (3, 2), 1, 4, 4), 14, 4, None, 2),
    "one filter of two": (LinearMap((9, 9), (2, 2), (1, 1), NONE, (1, 1), 1, 5, 3), 14, 4, None, 2),
    "wide weights": (LinearMap.pointwise((3, 3), 20, 3), 17, 12, None, 4),
    "widest sums": (LinearMap.pointwise((2, 2), 16, 3), 18, 4, None, 2),
    "narrowest sums": (LinearMap.pointwise((2, 2), 16, 3), 1, 2, None, 4),
}  # fmt: skip


def merged_layer(m, w, sum_bits, together, tile=None, own=None, key=bytes(16)):
    """A layer that merges so many hints, in the fewest tiles if none are given."""
    own = own or merged_precision(sum_bits, filter_of(w), together)
    every = merged_tilings(m, N, together)
    tiling = Tiling(m, N, tile, 1, together) if tile else min(every, key=lambda t: t.tiles)
    return layer(m, w, sum_bits, tiling, own, key)


def check(at, w, x, x0):
    bits = at.precision.sum_bits
    server, client, noise = at.infer(x, x0)

    both = Ring(bits + 1).add(server, client)
    y = plain(at.tiling.map, w.astype(np.int64), x.astype(np.int64)) % (1 << bits)
    np.testing.assert_array_equal(both >> both.dtype.type(1), y)
    assert np.abs(noise).max() < at.precision.room
    return noise


@pytest.mark.parametrize("kind", KINDS)
def test_guarded_shares_are_twice_the_plain_convolution(kind):
    m, sum_bits, w_bits, tile, together = KINDS[kind]
    rng = np.random.default_rng(0)
    w = weights_of(rng, m, w_bits)
    at = merged_layer(m, w, sum_bits, together, tile)

    assert at.hint.high.shape == (-(-m.outputs // together), N)
    noise = check(at, w, *operands(rng, m, sum_bits))
    assert 0.2 < noise.std() / at.precision.deviation < 1


@pytest.mark.parametrize("weight", [-8, 7, 0])
@pytest.mark.parametrize("shares", [(0, 0), (-1, 0), (0, 1), (-1, -1), (1 << 15, 1 << 15)])
def test_operands_and_weights_at_their_limits(weight, shares):
    m = LinearMap((9, 9), (3, 3), (1, 1), ALIKE, (1, 1), 1, 24, 9)
    w = np.full(m.weight_shape, weight, np.int8)
    x, x0 = (Ring(16).reduce(np.full(m.in_shape, share, np.int64)) for share in shares)

    check(merged_layer(m, w, 16, 8), w, x, x0)


def test_a_turn_fixes_what_lies_twice_as_far_apart_and_keeps_products():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 1 << 40, (1, N)).astype(np.uint64)
    s = rng.integers(-1, 2, (1, N)).astype(np.int8)
    for depth in range(5):
        step = 1 << depth
        found = turned(a, depth)
        np.testing.assert_array_equal(found[0, :: 2 * step], a[0, :: 2 * step])
        np.testing.assert_array_equal(found[0, step :: 2 * step] + a[0, step :: 2 * step], 0)
        np.testing.assert_array_equal(
            product(Q.reduce(found), turned(s, depth), 40),
            Q.reduce(turned(product(a, s, 40), depth)),
        )


@pytest.mark.parametrize("filters,key_bits", [(1, 20), (3, 20), (64, 20), (0, 20), (4, 0)])
def test_mergings_that_are_none_are_refused(filters, key_bits):
    with pytest.raises(InputError):
        Merging(filters, key_bits)


@pytest.mark.parametrize("change,complaint", [
    ({"groups": 2}, "one group"), ({"filters": 2}, "one group"), ({"merged": 3}, "one group"),
    ({"merged": 64}, "slots"),
])  # fmt: skip
def test_tilings_that_merge_what_cannot_be_are_refused(change, complaint):
    m = LinearMap((10, 10), (3, 3), (1, 1), NONE, (1, 1), change.pop("groups", 1), 4, 40)

    with pytest.raises(InputError, match=complaint):
        dataclasses.replace(Tiling(m, N, (10, 10), 1, 4), **change)
    assert m.groups == 1 or not list(merged_tilings(m, N, 4))


def test_widths_of_another_merging_are_refused():
    w = weights_of(np.random.default_rng(0), MAP, 4)

    with pytest.raises(InputError, match="not for 4 hints"):
        merged_layer(MAP, w, 14, 4, own=merged_precision(14, filter_of(w), 8))


@pytest.mark.parametrize("together", [2, 8, 32])
@pytest.mark.parametrize("sum_bits", [1, 8, 14])
def test_keys_keep_the_failure_bound_and_much_shorter_ones_do_not(sum_bits, together):
    own = merged_precision(sum_bits, Filter(600, 2400), together)

    assert own.failure_log2 <= -64 and own.merging
    fewer = dataclasses.replace(own.merging, key_bits=own.merging.key_bits - 1)
    with pytest.raises(InputError, match="may fail"):
        dataclasses.replace(own, merging=fewer)
    with pytest.raises(InputError, match="more than there are"):
        dataclasses.replace(own, merging=Merging(together, 41))
    with pytest.raises(InputError, match="no keys merge|no parameters"):
        merged_precision(26, Filter(600, 2400), together)


def test_keys_made_too_short_make_wrong_sums(monkeypatch):
    rng = np.random.default_rng(5)
    w = weights_of(rng, MAP, 4)
    own = merged_precision(14, filter_of(w), 8)
    assert own.merging
    monkeypatch.setattr("pqjax.he.precision.FAILURE_LOG2", 0)
    own = dataclasses.replace(own, merging=Merging(8, own.merging.key_bits - 12))

    with pytest.raises(AssertionError):
        check(merged_layer(MAP, w, 14, 8, own=own), w, *operands(rng, MAP, 14))


def test_what_keys_add_stays_below_its_worst_case():
    rng = np.random.default_rng(1)
    secret = Secret(STATIC, Randomness(bytes(16)))
    for level in (Level(0, 3), Level(3, 5)):
        together, depth = 2 << level.depth, level.depth
        products = Q.reduce(rng.integers(0, 1 << 40, (together, N))).astype(np.uint64)
        merging = Merging(together, level.kept_bits)
        high = merged(products, merging, STATIC, SEED)[1][depth]
        assert high.shape == (1 << depth, N) and high.max() < 1 << level.kept_bits

        key = secret.switching(SEED, level)
        noise = key + product(level.matrix(STATIC, SEED).polynomials(), secret._s, 40)
        own = turned(secret._s.astype(np.int64), depth)
        for j, row in enumerate(noise):
            place = 40 - depth - level.digit_bits * (j + 1)
            e = Q.signed(Q.reduce(row - (own[0] << place).view(np.uint64)))
            assert np.abs(e).max() <= 21 and abs(e.var() - 10.5) < 2


def made(key=1, w=None):
    w = weights_of(np.random.default_rng(3), MAP, 4) if w is None else w
    return merged_layer(MAP, w, 14, 4, key=key.to_bytes(16, "little"))


def test_merged_hints_are_uniform_and_their_rows_independent():
    same = np.repeat(weights_of(np.random.default_rng(3), MAP, 4)[..., :1], 13, -1)
    at = made(w=same)
    high, bits = at.hint.high, at.precision.hint_bits

    assert uniform(high, bits) and differ(high[:2], high[2:], bits)
    assert uniform(made(w=np.zeros_like(same)).hint.high, bits)
    # Two of one key differ by errors alone, of two keys by everything.
    other = made(2, same)
    assert differ(high, other.hint.high, bits) and not differ(
        high, at.key.hint(at.matrix, at.randomness).high, bits
    )


def test_without_u_merged_weights_show():
    at, again = made(), made(2)  # a client that guesses the weights makes the sums itself
    assert at.key.sums is not None and again.key.sums is not None
    noise = errors(len(at.key.sums), N, Randomness(bytes(16))).astype(np.uint64)

    shown = at.key.sums + noise - again.key.sums
    assert np.abs(Q.signed(Q.reduce(shown))).max() <= 21
    hidden = product(Matrix.key(STATIC, SEED).polynomials(), at.key.u, Q.bits)
    assert uniform(Q.reduce(shown + hidden), Q.bits)


def test_keys_are_uniform_and_each_is_made_once():
    levels = Merging(32, 24).levels
    one, two = (Secret(STATIC, Randomness(bytes([n] * 16))) for n in (1, 2))
    first, other = (
        np.concatenate([s.switching(SEED, level) for level in levels]) for s in (one, two)
    )

    assert differ(first, other, Q.bits) and differ(first[:-1], first[1:], Q.bits)
    assert len({row.tobytes() for row in np.concatenate([first, other])}) == 2 * len(first)
    with pytest.raises(InputError, match="once"):
        one.switching(SEED, levels[2])
    public = [level.matrix(STATIC, SEED).polynomials() for level in levels]
    assert len({row.tobytes() for each in public for row in each}) == len(first)
    longer = Level(0, levels[0].digits + 1).matrix(STATIC, SEED).polynomials()
    np.testing.assert_array_equal(longer[:-1], public[0])


def test_ciphertexts_of_merged_layers_are_uniform_whatever_they_hold():
    at = made()
    t, own = at.tiling, at.precision
    for value in (0, 1, (1 << 14) - 1):
        x = t.used(t.cut(np.full(MAP.in_shape, value, np.uint16)))
        masks = Secret(STATIC, at.randomness).masks(at.matrix)[None]
        assert uniform(encrypt(t.used(masks), x, own), own.sent_bits)
        assert not uniform(encrypt(0 * t.used(masks), x, own), own.sent_bits)


def test_merging_costs_nothing_in_what_is_sent():
    w = weights_of(np.random.default_rng(0), MAP, 4)
    found, own = cheapest(MAP, 14, filter_of(w), 10_000)
    at = made(w=w)

    assert isinstance(own, Precision) and at.precision.sent_bits == own.sent_bits
    assert at.tiling.slots == found.slots and at.tiling.hints == -(-found.hints // 4)
