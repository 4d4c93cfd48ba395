"""Bit transposition against numpy's bit strings."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pqjax.errors import InputError
from pqjax.ring import transpose_bits


def slow_transpose(columns: np.ndarray) -> np.ndarray:
    matrix = np.unpackbits(columns, axis=1, bitorder="little")
    return np.packbits(matrix.T, axis=1, bitorder="little")


@pytest.mark.parametrize("rows", [128, 256])
@pytest.mark.parametrize("row_bytes", [0, 1, 16, 511, 512, 513, 2047, 2064, 8192, 8193, 11000])
def test_transpose(rows, row_bytes):
    rng = np.random.default_rng(rows + row_bytes)
    columns = rng.integers(0, 256, (rows, row_bytes), dtype=np.uint8)
    got = transpose_bits(columns)
    assert got.shape == (8 * row_bytes, rows // 8) and got.dtype == np.uint8
    assert np.array_equal(got, slow_transpose(columns))


def test_strided_and_jax_inputs():
    columns = np.random.default_rng(0).integers(0, 256, (256, 64), dtype=np.uint8)
    assert np.array_equal(transpose_bits(columns[:, ::2]), slow_transpose(columns[:, ::2]))
    assert np.array_equal(transpose_bits(columns[::2]), slow_transpose(columns[::2]))
    of_jax: Any = jnp.asarray(columns)
    assert np.array_equal(transpose_bits(of_jax), slow_transpose(columns))


def test_one_bit_moves_where_it_should():
    columns = np.zeros((128, 32), np.uint8)
    columns[77, 9] = 1 << 3  # row 77, bit 75
    rows = np.unpackbits(transpose_bits(columns), axis=1, bitorder="little")
    assert np.argwhere(rows).tolist() == [[75, 77]]


@pytest.mark.parametrize("bad", [np.zeros((64, 8), np.uint8), np.zeros((128, 8), np.int8)])
def test_refusals(bad):
    with pytest.raises(InputError, match="transpose_bits expects"):
        transpose_bits(bad)
