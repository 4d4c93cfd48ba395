"""Matrix products and convolutions of ring elements, exact modulo 2^bits for every width.

A CPU multiplies int8 matrices into int32 far faster than anything else (with matrix units 10 times
the float32 rate, 100 times the int32 rate), and XLA's unsigned dot is slower than all of these. So
each operand is split into balanced base-256 digits ("limbs") in [-128, 127], limb i times limb j
contributes at bit 8(i+j), and pairs that start at or above `bits` are skipped. Digits come from one
addition: byte i of v + 0x80...80, minus 128, is digit i of v.

An int32 sum of limb products is known modulo 2^32, which is enough while bits - 8(i+j) <= 32. Below
that it must not overflow at all: |sum| <= K * 2^14 < 2^31, so K is cut into chunks of 2^17 - 1.
"""

import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from pqjax.errors import InputError
from pqjax.ring.kernel import kernel
from pqjax.ring.ring import Array, Ring

_EXACT_TERMS = (1 << 17) - 1
_SUM_BYTES = 1 << 20  # of one int32 sum of limb products; a taller matrix is mapped over rows
_COLUMN_BYTES = 1 << 20  # of im2col per step; a larger batch is mapped over images


def matmul(
    a: Array,
    b: Array,
    ring: Ring,
    *,
    a_bits: int | None = None,
    a_signed: bool = False,
    b_bits: int | None = None,
    b_signed: bool = False,
) -> Array:
    """The matrix product a b modulo 2^bits.

    Bounds are public facts that save limbs: 4-bit signed weights take one limb in any ring.

    Of integers of any dtype, (m, k) and (k, n), whose residues matter alone. With `a_bits` every element
    of a is in [0, 2^a_bits), or, read as two's complement in `ring`, in [-2^(a_bits-1), 2^(a_bits-1)) if
    `a_signed`; None: any ring element. Likewise for b. Not checked.

    Makes (m, n) in ring.dtype; numpy if both operands are, else JAX.
    """
    a, b = _operand("a", a, 2, ring), _operand("b", b, 2, ring)
    if a.shape[1] != b.shape[0]:
        raise InputError(f"matmul expects (m, k) and (k, n), got {a.shape} and {b.shape}")
    limits = _limit("a", a_bits, a_signed, ring), _limit("b", b_bits, b_signed, ring)
    return _answer(_matmul_kernel(a, b, ring=ring, limits=limits), a, b)


def conv(
    x: Array,
    w: Array,
    ring: Ring,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    groups: int = 1,
    dilation: tuple[int, int] = (1, 1),
    *,
    x_bits: int | None = None,
    x_signed: bool = False,
    w_bits: int | None = None,
    w_signed: bool = False,
) -> Array:
    """Batched cross-correlation modulo 2^bits, with zero padding.

    Of integers of any dtype, x (B, H, W, C) and w (h, w, C / groups, K), whose output channels are
    group-major, as in XLA. `stride` is (down, right), each >= 1, `padding` ((top, bottom), (left,
    right)), each >= 0; `groups` divides C and K, C is depthwise; `dilation` is (down, right), each >= 1:
    how far apart the kernel's taps read. Bounds as in `matmul`.

    Makes (B, H', W', K) in ring.dtype; numpy if both operands are, else JAX.
    """
    x, w = _operand("x", x, 4, ring), _operand("w", w, 4, ring)
    try:
        down, across, *apart = (operator.index(s) for s in (*stride, *dilation))
        (top, bottom), (left, right) = ((operator.index(p) for p in side) for side in padding)
    except (TypeError, ValueError):
        raise InputError(
            "stride and dilation must be two ints and padding two pairs of ints, got "
            f"{stride}, {dilation} and {padding}"
        ) from None
    if len(apart) != 2 or min(down, across, *apart) < 1:
        got = f"{stride} and {dilation}"
        raise InputError(f"stride and dilation must be two positive ints, got {got}")
    if min(top, bottom, left, right) < 0:
        raise InputError(f"padding must be two pairs of ints >= 0, got {padding}")
    stride, dilation = (down, across), (apart[0], apart[1])
    padding = ((top, bottom), (left, right))
    if 0 in w.shape[:3]:
        raise InputError(f"w must have a window and input channels, got shape {w.shape}")
    if groups < 1 or x.shape[3] % groups or w.shape[3] % groups:
        raise InputError(
            f"groups must divide {x.shape[3]} input and {w.shape[3]} output channels, got {groups}"
        )
    if x.shape[3] != w.shape[2] * groups:
        raise InputError(
            f"w of shape {w.shape} in {groups} groups expects {w.shape[2] * groups} input "
            f"channels, got x of shape {x.shape}"
        )
    window = _Window(w.shape[:2], stride, padding, dilation)
    if min(window.result(x.shape)) < 1:
        raise InputError(
            f"the window {w.shape[:2]}, dilated by {dilation}, does not fit x of shape {x.shape} "
            f"padded by {padding}"
        )
    limits = _limit("x", x_bits, x_signed, ring), _limit("w", w_bits, w_signed, ring)
    return _answer(_conv_kernel(x, w, ring=ring, window=window, groups=groups, limits=limits), x, w)


