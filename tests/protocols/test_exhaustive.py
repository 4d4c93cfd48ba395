"""Every value with every way of sharing it, on rings of up to 6 bits."""

import numpy as np
import pytest
from pairs import INLINE, STOCKED, every_pair, run_protocol

from pqjax.protocols.clamp import clamp, clamp_cost
from pqjax.protocols.compare import (
    carry_out_cost,
    known_wrap_bit,
    known_wrap_cost,
    known_wrap_element,
    known_wrap_element_cost,
    less_and_equal,
    less_and_equal_cost,
    less_than,
    negative,
    negative_cost,
    wrap_bit,
)
from pqjax.protocols.forms import Forms
from pqjax.protocols.nonlinear import relu, relu_cost
from pqjax.protocols.resize import (
    extend,
    extend_cost,
    truncate,
    truncate_cost,
    truncate_reduce,
    truncate_reduce_cost,
)
from pqjax.ring import Ring

SMALL = [1, 2, 3, 4, 5, 6]
FORMS = [Forms(), Forms("choice", True), Forms("table", True)]
BOTH = pytest.mark.parametrize("source", [INLINE, STOCKED], ids=["inline", "stocked"])


@BOTH
@pytest.mark.parametrize("bits", SMALL)
def test_less_than_on_every_pair(source, bits):
    _, a, b = every_pair(bits)
    cost = carry_out_cost(source, a.size, bits)

    y0, y1 = run_protocol(lambda p, x: less_than(p, x, bits), (a,), (b,), source, cost)

    np.testing.assert_array_equal((y0 ^ y1).astype(bool), a < b)


@BOTH
@pytest.mark.parametrize("bits", SMALL)
def test_wrap_and_sign_on_every_sharing(source, bits):
    x, x0, x1 = every_pair(bits)
    wraps = run_protocol(
        lambda p, s: wrap_bit(p, s, bits),
        (x0,),
        (x1,),
        source,
        carry_out_cost(source, x.size, bits),
    )
    signs = run_protocol(
        lambda p, s: negative(p, s, bits), (x0,), (x1,), source, negative_cost(source, x.size, bits)
    )

    np.testing.assert_array_equal(wraps[0] ^ wraps[1], (x0.astype(int) + x1 >= 1 << bits))
    np.testing.assert_array_equal((signs[0] ^ signs[1]).astype(bool), Ring(bits).signed(x) < 0)


@BOTH
@pytest.mark.parametrize("bits", [2, 3, 6])
@pytest.mark.parametrize("by_table", [False, True])
def test_wrap_with_known_sign_on_every_sharing_of_nonnegative_values(source, bits, by_table):
    x, x0, x1 = every_pair(bits)
    keep = Ring(bits).signed(x) >= 0
    x0, x1 = x0[keep], x1[keep]
    wanted = x0.astype(int) + x1 >= 1 << bits
    ring = Ring(5)

    bit = run_protocol(
        lambda p, s: known_wrap_bit(p, s, bits, by_table), (x0,), (x1,), source,
        known_wrap_cost(source, x0.size, by_table),
    )  # fmt: skip
    element = run_protocol(
        lambda p, s: known_wrap_element(p, s, bits, ring), (x0,), (x1,), source,
        known_wrap_element_cost(source, x0.size, ring),
    )  # fmt: skip

    np.testing.assert_array_equal(bit[0] ^ bit[1], wanted)
    np.testing.assert_array_equal(ring.add(*element), wanted)


@BOTH
@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize("bits", SMALL)
@pytest.mark.parametrize("kind", ["signed", "unsigned", "nonnegative"])
def test_extension_on_every_sharing(source, forms, bits, kind):
    x, x0, x1 = every_pair(bits)
    signed, nonnegative = kind != "unsigned", kind == "nonnegative"
    value = Ring(bits).signed(x) if signed else x.astype(np.int64)
    if nonnegative:
        keep = value >= 0
        value, x0, x1 = value[keep], x0[keep], x1[keep]
    to = bits + 3
    cost = extend_cost(source, value.size, bits, to, signed, nonnegative, forms)

    y = run_protocol(
        lambda p, s: extend(p, s, bits, to, signed, nonnegative, forms), (x0,), (x1,), source, cost
    )

    np.testing.assert_array_equal(Ring(to).add(*y), Ring(to).reduce(value))


