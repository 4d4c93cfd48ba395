"""Products and convolutions against Python's integers."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqjax.errors import InputError
from pqjax.ring import Ring, conv, matmul

SAME = ((1, 1), (1, 1))


def elements(shape, bits, seed=0):
    words = np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64)
    return Ring(bits).reduce(words)


def slow_matmul(a, b, bits):
    return (a.astype(object) @ b.astype(object)) % 2**bits


def slow_conv(x, w, bits, stride, padding, groups=1, dilation=(1, 1)):
    """One output pixel and channel at a time."""
    x, w = np.pad(x, ((0, 0), *padding, (0, 0))).astype(object), w.astype(object)
    (down, right), (group_in, channels) = stride, w.shape[2:]
    h, wide = ((n - 1) * d + 1 for n, d in zip(w.shape[:2], dilation, strict=True))
    y = np.zeros(
        (len(x), (x.shape[1] - h) // down + 1, (x.shape[2] - wide) // right + 1, channels), object
    )
    for k in range(channels):
        first = k // (channels // groups) * group_in
        for i, j in np.ndindex(y.shape[1:3]):
            window = x[:, i * down : i * down + h, j * right : j * right + wide]
            window = window[:, :: dilation[0], :: dilation[1], first : first + group_in]
            y[:, i, j, k] = (window * w[..., k]).sum((1, 2, 3)) % 2**bits
    return y


def same(got, expected, bits):
    assert got.dtype == Ring(bits).dtype and got.shape == expected.shape
    return np.array_equal(np.asarray(got).astype(object), expected)


@pytest.mark.parametrize("bits", range(1, 65))
def test_matmul_every_width(bits):
    a, b = elements((5, 19), bits, 1), elements((19, 3), bits, 2)
    assert same(matmul(a, b, Ring(bits)), slow_matmul(a, b, bits), bits)


@given(
    st.sampled_from([1, 4, 8, 12, 16, 24, 31, 32, 33, 48, 63, 64]),
    st.sampled_from([1, 2, 4, 7, 8, 9, 15, 16, 17]),
    st.booleans(),
    st.sampled_from(["low", "high", "random"]),
    st.sampled_from(["int64", "ring"]),
)
@settings(deadline=None, max_examples=20)
def test_matmul_with_bounds(bits, a_bits, signed, fill, form):
    low, high = (-(2 ** (a_bits - 1)), 2 ** (a_bits - 1) - 1) if signed else (0, 2**a_bits - 1)
    a = np.random.default_rng(0).integers(low, high, (4, 9), endpoint=True)
    if fill != "random":
        a[:] = low if fill == "low" else high
    if a_bits > bits:  # no value of that width is out of range for the ring
        a = np.asarray(Ring(bits).reduce(a))
    expected_of = a.copy()
    a = np.asarray(Ring(bits).reduce(a)) if form == "ring" else a
    b = elements((9, 4), bits)
    got = matmul(a, b, Ring(bits), a_bits=a_bits, a_signed=signed)
    assert same(got, slow_matmul(expected_of, b, bits), bits)
    got = matmul(b.T, a.T, Ring(bits), b_bits=a_bits, b_signed=signed)
    assert same(got, slow_matmul(b.T, expected_of.T, bits), bits)


@pytest.mark.parametrize("bits", [8, 16, 32, 40, 64])
def test_long_sums_of_extreme_limbs(bits):
    """2^17 + 3 products of -128 * -128 overflow int32; only the ring's modulus may show."""
    k = 2**17 + 3
    for byte in (0x80, 0x7F):
        value = int.from_bytes(bytes([byte] * 8), "little") % 2**bits
        a = np.full((1, k), value, Ring(bits).dtype)
        expected = np.array([[value * value * k % 2**bits]], object)
        assert same(matmul(a, a.T, Ring(bits)), expected, bits)
    a = np.full((1, k), -128)
    got = matmul(a, a.T, Ring(bits), a_bits=8, a_signed=True, b_bits=8, b_signed=True)
    assert same(got, np.array([[k * 2**14 % 2**bits]], object), bits)


def test_tall_products_run_in_blocks_of_rows():
    a, b = elements((4099, 3), 20, 1), elements((3, 130), 20, 2)
    expected = (a.astype(np.uint64) @ b.astype(np.uint64)) % 2**20
    assert np.array_equal(matmul(a, b, Ring(20)), expected)


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2, 0)])
@pytest.mark.parametrize("bits", [8, 40])
def test_empty_products(shape, bits):
    m, k, n = shape
    got = matmul(elements((m, k), bits), elements((k, n), bits), Ring(bits))
    assert got.shape == (m, n) and not got.any()


