"""Convolution as bf16 matrix products with f32 accumulation, forward and both gradients.

XLA's CPU convolution is several times slower than its bf16 dots, so a convolution here is one dot
per kernel tap (or one dot over gathered patches when there are few channels). Sums are kept in f32,
so the result is *exact* whenever operands are integers of magnitude at most 256 and sums stay below
2^24: quantized networks run through the very same code.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_PATCH_LIMIT = (
    64  # up to this many values per patch, one dot over gathered patches beats one per tap
)
_CHUNK_PIXELS = 4096  # the weight gradient walks through the batch in pieces that stay in cache


@jax.custom_vjp
def conv(x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c k"]) -> Float[Array, "b h w k"]:
    """Cross-correlation, stride 1, SAME zero padding; operands rounded to bf16, result f32."""
    return _correlate(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))


def _conv_fwd(x, kernel):
    x16 = x.astype(jnp.bfloat16)
    k16 = kernel.astype(jnp.bfloat16)
    # Empty arrays carry the caller's dtypes to the backward pass.
    return _correlate(x16, k16), (x16, k16, jnp.zeros(0, x.dtype), jnp.zeros(0, kernel.dtype))


def _conv_bwd(saved, dy):
    x, kernel, x_like, kernel_like = saved
    dy = dy.astype(jnp.bfloat16)
    dx = _correlate(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    dkernel = _kernel_gradient(x, dy, kernel.shape[:2])
    return dx.astype(x_like.dtype), dkernel.astype(kernel_like.dtype)


conv.defvjp(_conv_fwd, _conv_bwd)


def dense(x: Float[Array, "b c"], kernel: Float[Array, "c k"]) -> Float[Array, "b k"]:
    """Matrix product of operands rounded to bf16, in f32: XLA lacks some small bf16 dots."""
    x, kernel = (a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel))
    return jnp.dot(x, kernel, precision=lax.Precision.HIGHEST)


def _dot(a, b):
    return lax.dot(a, b, preferred_element_type=jnp.float32)


def _dot_minor(a, b):
    """A @ b.T: on CPUs the one fast way to contract a long axis is to have it minor in both."""
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def _correlate(x, kernel):
    batch, height, width, channels = x.shape
    rows, cols, _, out_channels = kernel.shape
    padded = jnp.pad(x, ((0, 0), (rows // 2,) * 2, (cols // 2,) * 2, (0, 0)))
    taps = [
        padded[:, i : i + height, j : j + width].reshape(-1, channels)
        for i in range(rows)
        for j in range(cols)
    ]
    matrices = kernel.reshape(rows * cols, channels, out_channels)
    if len(taps) * channels <= _PATCH_LIMIT:
        y = _dot(jnp.concatenate(taps, 1), matrices.reshape(-1, out_channels))
    else:
        y = functools.reduce(jnp.add, [_dot(tap, m) for tap, m in zip(taps, matrices, strict=True)])
    return y.reshape(batch, height, width, out_channels)


def _kernel_gradient(x, dy, window):
    """Sums over the batch in chunks: one chunk's transposed copies stay in the caches."""
    batch, height, width, _ = x.shape
    if window == (
        1,
        1,
    ):  # XLA would fold the transposes into a bf16 dot it lacks
        x, dy = (a.reshape(-1, a.shape[3]).astype(jnp.float32) for a in (x, dy))
        return jnp.dot(x.T, dy, precision=lax.Precision.HIGHEST)[None, None]
    chunk = max(d for d in range(1, batch + 1) if batch % d == 0 and (
        d == 1 or d * height * width <= _CHUNK_PIXELS
    ))  # fmt: skip
    if chunk == batch:
        return _chunk_gradient(x, dy, window)
    pieces = [a.reshape(batch // chunk, chunk, *a.shape[1:]) for a in (x, dy)]
    start = jnp.zeros((*window, x.shape[3], dy.shape[3]), jnp.float32)
    total, _ = lax.scan(
        lambda total, piece: (total + _chunk_gradient(piece[0], piece[1], window), None),
        start,
        tuple(pieces),
    )
    return total


def _chunk_gradient(x, dy, window):
    """Weight gradient of one chunk, contracting pixels along the minor axis.

    Both operands are transposed to (channels, pixels) with the same padded row length; a tap is
    then a constant offset into x. dy is zero at padded positions, so what lies there in x is
    irrelevant. Data moves as uint16, because XLA's CPU backend would widen bf16 copies to f32 and
    back.
    """
    rows, cols = window
    pitch = x.shape[2] + cols - 1
    x_flat = _transposed(x, (rows // 2, rows - 1 - rows // 2), (cols // 2, cols - 1 - cols // 2))
    dy_flat = _transposed(dy, (0, rows - 1), (0, cols - 1))
    n = x_flat.shape[1] - (rows - 1) * pitch - (cols - 1)
    dy_flat = lax.bitcast_convert_type(dy_flat[:, :n], jnp.bfloat16)
    taps = []
    for offset in (i * pitch + j for i in range(rows) for j in range(cols)):
        tap = lax.bitcast_convert_type(x_flat[:, offset : offset + n], jnp.bfloat16)
        taps.append(_dot_minor(tap, dy_flat))
    return jnp.stack(taps).reshape(rows, cols, x.shape[3], dy.shape[3])


def _transposed(a, pad_rows, pad_cols):
    batch, height, width, channels = a.shape
    bits = lax.bitcast_convert_type(a, jnp.uint16).reshape(-1, channels).T
    planes = bits.reshape(channels, batch, height, width)
    return jnp.pad(planes, ((0, 0), (0, 0), pad_rows, pad_cols)).reshape(channels, -1)
