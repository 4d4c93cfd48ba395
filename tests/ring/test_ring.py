"""Ring arithmetic against Python's integers, on numpy and on JAX arrays."""

import operator
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqjax.errors import InputError
from pqjax.ring import Ring

WIDTHS = st.integers(1, 64)
WORDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9)


def ints(x) -> list[int]:
    return [int(v) for v in np.asarray(x).reshape(-1)]


@pytest.mark.parametrize("bits", range(1, 65))
def test_dtype_is_the_narrowest(bits):
    ring = Ring(bits)
    width = 8 * ring.dtype.itemsize
    assert ring.dtype.kind == "u" and width >= bits and (width == 8 or width // 2 < bits)
    assert int(ring.mask) == 2**bits - 1 and ring.mask.dtype == ring.dtype


@pytest.mark.parametrize("bits", [0, 65, -1, 1.5, True])
def test_bad_width(bits):
    with pytest.raises(InputError, match="ring width"):
        Ring(bits)


@given(WIDTHS, WORDS, st.integers(0, 70), st.sampled_from(["numpy", "jax"]))
@settings(deadline=None, max_examples=150)
def test_arithmetic_is_modular(bits, words, shift, kind):
    ring, modulus = Ring(bits), 2**bits
    x = ring.reduce(np.array(words, np.int64))
    y = ring.reduce(np.array(words[::-1], np.int64))
    assert ints(x) == [w % modulus for w in words]
    if kind == "jax":
        with jax.enable_x64(True):
            x, y = jnp.asarray(x), jnp.asarray(y)
    pairs = list(zip(ints(x), ints(y), strict=True))
    for method, oracle in (("add", operator.add), ("sub", operator.sub), ("mul", operator.mul)):
        z = getattr(ring, method)(x, y)
        assert ints(z) == [oracle(a, b) % modulus for a, b in pairs]
        assert z.dtype == ring.dtype and isinstance(z, jax.Array) == (kind == "jax")
    assert ints(ring.neg(x)) == [-a % modulus for a, _ in pairs]
    assert ints(ring.shift_left(x, shift)) == [(a << shift) % modulus for a, _ in pairs]
    assert ints(ring.signed(x)) == [a - modulus * (2 * a >= modulus) for a, _ in pairs]
    assert ints(ring.reconstruct(*ring.share(x, y))) == [a for a, _ in pairs]


@pytest.mark.parametrize("bits", range(1, 7))
def test_every_share_pair(bits):
    ring = Ring(bits)
    secrets, masks = (v.reshape(-1) for v in np.indices((2**bits, 2**bits)))
    x0, x1 = ring.share(ring.reduce(secrets), ring.reduce(masks))
    assert np.array_equal(ring.reconstruct(x0, x1), secrets)
    # For each secret, the masked share takes every value once: it says nothing about the secret.
    assert np.array_equal(np.sort(x0.reshape(2**bits, -1), 1), masks.reshape(2**bits, -1))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
@pytest.mark.parametrize("bits", [1, 7, 8, 17, 32, 33, 64])
def test_reduce_from_every_dtype(dtype, bits):
    info = np.iinfo(dtype) if dtype != "?" else None
    x = np.array([0, 1] if info is None else [info.min, info.max, 0, 1, 5], dtype)
    assert ints(Ring(bits).reduce(x)) == [int(v) % 2**bits for v in x]


def test_scalars_and_refusals():
    ring = Ring(12)
    assert int(ring.reduce(-1)) == 4095 and int(ring.reduce(2**200 + 3)) == 3
    assert ints(ring.mul(np.array([4095], np.uint16), 3)) == [4093]
    with pytest.raises(InputError, match="integers"):
        ring.reduce(np.array([1.5]))
    with pytest.raises(InputError, match="shape of x"):
        ring.share(np.zeros(3, np.uint16), np.zeros(2, np.uint16))
    with pytest.raises(InputError, match="shift"):
        ring.shift_left(np.zeros(3, np.uint16), -1)


@pytest.mark.parametrize("bits", [1, 8, 13, 16, 31, 32])
def test_inside_a_jit_without_64_bit_types(bits):
    ring = Ring(bits)
    x = ring.reduce(np.arange(50) * 987654321)
    got = jax.jit(lambda v: ring.signed(ring.sub(ring.mul(v, v), ring.shift_left(v, 3))))(x)
    assert ints(got) == ints(ring.signed(ring.sub(ring.mul(x, x), ring.shift_left(x, 3))))


def test_import_and_use_leave_the_configuration_alone():
    code = (
        "import jax, numpy as np\n"
        "before = dict(jax.config.values)\n"
        "import pqjax, pqjax.ring as r\n"
        "assert dict(jax.config.values) == before\n"
        "r.matmul(np.ones((2, 3), np.int64), np.ones((3, 2), np.int64), r.Ring(40))\n"
        "r.Ring(40).mul(jax.numpy.ones(3, int), 5)\n"
        "assert dict(jax.config.values) == before and not jax.config.jax_enable_x64\n"
        "assert jax.numpy.ones(1, int).dtype == 'int32'\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
