"""Rates of pqjax.he's kernels on one layer, beside bare transforms, int8 products and memory.

Products with a ternary polynomial count coefficients of results; their limit is the transforms alone, as
XLA does them, of as many digits as the modulus needs. Products with weights count 2 m k n operations
against one int8 product of that shape.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench_ring import CONVOLUTIONS, best, copy_rate, int8_rate, limited
from pqjax.crypto.prg import Randomness
from pqjax.he import STATIC, Filter, Matrix, Secret, ServerKey, cheapest
from pqjax.he.polynomial import digits, product
from pqjax.he.shares import rounded, with_masks
from pqjax.linear import LinearMap
from pqjax.ring import kernel

_SHAPE = CONVOLUTIONS[1]
_SUM_BITS, _W_BITS = 16, 4
_BATCH = 256


def _transform_rate() -> float:
    """Coefficients a second of the transforms of a product with a transformed small polynomial."""
    half, count = STATIC.degree // 2, digits(STATIC.degree, STATIC.bits)
    there_and_back = kernel(lambda x: jnp.fft.ifft(jnp.fft.fft(x)))
    x = np.ones((_BATCH, half), np.complex128)
    seconds = best(lambda: jax.block_until_ready(there_and_back(x)))
    return _BATCH * STATIC.degree / seconds / count


def rows() -> list[dict]:
    """One row a kernel of a 56x56 layer, W4, sums of 16 bits: see above."""
    h, side = _SHAPE.kernel, _SHAPE.side
    margin = (h // 2, h // 2)
    channels = _SHAPE.channels, _SHAPE.out_channels
    m = LinearMap((side, side), (h, h), (1, 1), (margin, margin), (1, 1), 1, *channels)
    w = np.random.default_rng(0).integers(-8, 8, m.weight_shape).astype(np.int8)
    squares = int((w.astype(np.int64) ** 2).sum((0, 1, 2)).max())
    tiling, own = cheapest(m, _SUM_BITS, Filter(squares, m.terms), 100)
    randomness = Randomness()
    matrix = Matrix(STATIC, bytes(16), "layer", tiling.polynomials)
    key = ServerKey.draw(tiling, own, w, matrix, randomness)
    hint = key.hint(matrix, randomness)
    secret = Secret(STATIC, randomness)
    public, masks = secret.zero(matrix.seed), tiling.used(secret.masks(matrix)[None])
    x = np.ones((1, tiling.slots), np.uint16)
    encrypt = lambda: with_masks(x, rounded(masks, STATIC.bits, own.sent_bits), own)
    sent, zero = encrypt(), key.zero(public)[None]
    small = key.u[:1]
    degree, transforms = STATIC.degree, _transform_rate()
    pixels, inner = zero.shape[2], m.terms

    def row(name: str, amount: float, seconds: float, unit: str, **limits: float) -> dict:
        found = {of.replace("_", " "): limit / 1e9 for of, limit in limits.items()}
        return limited(f"{name}, {_SHAPE}, W{_W_BITS}", amount / seconds / 1e9, unit, found)

    fresh = lambda: Secret(STATIC, randomness).masks(matrix)
    ciphers = tiling.polynomials * degree
    hint_ops, sum_ops = (2 * n * inner * m.outputs for n in (degree, pixels))
    copied = copy_rate(8 * ciphers) / 8
    return [
        row("masks of a tile", ciphers, best(fresh), "Gcoefficients/s", transforms=transforms),
        row(
            "encryption of a tile", tiling.slots, best(encrypt),
            "Gcoefficients/s", copy=copied,
        ),
        row(
            "products with a hint", hint.high.size,
            best(lambda: product(hint.high, small, STATIC.bits)),
            "Gcoefficients/s", transforms=transforms, copy=copied,
        ),
        row(
            "client's share of a tile", hint.high.size, best(lambda: secret.share(tiling, hint)),
            "Gcoefficients/s", transforms=transforms,
        ),
        row(
            "hint", hint_ops, best(lambda: key.hint(matrix, randomness)),
            "GOP/s", int8_dot=int8_rate(degree, inner, m.outputs),
        ),
        row(
            "server's share of a tile", sum_ops, best(lambda: key.share(sent, zero, x)),
            "GOP/s", int8_dot=int8_rate(pixels, inner, m.outputs),
        ),
    ]  # fmt: skip
