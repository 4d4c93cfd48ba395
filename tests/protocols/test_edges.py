"""Ties, empty inputs and the smallest rings."""

import numpy as np
import pytest
from pairs import INLINE, STOCKED, every_pair, run_protocol, shares

from pqjax.protocols.compare import (
    carry_out_cost,
    known_wrap_element,
    known_wrap_element_cost,
    less_than,
)
from pqjax.protocols.forms import Forms
from pqjax.protocols.nonlinear import arg_max, arg_max_cost
from pqjax.protocols.resize import bit_to_ring, bit_to_ring_cost, select, select_cost
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING

BOTH = pytest.mark.parametrize("source", [INLINE, STOCKED], ids=["inline", "stocked"])


@pytest.mark.parametrize(
    "x", [[3, 3], [1, 7, 7, 2], [-8, -8, -8], [5, 4, 3, 5, 5], [0, 1, 1, 1, 0, 1, 1, 0, 1]]
)
def test_arg_max_gives_the_first_of_equals(x):
    x0, x1 = shares(np.random.default_rng(1), np.array(x), 6)

    y = run_protocol(
        lambda p, v: arg_max(p, v, 6, 4, Forms()), (x0[:, None],), (x1[:, None],), STOCKED,
        arg_max_cost(STOCKED, len(x), 1, 6, 4, Forms()),
    )  # fmt: skip

    assert Ring(4).add(*y)[0] == np.argmax(x)


@BOTH
@pytest.mark.parametrize("bits", [1, 4, 5, 64])
def test_comparing_nothing_costs_nothing(source, bits):
    assert carry_out_cost(source, 0, bits) == NOTHING


@BOTH
@pytest.mark.parametrize("bits", [1, 4, 16, 64])
def test_extremes_are_compared(source, bits):
    ring = Ring(bits)
    top = int(ring.mask)
    ends = np.array([0, 1, top >> 1, (top >> 1) + 1 & top, top], np.uint64).astype(ring.dtype)
    a, b = (g.reshape(-1) for g in np.meshgrid(ends, ends))

    y0, y1 = run_protocol(
        lambda p, x: less_than(p, x, bits), (a,), (b,), source,
        carry_out_cost(source, a.size, bits),
    )  # fmt: skip

    np.testing.assert_array_equal(y0 ^ y1, a < b)


@BOTH
@pytest.mark.parametrize("bits", [2, 4, 6])
def test_known_wrap_as_an_element_on_every_sharing(source, bits):
    x, x0, x1 = every_pair(bits)
    keep = x >> (bits - 1) == 0
    x0, x1, ring = x0[keep], x1[keep], Ring(7)

    y = run_protocol(
        lambda p, v: known_wrap_element(p, v, bits, ring), (x0,), (x1,), source,
        known_wrap_element_cost(source, x0.size, ring),
    )  # fmt: skip

    np.testing.assert_array_equal(ring.add(*y), x0.astype(int) + x1 >= 1 << bits)


@BOTH
@pytest.mark.parametrize("bits", [1, 5, 8, 13, 32, 37, 64])
def test_b2a_and_mux_on_every_pair_of_bits(source, bits):
    ring = Ring(bits)
    b0, b1 = np.array([[0, 0, 1, 1], [0, 1, 0, 1]], np.uint8)
    x = ring.reduce(np.array([0, 1, 2**63, 2**64 - 1], np.uint64))
    x0, x1 = shares(np.random.default_rng(bits), x, bits)

    y = run_protocol(
        lambda p, b: bit_to_ring(p, b, ring), (b0,), (b1,), source,
        bit_to_ring_cost(source, 4, ring),
    )  # fmt: skip
    z = run_protocol(
        lambda p, v, b: select(p, v, b, ring), (x0, b0), (x1, b1), source,
        select_cost(source, 4, ring),
    )  # fmt: skip

    np.testing.assert_array_equal(ring.add(*y), b0 ^ b1)
    np.testing.assert_array_equal(ring.add(*z), np.where(b0 ^ b1, x, 0))