@pytest.mark.parametrize("bits", [1, 8, 11, 16, 31, 32, 33, 63, 64])
@pytest.mark.parametrize(
    "stride, padding, groups",
    [((1, 1), SAME, 1), ((2, 3), ((0, 1), (2, 0)), 2), ((2, 1), ((0, 0), (0, 0)), 4)],
)
def test_conv(bits, stride, padding, groups):
    x, w = elements((2, 6, 5, 4), bits, 1), elements((3, 2, 4 // groups, 8), bits, 2)
    got = conv(x, w, Ring(bits), stride, padding, groups)
    assert same(got, slow_conv(x, w, bits, stride, padding, groups), bits)


@given(
    st.integers(1, 64), st.tuples(*[st.integers(1, 3)] * 4), st.tuples(*[st.integers(0, 2)] * 4),
    st.tuples(*[st.integers(1, 2)] * 2), st.sampled_from([1, 3, 6]), st.integers(1, 3),
    st.integers(1, 2),
)  # fmt: skip
@settings(deadline=None, max_examples=12)
def test_conv_shapes(bits, sizes, pads, dilation, groups, group_out, batch):
    h, wide, *stride = sizes
    padding = (pads[:2], pads[2:])
    x = elements((batch, 5, 6, 6), bits, 1)
    w = np.random.default_rng(2).integers(-8, 8, (h, wide, 6 // groups, groups * group_out))
    got = conv(x, w, Ring(bits), tuple(stride), padding, groups, dilation)
    assert same(got, slow_conv(x, w, bits, stride, padding, groups, dilation), bits)
    if bits >= 4:
        bounded = conv(
            x, w, Ring(bits), tuple(stride), padding, groups, dilation,
            x_bits=bits, x_signed=True, w_bits=4, w_signed=True,
        )  # fmt: skip
        assert np.array_equal(got, bounded)


@pytest.mark.parametrize("bits", [5, 12, 33, 64])
@pytest.mark.parametrize("w_bits", [1, 3, 4])
def test_signed_values_need_no_more_than_their_width(bits, w_bits):
    """Balanced digits read a signed value under its unsigned bound as well."""
    for value in (-(2 ** (w_bits - 1)), 2 ** (w_bits - 1) - 1):
        x, w = elements((1, 4, 4, 2), bits), np.full((3, 3, 2, 2), value, np.int8)
        expected = slow_conv(x, w, bits, (1, 1), ((0, 0), (0, 0)))
        assert same(conv(x, w, Ring(bits), w_bits=w_bits), expected, bits)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_empty_batch(groups):
    x, w = elements((0, 4, 4, 4), 12), elements((3, 3, 4 // groups, 4), 12)
    assert conv(x, w, Ring(12), (1, 1), SAME, groups).shape == (0, 4, 4, 4)


def test_large_batches_run_in_parts():
    x, w = elements((9, 32, 32, 16), 12, 1), elements((3, 3, 16, 8), 12, 2)
    ring = Ring(12)
    got = conv(x, w, ring, (1, 1), SAME)
    one_by_one = [conv(x[i : i + 1], w, ring, (1, 1), SAME)[0] for i in range(9)]
    assert np.array_equal(got, np.stack(one_by_one))
    assert same(got[:1, :2], slow_conv(x[:1, :3], w, 12, (1, 1), SAME)[:, :2], 12)


@pytest.mark.parametrize("bits", [1, 8, 12, 24, 31, 32])
def test_inside_a_jit_without_64_bit_types(bits):
    ring = Ring(bits)
    x, w = elements((2, 5, 5, 4), bits, 1), elements((3, 3, 4, 2), bits, 2)
    got = jax.jit(lambda x, w: conv(x, w, ring, (1, 1), SAME))(x, w)
    assert isinstance(got, jax.Array) and same(got, slow_conv(x, w, bits, (1, 1), SAME), bits)
    a, b = elements((4, 7), bits, 3), np.random.default_rng(4).integers(-8, 8, (7, 3))
    got = jax.jit(lambda a: ring.add(matmul(a, b, ring), ring.reduce(1)))(a)
    assert same(got, (slow_matmul(a, b, bits) + 1) % 2**bits, bits)


def test_refusals():
    ring, x, w = Ring(12), np.zeros((1, 4, 4, 4), int), np.zeros((3, 3, 4, 2), int)
    with pytest.raises(InputError, match=r"\(2, 3\) and \(4, 5\)"):
        matmul(np.zeros((2, 3), int), np.zeros((4, 5), int), ring)
    with pytest.raises(InputError, match="2 axes"):
        matmul(np.zeros(3, int), np.zeros((3, 5), int), ring)
    with pytest.raises(InputError, match="integers"):
        matmul(np.zeros((2, 3)), np.zeros((3, 5), int), ring)
    with pytest.raises(InputError, match="a_bits"):
        matmul(np.zeros((2, 3), int), np.zeros((3, 5), int), ring, a_bits=0)
    with pytest.raises(InputError, match="stride"):
        conv(x, w, ring, (0, 1), SAME)
    with pytest.raises(InputError, match="padding"):
        conv(x, w, ring, (1, 1), ((-1, 0), (0, 0)))
    with pytest.raises(InputError, match="groups"):
        conv(x, w, ring, (1, 1), SAME, 3)
    with pytest.raises(InputError, match="8 input channels"):
        conv(x, w, ring, (1, 1), SAME, 2)
    with pytest.raises(InputError, match="does not fit"):
        conv(x[:, :2], w, ring, (1, 1), ((0, 0), (1, 1)))
    with pytest.raises(InputError, match=r"dilated by \(2, 1\), does not fit"):
        conv(x, w, ring, dilation=(2, 1))
    with pytest.raises(InputError, match="dilation must be two positive ints"):
        conv(x, w, ring, dilation=(0, 1))
    stride: Any
    padding: Any
    for stride, padding in (
        (1, SAME),
        ((1, 1), (1, 1)),
        ((1, 1), "SAME"),
        ((1, 1), ((0, 1), (1,))),
    ):
        with pytest.raises(InputError, match="two pairs of ints"):
            conv(x, w, ring, stride, padding)
    with pytest.raises(InputError, match="window and input channels"):
        conv(x[..., :0], w[:, :, :0], ring)
    with pytest.raises(InputError, match="window and input channels"):
        conv(x, w[:0], ring)
    half: Any = 2.5
    with pytest.raises(InputError, match="w_bits"):
        conv(x, w, ring, w_bits=half)
