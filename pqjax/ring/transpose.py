"""Bit-matrix transposition: from long columns of bits, as OT extension makes them, to rows.

A 32 x 32 block of bits is transposed by five butterfly stages that swap sub-blocks between pairs of
rows with masks and shifts; along the long axis every stage is element-wise, so nothing is shuffled
inside a register. What is left is a transposition of 32-bit words, which a strided numpy copy does
at 6-9 GB/s (bytes: 2, 16-bit words: 4.5; XLA's transpose is half as fast).

The stages are two kernels, of three and two stages. In one kernel XLA fuses all five into one loop
(through an optimization barrier, too), where every output recomputes all it depends on: 1.2 GB/s
over all instead of 1.9. 32-bit words beat 64-bit ones, which need a sixth stage.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pqjax.errors import InputError
from pqjax.ring.kernel import kernel

# Bytes of a row per call: 65,536 columns (1 MiB, fits the L2 cache) and smaller ones for the end.
_BLOCKS = (8192, 2048, 512)
_WORD = 32


def _swap(x: jax.Array, axis: int, distance: int) -> jax.Array:
    """Exchanges, between the two rows along `axis`, the bits `distance` apart."""
    low = sum(1 << i for i in range(_WORD) if not (i // distance) & 1)
    shape = [1] * x.ndim
    shape[axis] = 2
    keep = np.array([low, low ^ 0xFFFFFFFF], np.uint32).reshape(shape)
    left = np.array([distance, 0], np.uint32).reshape(shape)
    right = np.array([0, distance], np.uint32).reshape(shape)
    partner = lax.rev(x, (axis,))
    return (x & keep) | (((partner << left) >> right) & ~keep)


def _inner(x: jax.Array | np.ndarray) -> jax.Array:
    """Swaps at distance 4, 2, 1: (128, W) uint32 rows to (16, 2, 2, 2, W)."""
    rows = jnp.reshape(x, (16, 2, 2, 2, -1))
    for axis, distance in ((1, 4), (2, 2), (3, 1)):
        rows = _swap(rows, axis, distance)
    return rows


def _outer(x: jax.Array) -> jax.Array:
    """Swaps at distance 16, 8: to groups of 32 rows, (4, 32, W)."""
    rows = x.reshape(4, 2, 2, -1)
    for axis, distance in ((1, 16), (2, 8)):
        rows = _swap(rows, axis, distance)
    return rows.reshape(4, 32, -1)


_inner_kernel = kernel(_inner)
_outer_kernel = kernel(_outer)


def transpose_bits(columns: np.ndarray) -> np.ndarray:
    """Transposes a bit matrix of 128 or 256 long rows, as OT extension needs it.

    From uint8 of shape (c, n/8), c in {128, 256}, n a multiple of 8, where bit j of a row is bit j%8
    (little-endian) of byte j//8, to (n, c/8): bit i (little-endian) of row j is bit j of row i.
    """
    columns = np.asarray(columns)
    if columns.ndim != 2 or columns.shape[0] not in (128, 256) or columns.dtype != np.uint8:
        got = f"{columns.dtype} {columns.shape}"
        raise InputError(f"transpose_bits expects uint8 of shape (128 or 256, n/8), got {got}")
    c, row_bytes = columns.shape
    out = np.empty((8 * row_bytes, c // _WORD), np.uint32)
    at = 0
    while at < row_bytes:
        block = next((b for b in _BLOCKS if b <= row_bytes - at), _BLOCKS[-1])
        end = min(at + block, row_bytes)
        for half in range(c // 128):
            rows = columns[128 * half : 128 * (half + 1), at:end]
            _transpose_block(rows, block, out[8 * at : 8 * end, 4 * half : 4 * half + 4])
        at = end
    return out.view(np.uint8)


def _transpose_block(rows: np.ndarray, block: int, place: np.ndarray) -> None:
    """(128, m) bytes, m <= block, to (8 m, 4) words."""
    count = len(place)
    if rows.shape[1] < block:
        padded = np.zeros((128, block), np.uint8)
        padded[:, : rows.shape[1]] = rows
        rows = padded
    words = np.ascontiguousarray(rows).view(np.uint32)
    groups = np.asarray(_outer_kernel(_inner_kernel(words)))
    for i, group in enumerate(groups):
        if count == 8 * block:
            place[:, i].reshape(-1, _WORD)[...] = group.T
        else:
            place[:, i] = group.T.reshape(-1)[:count]
