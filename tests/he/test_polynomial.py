"""Negacyclic products are those of plain integers, to the bit."""

import numpy as np
import pytest

from pqjax.errors import InputError
from pqjax.he import polynomial
from pqjax.he.polynomial import coefficients, digit_sums, digits, error_bound, product


def slow(a, small, bits):
    """One row, by plain integers."""
    n = len(a)
    full = np.convolve(a.astype(object), small.astype(object))
    low = full[:n]
    low[: n - 1] -= full[n:]
    return np.array([int(v) % (1 << bits) for v in low], np.uint64)


def uniform(rng, shape, bits):
    return rng.integers(0, 1 << 64, shape, np.uint64) >> np.uint64(64 - bits)


@pytest.mark.parametrize("bits", [1, 8, 26, 34, 35, 40, 53, 64])
@pytest.mark.parametrize("degree", [64, 1024])
def test_products_are_plain_integers(bits, degree):
    rng = np.random.default_rng(bits)
    a, s = uniform(rng, (3, degree), bits), rng.integers(-1, 2, (3, degree)).astype(np.int8)

    found = product(a, s, bits)

    for row in range(3):
        np.testing.assert_array_equal(found[row], slow(a[row], s[row], bits))


@pytest.mark.parametrize("bits", [34, 40])
@pytest.mark.parametrize("value", [-1, 0, 1, "half", "half - 1"])
def test_products_of_the_largest_operands(bits, value):
    half = 1 << bits - 1
    number = {"half": half, "half - 1": half - 1}.get(value, value)
    a = np.full((1, 2048), number % (1 << bits), np.uint64)
    s = np.ones((1, 2048), np.int8)

    for signs in (s, -s, np.where(np.arange(2048) % 2, s, -s)):
        np.testing.assert_array_equal(product(a, signs, bits)[0], slow(a[0], signs[0], bits))


@pytest.mark.parametrize("rows", [(1, 20), (20, 1), (300, 1), (17, 17)])
def test_a_single_row_meets_all_of_the_other(rows):
    rng = np.random.default_rng(0)
    a, s = uniform(rng, (rows[0], 64), 40), rng.integers(-1, 2, (rows[1], 64)).astype(np.int8)

    found = product(a, s, 40)

    assert len(found) == max(rows)
    for i in (0, len(found) - 1):
        np.testing.assert_array_equal(found[i], slow(a[i % len(a)], s[i % len(s)], 40))


@pytest.mark.parametrize("rows", [(1, 20), (300, 1), (1, 1), (5, 5)])
@pytest.mark.parametrize("places", [1, 16, 17, 128, 129])
@pytest.mark.parametrize("bits", [25, 32, 40, 64])
def test_coefficients_are_those_of_the_product(rows, places, bits):
    rng = np.random.default_rng(places)
    a, s = uniform(rng, (rows[0], 256), bits), rng.integers(-1, 2, (rows[1], 256)).astype(np.int8)
    a[:, ::2], s[:, ::2] = (1 << bits) - 1, -1
    at = rng.permutation(256)[:places]

    found = coefficients(a, s, at, bits)

    assert found.shape == (max(rows), places)
    for i in (0, len(found) - 1):
        expected = slow(a[i % len(a)], s[i % len(s)], bits)
        np.testing.assert_array_equal(found[i], expected[at])


@pytest.mark.parametrize("width,terms", [(8, 5), (4, 9), (1, 3), (6, 1)])
@pytest.mark.parametrize("rows", [1, 5, 300])
def test_sums_of_digits_are_plain_integers(width, terms, rows):
    rng = np.random.default_rng(rows)
    high = uniform(rng, (rows, 128), width * terms)
    high[0, ::2] = 1 << width * terms - 1  # digits as large as they may be
    others = uniform(rng, (terms, 128), 40)
    others[0, ::2] = 1 << 39

    found = digit_sums(high, width, others, 40)

    for row in {0, rows - 1}:
        rest, expected = high[row].astype(np.int64), np.zeros(128, np.uint64)
        for other in others[::-1]:
            low = (rest + (1 << width - 1)) % (1 << width) - (1 << width - 1)
            rest = (rest - low) >> width
            expected += slow(other, low, 40)
        np.testing.assert_array_equal(found[row], expected % (1 << 40))


@pytest.mark.parametrize("width,terms", [(8, 5), (4, 10)])
def test_sums_of_digits_as_large_as_they_may_be(width, terms):
    low = -(1 << width - 1)
    high = np.full((1, 2048), sum(low << width * i for i in range(terms)) % (1 << width * terms))
    others = np.full((terms, 2048), (1 << 39) - 1, np.uint64)

    found = digit_sums(high.astype(np.uint64), width, others, 40)

    one = slow(others[0], np.full(2048, low), 40)
    np.testing.assert_array_equal(found[0], one * np.uint64(terms) % (1 << 40))


@pytest.mark.parametrize(
    "degree,bits", [(1024, 26), (2048, 34), (2048, 40), (2048, 53), (4096, 64)]
)
def test_digits_are_as_few_as_the_bound_allows(degree, bits):
    count = digits(degree, bits)

    assert error_bound(degree, -(-bits // count)) < 0.5
    assert count == 1 or error_bound(degree, -(-bits // (count - 1))) >= 0.5


@pytest.mark.parametrize("width", [20, 30, 34])
def test_the_transforms_err_within_the_bound(width):
    rng = np.random.default_rng(width)
    a, s = uniform(rng, (1, 2048), width), np.ones((1, 2048), np.int8)
    signed = np.where(a >= 1 << width - 1, a.astype(np.int64) - (1 << width), a.astype(np.int64))
    turn = np.exp(1j * np.pi * np.arange(1024) / 2048)
    forward = lambda x: np.fft.fft((x[:1024] + 1j * x[1024:]) * turn)

    y = np.fft.ifft(forward(signed[0]) * forward(s[0])) / turn

    full = np.convolve(signed[0].astype(object), s[0].astype(object))
    full[:2047] -= full[2048:]
    exact = full[:2048].astype(np.int64)
    off = np.abs(np.concatenate([y.real, y.imag]) - exact).max()
    assert 0 < off < error_bound(2048, width)


def test_a_bound_made_too_small_makes_wrong_products(monkeypatch):
    rng = np.random.default_rng(0)
    a, s = uniform(rng, (1, 2048), 56), np.ones((1, 2048), np.int8)

    with pytest.raises(AssertionError):
        monkeypatch.setattr(polynomial, "digits", lambda degree, bits: 1)
        product(a, s, 56)

    monkeypatch.setattr(polynomial, "error_bound", lambda degree, bits: 0)
    assert (product(a, s, 56)[0] != slow(a[0], s[0], 56)).any()


@pytest.mark.parametrize("a,s", [
    (np.zeros((2, 64), np.uint64), np.zeros((3, 64), np.int8)),
    (np.zeros((2, 64), np.uint64), np.zeros((2, 32), np.int8)),
    (np.zeros((2, 60), np.uint64), np.zeros((2, 60), np.int8)),
    (np.zeros((2, 64), np.int64), np.zeros((2, 64), np.int8)),
    (np.zeros((2, 64), np.uint64), np.zeros((2, 64), np.int64)),
    (np.zeros((1, 64), np.uint64), np.full((1, 64), 2, np.int8)),
    (np.zeros((0, 64), np.uint64), np.zeros((0, 64), np.int8)),
])  # fmt: skip
def test_other_operands_are_refused(a, s):
    with pytest.raises(InputError):
        product(a, s, 40)
    with pytest.raises(InputError):
        coefficients(a, s, np.arange(2), 40)
