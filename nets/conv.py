"""Convolution as bf16 matrix products with f32 accumulation, forward and both gradients.

XLA's CPU convolution is several times slower than its bf16 dots, so a convolution here is one dot over
patches. A patch covers a small tile of outputs with the kernel spread over it: fewer, longer rows, which
is what few channels need. Sums are kept in f32, so the result is *exact* whenever operands are integers
of magnitude at most 256 and sums stay below 2^24. Other devices have convolutions of bf16 with f32 sums,
exact as well: `layer_conv` for quantized networks; those in floating point pass bf16 on: `rounded_conv`.
"""

from __future__ import annotations

import functools
import typing

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nets.ops import NO_MARGINS, Conv

_ROW_LIMIT = 1600  # values a patch may have before tiles stop paying
_TILES = ((2, 4), (2, 2), (1, 2), (1, 1))  # outputs that share a patch, largest first
_CHUNK_PIXELS = 8192  # the weight gradient walks through the batch in pieces that stay in cache


def conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "n n c k"], stride: int = 1
) -> Float[Array, "b h2 w2 k"]:
    """Cross-correlation of an odd window, padded by half of it; operands rounded to bf16, result f32."""
    return typing.cast(jax.Array, _conv(x, kernel, stride))


def layer_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "h2 w2 g k"], op: Conv
) -> Float[Array, "b h3 w3 k"]:
    """The convolution that an operation describes, whatever its window, margins, groups and dilation.

    Operands are rounded to bf16, sums are f32, as in `conv`, which CPUs take where they can.
    """
    if jax.default_backend() != "cpu":
        return typing.cast(jax.Array, wide_conv(x, kernel, op))
    side, stride = op.window[0], op.stride[0]
    half = (side // 2, side // 2)
    plain = Conv(op.name, op.sources, op.channels, (side, side), (stride, stride), (half, half))
    if op == plain and side % 2:
        return conv(x, kernel, stride)
    x, kernel = (a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel))
    return plain_conv(x, kernel, op)


def rounded_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "h2 w2 g k"], op: Conv
) -> Float[Array, "b h3 w3 k"]:
    """`layer_conv` rounded to bf16: what a network in floating point reads.

    CPUs take the dots; other devices have convolutions of bf16, which add up in f32.
    """
    if jax.default_backend() == "cpu":
        return layer_conv(x, kernel, op).astype(jnp.bfloat16)
    return native_conv(x, kernel, op)


def native_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "h2 w2 g k"], op: Conv
) -> Float[Array, "b h3 w3 k"]:
    """XLA's own convolution, of bf16 to bf16."""
    return lax.conv_general_dilated(
        x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), op.stride, op.padding,
        rhs_dilation=op.dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=op.groups,
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def wide_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "h2 w2 g k"], op: Conv
) -> Float[Array, "b h3 w3 k"]:
    """XLA's own convolution, of operands rounded to bf16 to f32 sums.

    Its gradients are those of the convolution of bf16 to bf16, which is fast everywhere.
    """
    return lax.conv_general_dilated(
        x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), op.stride, op.padding,
        rhs_dilation=op.dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=op.groups, preferred_element_type=jnp.float32,
    )  # fmt: skip


def _wide_conv_fwd(x, kernel, op):
    # Empty arrays carry the caller's dtypes to the backward pass.
    likes = jnp.zeros(0, x.dtype), jnp.zeros(0, kernel.dtype)
    operands = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return wide_conv(x, kernel, op), (*operands, *likes)


def _wide_conv_bwd(op, saved, dy):
    x, kernel, x_like, kernel_like = saved
    _, back = jax.vjp(lambda x, kernel: native_conv(x, kernel, op), x, kernel)
    dx, dkernel = back(dy.astype(jnp.bfloat16))
    return dx.astype(x_like.dtype), dkernel.astype(kernel_like.dtype)


wide_conv.defvjp(_wide_conv_fwd, _wide_conv_bwd)