Limit = tuple[int, bool]  # how many limbs, and whether to read two's complement


def _limit(name: str, bits: int | None, signed: bool, ring: Ring) -> Limit:
    if bits is not None and (not isinstance(bits, (int, np.integer)) or bits < 1):
        raise InputError(f"{name}_bits must be an int of at least 1, got {bits}")
    if bits is None or bits >= ring.bits:
        return -(-ring.bits // 8), False
    # The largest value of l limbs is 127 * (256^l - 1) / 255 < 2^(8l-1), so an unsigned value of
    # 8l-1 bits may need one more limb, except 127 itself; limbs beyond the ring are never needed.
    high = (1 << (bits - 1 if signed else bits)) - 1
    count = 1
    while 8 * count < ring.bits and high > 127 * (256**count - 1) // 255:
        count += 1
    return count, signed


def _word(ring: Ring) -> np.dtype:
    return np.dtype(np.uint32 if ring.bits <= 32 else np.uint64)


def _limbs(v: jax.Array, ring: Ring, limit: Limit) -> list[jax.Array]:
    """int8 arrays d_0, d_1, ... with v = sum d_i 256^i modulo 2^bits."""
    count, signed = limit
    word = _word(ring)
    v = v.astype(word)
    if signed:
        spare = 8 * word.itemsize - ring.bits
        kind = np.dtype(f"i{word.itemsize}")
        v = ((v.astype(kind) << kind.type(spare)) >> kind.type(spare)).astype(word)
    elif 8 * count < ring.bits:
        v = v & word.type(ring.mask)
    v = v + word.type(0x8080808080808080 & int(np.iinfo(word).max))
    return [((v >> word.type(8 * i)) ^ word.type(0x80)).astype(np.int8) for i in range(count)]


def _dot(a: list[jax.Array], b: list[jax.Array], ring: Ring) -> jax.Array:
    """Sums limb products: limbs (m, k) and (k, n) to (m, n) in the ring's dtype."""
    word, terms = _word(ring), a[0].shape[1]
    total = jnp.zeros((a[0].shape[0], b[0].shape[1]), word)
    for place in range(min(len(a) + len(b) - 1, -(-ring.bits // 8))):
        wide = ring.bits - 8 * place > 32
        step = _EXACT_TERMS if wide else max(terms, 1)
        part = None
        for i in range(max(0, place - len(b) + 1), min(place + 1, len(a))):
            for at in range(0, terms, step):
                left, right = a[i][:, at : at + step], b[place - i][at : at + step]
                product = lax.dot(left, right, preferred_element_type=np.int32)
                product = product.astype(word) if wide else product
                part = product if part is None else part + product
        if part is not None:
            total = total + (part.astype(word) << word.type(8 * place))
    return ring.reduce(total)


def _matmul(a: jax.Array, b: jax.Array, ring: Ring, limits: tuple[Limit, Limit]) -> jax.Array:
    a_limbs, b_limbs = _limbs(a, ring, limits[0]), _limbs(b, ring, limits[1])
    per = max(64, _SUM_BYTES // max(4 * b.shape[1], 1))
    if a.shape[0] <= per:
        return _dot(a_limbs, b_limbs, ring)
    row = lambda limbs: _dot([limb[None] for limb in limbs], b_limbs, ring)[0]
    return lax.map(row, tuple(a_limbs), batch_size=per)


class _Window(NamedTuple):
    """A kernel's size and how it moves."""

    size: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]

    def result(self, shape: tuple[int, ...]) -> list[int]:
        """Height and width of what becomes of images (B, H, W, C)."""
        spare = [shape[1 + i] + sum(self.padding[i]) - 1 for i in (0, 1)]
        axes = zip(spare, self.size, self.stride, self.dilation, strict=True)
        return [(most - (n - 1) * apart) // step + 1 for most, n, step, apart in axes]

    def taps(self, x: jax.Array) -> list[jax.Array]:
        """The padded images as each of its positions sees them: (B, H', W', C) each."""
        (down, right), (high, wide) = self.stride, self.result(x.shape)
        x = jnp.pad(x, ((0, 0), *self.padding, (0, 0)))
        return [
            x[:, i : i + (high - 1) * down + 1 : down, j : j + (wide - 1) * right + 1 : right]
            for i in range(0, self.size[0] * self.dilation[0], self.dilation[0])
            for j in range(0, self.size[1] * self.dilation[1], self.dilation[1])
        ]


def _conv(x, w, ring: Ring, window: _Window, groups: int, limits: tuple[Limit, Limit]) -> jax.Array:
    if w.shape[2] == 1 and groups > 1:
        return _depthwise(x, w, ring, window, groups)
    group_in, channels = w.shape[2:]
    terms = w.shape[0] * w.shape[1] * group_in
    down, right = window.result(x.shape)
    w_limbs = [limb.reshape(terms, channels) for limb in _limbs(w, ring, limits[1])]
    out = channels // groups

    def images(x: list[jax.Array]) -> jax.Array:
        # im2col on int8 limbs: the copies cost a quarter of what ring words would.
        columns = []
        for limb in x:
            taps = window.taps(limb)
            if groups == 1:
                columns.append(jnp.concatenate(taps, -1).reshape(-1, terms))
                continue
            split = [tap.reshape(-1, groups, group_in) for tap in taps]
            columns.append(jnp.concatenate(split, -1).transpose(1, 0, 2))
        if groups == 1:
            y = _dot(columns, w_limbs, ring)
        else:
            kernels = [limb.reshape(terms, groups, out).transpose(1, 0, 2) for limb in w_limbs]
            each = jax.vmap(lambda a, b: _dot(a, b, ring))(columns, kernels)
            y = each.transpose(1, 0, 2)
        return y.reshape(x[0].shape[0], down, right, channels)

    x_limbs = _limbs(x, ring, limits[0])
    per = max(1, _COLUMN_BYTES // max(1, down * right * terms * groups * len(x_limbs)))
    if x.shape[0] <= per:
        return images(x_limbs)
    # Whole batches of columns would leave the cache (and, for a test set, the memory).
    image = lambda limbs: images([limb[None] for limb in limbs])[0]
    return lax.map(image, tuple(x_limbs), batch_size=per)


def _depthwise(x, w, ring: Ring, window: _Window, groups: int) -> jax.Array:
    """One input channel per output channel: element-wise, one fused loop over all taps."""
    word, channels = _word(ring), w.shape[3]
    x = jnp.repeat(x.astype(word), channels // groups, axis=3)
    w = w.astype(word).reshape(-1, channels)
    return ring.reduce(sum(tap * w[i][None, None, None] for i, tap in enumerate(window.taps(x))))


_matmul_kernel = kernel(_matmul, static=("ring", "limits"))
_conv_kernel = kernel(_conv, static=("ring", "window", "groups", "limits"))


def _operand(name: str, x: Array, rank: int, ring: Ring) -> Array:
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if x.dtype.kind not in "iub":
        raise InputError(f"{name} must hold integers, got dtype {x.dtype}")
    if x.ndim != rank:
        raise InputError(f"{name} must have {rank} axes, got shape {x.shape}")
    # A wide numpy array is cut here: under an outer jit without 64-bit types JAX could not hold it.
    return ring.reduce(x) if isinstance(x, np.ndarray) and x.dtype.itemsize == 8 else x


def _answer(y: jax.Array, *operands: Array) -> Array:
    # A numpy operand under an outer jit still gives a traced result.
    if isinstance(y, Tracer) or any(isinstance(o, jax.Array) for o in operands):
        return y
    return np.asarray(y)
