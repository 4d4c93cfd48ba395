"""Compiled kernels against the plain functions they are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pqjax.ring import blockwise, kernel


def mix(x, y, *, shift=0):
    """Rows of two kinds: wide words, and a sum over a second axis."""
    return (x << np.uint64(shift)) ^ x, y.astype(np.uint16).sum(1, dtype=np.uint16)


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 65535, 65536, 65537, 131073])
def test_blockwise_is_the_plain_function(n):
    rng = np.random.default_rng(n)
    x = rng.integers(0, 2**64, n, dtype=np.uint64)
    y = rng.integers(0, 256, (n, 3), dtype=np.uint8)

    got = blockwise(mix, static=("shift",))(x, y, shift=7)

    assert isinstance(got, tuple)
    for one, expected in zip(got, mix(x, y, shift=7), strict=True):
        assert isinstance(one, np.ndarray) and one.dtype == expected.dtype
        assert one.shape == expected.shape and np.array_equal(one, expected)
    single = blockwise(lambda y: y + y)(y)
    assert isinstance(single, np.ndarray) and np.array_equal(single, y + y)


def test_a_new_length_compiles_nothing():
    traced = []

    def double(x):
        traced.append(x.shape)
        return x + x

    run = blockwise(double)
    for n in (0, 1, 255, 256, 257, 1024, 4000, 16000, 65536, 65537, 200_000):
        run(np.ones(n, np.uint8))
    assert sorted(set(traced)) == sorted(traced) and len(traced) == 5


def test_a_kernel_has_64_bit_types_inside_only():
    square = kernel(lambda x, shift: (x * x) >> np.uint64(shift), static=("shift",))
    x = np.array([2**40 + 1, 2**63 + 5], np.uint64)
    got = square(x, shift=3)
    assert got.dtype == np.uint64 and np.array_equal(np.asarray(got), (x * x) >> np.uint64(3))
    assert not jax.config.read("jax_enable_x64")
    assert jnp.ones(1, int).dtype == np.int32