def plain_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "h2 w2 g k"], op: Conv
) -> Float[Array, "b h3 w3 k"]:
    """The same in f32 throughout; depthwise tap by tap, because XLA's own is ten times slower."""
    if op.groups == 1 and op.window == op.stride == (1, 1) and op.padding == NO_MARGINS:
        return jnp.dot(x, kernel[0, 0], precision=lax.Precision.HIGHEST)
    if op.groups > 1 and op.groups == x.shape[3] == op.channels:
        x = jnp.pad(x, ((0, 0), *op.padding, (0, 0)))
        taps = iter(window_taps(x, op.window, op.stride, op.dilation))
        rows, cols = op.window
        scaled = [next(taps) * kernel[i, j, 0] for i in range(rows) for j in range(cols)]
        return functools.reduce(jnp.add, scaled)
    return lax.conv_general_dilated(
        x, kernel, op.stride, op.padding, rhs_dilation=op.dilation, feature_group_count=op.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=lax.Precision.HIGHEST,
    )  # fmt: skip


def window_taps(
    x: Float[Array, "b h w c"], window: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> list[Float[Array, "b h2 w2 c"]]:  # fmt: skip
    """What every place of a window sees, row by row."""
    reach = [(n - 1) * d + 1 for n, d in zip(window, dilation, strict=True)]
    rows, cols = (side - n + 1 for side, n in zip(x.shape[1:3], reach, strict=True))
    return [
        x[:, i : i + rows : stride[0], j : j + cols : stride[1]]
        for i in range(0, reach[0], dilation[0])
        for j in range(0, reach[1], dilation[1])
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, stride):
    return _correlate(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), stride)


def _conv_fwd(x, kernel, stride):
    x16 = x.astype(jnp.bfloat16)
    k16 = kernel.astype(jnp.bfloat16)
    # Empty arrays carry the caller's dtypes to the backward pass.
    return _correlate(x16, k16, stride), (
        x16,
        k16,
        jnp.zeros(0, x.dtype),
        jnp.zeros(0, kernel.dtype),
    )


def _conv_bwd(stride, saved, dy):
    x, kernel, x_like, kernel_like = saved
    dy = dy.astype(jnp.bfloat16)
    if stride > 1:  # zeros between: then the gradients are those of stride 1
        lost = [x.shape[i] - ((dy.shape[i] - 1) * stride + 1) for i in (1, 2)]
        margins = ((0, 0, 0), (0, lost[0], stride - 1), (0, lost[1], stride - 1), (0, 0, 0))
        dy = lax.pad(dy, jnp.zeros((), dy.dtype), margins)
    dx = _correlate(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), 1)
    dkernel = _kernel_gradient(x, dy, kernel.shape[0])
    return dx.astype(x_like.dtype), dkernel.astype(kernel_like.dtype)


_conv.defvjp(_conv_fwd, _conv_bwd)


def dense(x: Float[Array, "b c"], kernel: Float[Array, "c k"]) -> Float[Array, "b k"]:
    """Matrix product of operands rounded to bf16, in f32: XLA lacks some small bf16 dots."""
    x, kernel = (a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, kernel))
    return jnp.dot(x, kernel, precision=lax.Precision.HIGHEST)


def _words(a):
    """Copies move as uint16: XLA's CPU backend would widen bf16 copies to f32 and back."""
    return lax.bitcast_convert_type(a, jnp.uint16)


def _floats(a):
    return lax.bitcast_convert_type(a, jnp.bfloat16)


def _dot_minor(a, b):
    """A @ b.T: on CPUs the one fast way to contract a long axis is to have it minor in both."""
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def _tile(side, channels, height, width, stride):
    """The largest tile that divides the output and whose patches are not too long."""
    for rows, cols in _TILES:
        length = ((rows - 1) * stride + side) * ((cols - 1) * stride + side) * channels
        if height % rows == 0 and width % cols == 0 and length <= _ROW_LIMIT:
            return rows, cols
    return 1, 1


