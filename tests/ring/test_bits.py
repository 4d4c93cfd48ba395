"""Packing, planes and digits against Python's integers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqjax.errors import InputError
from pqjax.ring import Ring, digits, pack, packed_bytes, unpack

BORDERS = sorted({
    max(0, border + step)
    for border in (0, 8, 64, 128, 512, 1024, 2048, 4096, 8192, 1 << 15, 1 << 16, 1 << 17, 1 << 18)
    for step in (-1, 0, 1)
})  # fmt: skip


def elements(n: int, bits: int, seed: int = 0) -> np.ndarray:
    words = np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)
    return Ring(bits).reduce(words)


@pytest.mark.parametrize("bits", range(1, 65))
def test_round_trip_at_the_borders(bits):
    for n in BORDERS:
        x = elements(n, bits, n)
        packed = pack(x, bits)
        assert packed.dtype == np.uint8
        assert packed.shape == (packed_bytes(n, bits),) == (-(-n * bits // 8),)
        y = unpack(packed, n, bits)
        assert y.dtype == x.dtype and np.array_equal(x, y)
        assert np.array_equal(packed, pack(x.copy(), bits))
        if n * bits % 8:
            assert packed[-1] >> (n * bits % 8) == 0


@pytest.mark.parametrize("bits", [2, 3, 5, 7, 11, 12, 31, 63])
@pytest.mark.parametrize("step", [-1, 0, 1, 8191])
def test_round_trip_around_two_blocks(bits, step):
    """A block is 2^19 bytes of elements, of any dtype; then a shorter block, then a string."""
    n = 2 * (1 << 19) // Ring(bits).dtype.itemsize + step
    x = elements(n, bits, n)
    packed = pack(x, bits)
    assert len(packed) == packed_bytes(n, bits)
    assert np.array_equal(unpack(packed, n, bits), x)


@given(st.integers(1, 64), st.integers(0, 5000), st.integers(0, 9), st.data())
@settings(deadline=None, max_examples=100)
def test_round_trip(bits, n, offset, data):
    x = elements(n, bits, n)
    if n:  # one extreme element, anywhere
        x[data.draw(st.integers(0, n - 1))] = data.draw(st.sampled_from([0, 2**bits - 1]))
    wire = bytes(offset) + pack(x, bits).tobytes()
    assert np.array_equal(unpack(memoryview(wire)[offset:], n, bits), x)


@pytest.mark.parametrize("bits", [1, 3, 12, 31, 33, 63])
@pytest.mark.parametrize("n", [5, 4099])
def test_packing_is_linear_in_the_bits(bits, n):
    """Every bit of every element lands on one bit of its own: xor commutes with packing."""
    x, y = elements(n, bits, 1), elements(n, bits, 2)
    assert np.array_equal(pack(x ^ y, bits), pack(x, bits) ^ pack(y, bits))
    full = pack(np.full(n, Ring(bits).mask), bits)
    assert int(np.unpackbits(full).sum()) == n * bits


@pytest.mark.parametrize("bits", [1, 5, 12, 16, 20, 64])
def test_inputs_of_other_kinds(bits):
    x = elements(777, bits)
    assert np.array_equal(pack(np.repeat(x, 2)[::2], bits), pack(x, bits))
    if bits <= 32:
        assert np.array_equal(pack(jnp.asarray(x), bits), pack(x, bits))
    packed = pack(x, bits)
    buffer: Any
    for buffer in (packed, packed.tobytes(), bytearray(packed.tobytes()), packed.data):
        assert np.array_equal(unpack(buffer, 777, bits), x)
    assert np.array_equal(pack(x.astype(bool), 1), pack((x != 0).astype(np.uint8), 1))


def test_refusals():
    with pytest.raises(InputError, match="take 6 bytes, got 5"):
        unpack(bytes(5), 4, 12)
    with pytest.raises(InputError, match="take 6 bytes, got 7"):
        unpack(bytes(7), 4, 12)
    with pytest.raises(InputError, match="elements of"):
        unpack(b"", -1, 4)
    with pytest.raises(InputError, match="dtype uint16"):
        pack(np.zeros(4, np.uint32), 12)
    with pytest.raises(InputError, match="flat"):
        pack(np.zeros((2, 2), np.uint16), 12)
    with pytest.raises(InputError, match="ring width"):
        pack(np.zeros(4, np.uint8), 0)
    with pytest.raises(InputError, match="digit width"):
        digits(np.zeros(4, np.uint8), 8, 9)


@given(st.integers(1, 64), st.integers(1, 8), st.integers(0, 40))
@settings(deadline=None, max_examples=100)
def test_digits(bits, width, n):
    x = elements(n, bits, n)
    q = digits(x, bits, width)
    assert q.dtype == np.uint8 and q.shape == (-(-bits // width), n)
    for j, value in enumerate(x.tolist()):
        assert q[:, j].tolist() == [(value >> (width * i)) % 2**width for i in range(len(q))]
    planes = digits(x, bits, 1)
    assert planes.shape == (bits, n) and np.all(planes <= 1)
    places = np.arange(bits, dtype=np.uint64)[:, None]
    np.testing.assert_array_equal(np.bitwise_or.reduce(planes << places, axis=0), x)