SHIFTS = pytest.mark.parametrize("bits,shift", [(2, 1), (3, 1), (4, 2), (5, 4), (6, 3), (6, 5)])


@BOTH
@SHIFTS
@pytest.mark.parametrize("drop", [0, 1])
def test_truncate_and_reduce_on_every_sharing(source, bits, shift, drop):
    x, x0, x1 = every_pair(bits)
    keep = max(1, bits - shift - drop)

    y = run_protocol(
        lambda p, s: truncate_reduce(p, s, bits, shift, keep), (x0,), (x1,), source,
        truncate_reduce_cost(source, x.size, bits, shift, keep),
    )  # fmt: skip

    np.testing.assert_array_equal(
        Ring(keep).add(*y), Ring(keep).reduce(Ring(bits).signed(x) >> shift)
    )


@BOTH
@SHIFTS
@pytest.mark.parametrize("sign", ["signed", "unsigned", "nonnegative"])
@pytest.mark.parametrize("forms", FORMS)
def test_truncation_in_full_width_on_every_sharing(source, bits, shift, sign, forms):
    x, x0, x1 = every_pair(bits)
    value = x.astype(np.int64) if sign == "unsigned" else Ring(bits).signed(x)
    keep = value >= (0 if sign == "nonnegative" else -64)
    how = (sign != "unsigned", sign == "nonnegative", forms)

    y = run_protocol(
        lambda p, s: truncate(p, s, bits, shift, *how), (x0[keep],), (x1[keep],), source,
        truncate_cost(source, int(keep.sum()), bits, shift, *how),
    )  # fmt: skip

    np.testing.assert_array_equal(Ring(bits).add(*y), Ring(bits).reduce(value[keep] >> shift))


@BOTH
@pytest.mark.parametrize("bits", SMALL)
def test_less_and_equal_on_every_pair(source, bits):
    _, a, b = every_pair(bits)
    cost = less_and_equal_cost(source, a.size, bits)

    bits0, bits1 = run_protocol(
        lambda p, s: np.stack(less_and_equal(p, s, bits)), (a,), (b,), source, cost
    )

    np.testing.assert_array_equal(bits0 ^ bits1, np.stack([a < b, a == b]))


@BOTH
@pytest.mark.parametrize("forms", FORMS[:2])
@pytest.mark.parametrize("bits", SMALL)
def test_relu_on_every_sharing(source, forms, bits):
    x, x0, x1 = every_pair(bits)
    cost = relu_cost(source, x.size, bits, forms)

    y = run_protocol(lambda p, s: relu(p, s, bits, forms), (x0,), (x1,), source, cost)

    np.testing.assert_array_equal(
        Ring(bits).signed(Ring(bits).add(*y)), np.maximum(Ring(bits).signed(x), 0)
    )


@BOTH
@pytest.mark.parametrize("forms", FORMS[:2])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("low,high,out", [(0, 3, 2), (0, 7, 4), (0, 0, 1), (-4, 3, 3), (-1, 5, 5)])
def test_clamp_on_every_sharing(source, forms, nonnegative, low, high, out):
    x, x0, x1 = every_pair(5)
    value = Ring(5).signed(x)
    keep = value >= (0 if nonnegative else -16)
    cost = clamp_cost(source, int(keep.sum()), 5, low, Ring(out), nonnegative, forms)

    y = run_protocol(
        lambda p, s: clamp(p, s, 5, low, high, Ring(out), nonnegative, forms),
        (x0[keep],), (x1[keep],), source, cost,
    )  # fmt: skip

    wanted = np.clip(value[keep], low, high)
    np.testing.assert_array_equal(Ring(out).add(*y), Ring(out).reduce(wanted))