@functools.partial(jax.jit, static_argnums=2)  # calibration calls it step by step
def _correlate(x, kernel, stride):
    batch, height, width, channels = x.shape
    side, _, _, out_channels = kernel.shape
    height, width = -(-height // stride), -(-width // stride)
    rows, cols = _tile(side, channels, height, width, stride)
    margin = (side // 2, side // 2)
    padded = jnp.pad(_words(x), ((0, 0), margin, margin, (0, 0)))
    patches = _patches(padded, side, stride, (rows, cols), (height, width))
    matrix = _floats(patches.reshape(-1, patches.shape[3]))
    y = lax.dot(matrix, _spread(kernel, stride, rows, cols), preferred_element_type=jnp.float32)
    y = y.reshape(batch, height // rows, width // cols, rows, cols * out_channels)
    return y.transpose(0, 1, 3, 2, 4).reshape(batch, height, width, out_channels)


def _patches(x, side, stride, tile, out):
    """(b, H / rows, W / cols, patch) of a padded image; a patch is row-major, channels last."""
    batch, _, width, channels = x.shape
    step_rows, step_cols = tile[0] * stride, tile[1] * stride
    high, wide = (t * stride - stride + side for t in tile)
    n_rows, n_cols = out[0] // tile[0], out[1] // tile[1]
    reach = -(-wide // step_cols)  # steps that a patch reaches over
    more = max(0, (n_cols + reach - 1) * step_cols - width)
    below = max(0, (n_rows - 1) * step_rows + high - x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, below), (0, more), (0, 0)))
    pieces = []
    for i in range(high):
        row = x[:, i : i + (n_rows - 1) * step_rows + 1 : step_rows]
        for q in range(reach):
            part = row[:, :, q * step_cols : (q + n_cols) * step_cols]
            part = part.reshape(batch, n_rows, n_cols, step_cols * channels)
            pieces.append(part[..., : (wide - q * step_cols) * channels])
    return jnp.concatenate(pieces, -1)


def _spread(kernel, stride, rows, cols):
    """The kernel at every place of a tile: (patch, rows * cols * k), zero elsewhere."""
    placed = [
        jnp.pad(
            kernel,
            ((i * stride, (rows - 1 - i) * stride), (j * stride, (cols - 1 - j) * stride),
             (0, 0), (0, 0)),
        )
        for i in range(rows)
        for j in range(cols)
    ]  # fmt: skip
    return jnp.stack(placed, 3).reshape(-1, rows * cols * kernel.shape[3])


def _kernel_gradient(x, dy, side):
    """Sums over the batch in chunks: one chunk's transposed copies stay in the caches."""
    batch, height, width, _ = x.shape
    if side == 1:  # XLA would fold the transposes into a bf16 dot it lacks
        x, dy = (a.reshape(-1, a.shape[3]).astype(jnp.float32) for a in (x, dy))
        return jnp.dot(x.T, dy, precision=lax.Precision.HIGHEST)[None, None]
    fits = [
        d for d in range(1, batch + 1) if batch % d == 0 and d * height * width <= _CHUNK_PIXELS
    ]
    chunk = max(fits, default=1)
    if chunk == batch:
        return _chunk_gradient(x, dy, side)
    pieces = tuple(a.reshape(batch // chunk, chunk, *a.shape[1:]) for a in (x, dy))
    start = jnp.zeros((side, side, x.shape[3], dy.shape[3]), jnp.float32)
    total, _ = lax.scan(
        lambda total, piece: (total + _chunk_gradient(piece[0], piece[1], side), None),
        start,
        pieces,
    )
    return total


def _chunk_gradient(x, dy, side):
    """Weight gradient of one chunk, contracting pixels along the minor axis.

    Pairs of pixels count as one of twice the channels where the width allows it. Both operands are
    transposed to (channels, pixels) with the same padded row length; a tap is then a constant offset
    into x. dy is zero at padded positions, so what lies there in x is irrelevant.
    """
    batch, height, width, channels = x.shape
    pair = 2 if side == 3 and width % 2 == 0 else 1
    merged = width // pair
    x_flat = _transposed(x.reshape(batch, height, merged, -1), side // 2, side // 2)
    dy_flat = _transposed(dy.reshape(batch, height, merged, -1), 0, side - 1)
    pitch = merged + 2 * (side // 2)
    n = x_flat.shape[1] - (side - 1) * pitch - (side - 1)
    taps = []
    for i in range(side):
        for j in range(side):
            tap = x_flat[:, i * pitch + j : i * pitch + j + n]
            if pair == 2:  # of the outer pixel pairs only the one next to the window is in it
                tap = (tap[channels:], tap, tap[:channels])[j]
            taps.append(tap)
    g = _dot_minor(_floats(jnp.concatenate(taps, 0)), _floats(dy_flat[:, :n]))
    g = g.reshape(side, side + pair - 1, channels, pair, -1)
    return functools.reduce(jnp.add, [g[:, j : j + side, :, j] for j in range(pair)])


def _transposed(a, before, after):
    batch, height, width, channels = a.shape
    planes = _words(a).reshape(-1, channels).T.reshape(channels, batch, height, width)
    margin = (before, after)
    return jnp.pad(planes, ((0, 0), (0, 0), margin, margin)).reshape(channels, -1)
