"""Reconstruction equals plaintext over all widths, signs and wrap-around values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import INLINE, STOCKED, run_protocol, shares

from pqjax.protocols.compare import and_bits, and_cost, carry_out_cost, less_than
from pqjax.protocols.forms import Forms
from pqjax.protocols.nonlinear import (
    arg_max,
    arg_max_cost,
    average_pool,
    max_tree,
    max_tree_cost,
    relu,
    relu_cost,
)
from pqjax.protocols.resize import (
    bit_to_ring,
    bit_to_ring_cost,
    extend,
    extend_cost,
    select,
    select_cost,
    truncate_reduce,
    truncate_reduce_cost,
)
from pqjax.ring import Ring

KINDS = st.sampled_from([STOCKED, STOCKED, INLINE])
FEW = settings(max_examples=25, deadline=None)


@st.composite
def values(draw, least_bits=1):
    """A width, integers of it (extremes among them) and a generator."""
    bits = draw(st.integers(least_bits, 64))
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    edges = st.sampled_from(
        [low, high, 0, -1 if bits > 0 else 0, min(1, high), low // 2, high // 2]
    )
    x = draw(st.lists(st.one_of(edges, st.integers(low, high)), min_size=1, max_size=12))
    return bits, np.array(x, np.int64), np.random.default_rng(draw(st.integers(0, 999)))


@FEW
@given(values(), KINDS)
def test_less_than(case, source):
    bits, x, rng = case
    ring = Ring(bits)
    a, b = ring.reduce(x), ring.reduce(rng.permutation(x))

    y = run_protocol(
        lambda p, s: less_than(p, s, bits), (a,), (b,), source, carry_out_cost(source, x.size, bits)
    )

    np.testing.assert_array_equal((y[0] ^ y[1]).astype(bool), a < b)


@FEW
@given(values(2), KINDS, st.booleans())
def test_relu(case, source, chosen):
    bits, x, rng = case
    forms = Forms(relu_chosen=chosen)
    x0, x1 = shares(rng, x, bits)

    y = run_protocol(
        lambda p, s: relu(p, s, bits, forms), (x0,), (x1,), source,
        relu_cost(source, x.size, bits, forms),
    )  # fmt: skip

    np.testing.assert_array_equal(Ring(bits).signed(Ring(bits).add(*y)), np.maximum(x, 0))


@FEW
@given(values(), KINDS, st.integers(1, 63))
def test_extension(case, source, more):
    bits, x, rng = case
    to = min(64, bits + more)
    x0, x1 = shares(rng, x, bits)

    y = run_protocol(
        lambda p, s: extend(p, s, bits, to, True, False, Forms()), (x0,), (x1,), source,
        extend_cost(source, x.size, bits, to, True, False, Forms()),
    )  # fmt: skip

    np.testing.assert_array_equal(Ring(to).signed(Ring(to).add(*y)), x)


@FEW
@given(values(2), KINDS, st.data())
def test_truncation(case, source, data):
    bits, x, rng = case
    shift = data.draw(st.integers(1, bits - 1))
    x0, x1 = shares(rng, x, bits)

    y = run_protocol(
        lambda p, s: truncate_reduce(p, s, bits, shift), (x0,), (x1,), source,
        truncate_reduce_cost(source, x.size, bits, shift),
    )  # fmt: skip

    short = Ring(bits - shift)
    np.testing.assert_array_equal(short.signed(short.add(*y)), x >> shift)


@FEW
@given(values(), KINDS, st.booleans())
def test_multiplexer_and_b2a(case, source, chosen):
    bits, x, rng = case
    ring = Ring(bits)
    x0, x1 = shares(rng, x, bits)
    b0, b1 = rng.integers(0, 2, (2, x.size)).astype(np.uint8)

    product = run_protocol(
        lambda p, s, b: select(p, s, b, ring, chosen), (x0, b0), (x1, b1), source,
        select_cost(source, x.size, ring, chosen),
    )  # fmt: skip
    bit = run_protocol(
        lambda p, b: bit_to_ring(p, b, ring), (b0,), (b1,), source,
        bit_to_ring_cost(source, x.size, ring),
    )  # fmt: skip

    np.testing.assert_array_equal(ring.add(*product), ring.reduce(x * (b0 ^ b1)))
    np.testing.assert_array_equal(ring.add(*bit), b0 ^ b1)


@pytest.mark.parametrize("source", [INLINE, STOCKED])
@pytest.mark.parametrize("n", [2, 30, 1000])
def test_and_of_shared_bits(source, n):
    rng = np.random.default_rng(n)
    x, y = rng.integers(0, 2, (2, 2, n)).astype(np.uint8)

    z = run_protocol(
        lambda p, a, b: and_bits(p, a, b), (x[0], y[0]), (x[1], y[1]), source,
        and_cost(source, n),
    )  # fmt: skip

    np.testing.assert_array_equal(z[0] ^ z[1], (x[0] ^ x[1]) & (y[0] ^ y[1]))


@FEW
@given(st.integers(2, 40), st.integers(1, 9), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_max_and_arg_max(bits, k, n, positive, seed):
    rng = np.random.default_rng(seed)
    quarter = 2 ** (bits - 2)  # differences of any two values fit
    low, high = (0, 2 ** (bits - 1)) if positive else (-quarter, quarter)
    x = rng.integers(low, high, (k, n)) // rng.choice([1, 2**20])  # ties, too
    x0, x1 = shares(rng, x, bits)
    forms = Forms()

    best = run_protocol(
        lambda p, s: max_tree(p, s, bits, forms), (x0,), (x1,), STOCKED,
        max_tree_cost(STOCKED, k, n, bits, forms),
    )  # fmt: skip
    place = run_protocol(
        lambda p, s: arg_max(p, s, bits, 4, forms), (x0,), (x1,), STOCKED,
        arg_max_cost(STOCKED, k, n, bits, 4, forms),
    )  # fmt: skip

    np.testing.assert_array_equal(Ring(bits).signed(Ring(bits).add(*best)), x.max(0))
    np.testing.assert_array_equal(Ring(4).add(*place), x.argmax(0))


def test_average_pool_sums_windows_of_shares():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 50, (7, 7, 3))
    x0, x1 = shares(rng, x, 20)

    y = [average_pool(s, Ring(20), (7, 7), (7, 7), 84) for s in (x0, x1)]

    np.testing.assert_array_equal(Ring(20).add(*y)[0, 0], x.sum((0, 1)) * 84)
