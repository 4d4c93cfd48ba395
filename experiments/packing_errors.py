"""How often sums packed across channels are off by one, counted and by the formula.

Two sums in one coefficient, the lower one nobody wants: its carry into the upper one is lost where
shares are cut locally, with probability |low| / 2^s for a low slot of s bits (HEQuant's E|low| / 2^l;
ours has s = l + 2, a quarter of that). Nothing but that is left out: the layer runs as it does between
two parties, with `pqjax.he` alone, less the correlated OT for the wrap that makes it exact.
"""

from __future__ import annotations

import math

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.he import HEQUANT, Filter, Packing, Secret, Tiling, TwoWay
from pqjax.he.packing import halved, packed_filter, slot_bits
from pqjax.he.published import widths_of
from pqjax.linear import LinearMap
from pqjax.ring import Ring

LAYER = LinearMap((14, 14), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 32, 64)
_DEGREE = 4096


def convolved(m: LinearMap, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The plain convolution (H', W', K) of integers, steps of 1."""
    (top, bottom), (left, right) = m.padding
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, m.kernel, (0, 1))
    return np.einsum("ijcab,abck->ijk", windows, w, optimize=True)


def error_rate(w_bits: int, x_bits: int, seed: int) -> dict:
    """One run of `LAYER` on random weights and activations: the rate as counted, and both formulas.

    Args:
      w_bits: of signed weights.
      x_bits: of activations, which are not negative.
      seed: of weights, activations, shares and keys.
    """
    m, rng = LAYER, np.random.default_rng(seed)
    w = rng.integers(-(1 << w_bits - 1), 1 << w_bits - 1, m.weight_shape)
    x = rng.integers(0, 1 << x_bits, m.in_shape)
    most = int(np.maximum(w.clip(0).sum((0, 1, 2)), -w.clip(max=0).sum((0, 1, 2))).max())
    sum_bits = (most * ((1 << x_bits) - 1)).bit_length() + 1
    of = packed_filter(Filter(int((w**2).sum((0, 1, 2)).max()), m.terms), sum_bits)
    own = widths_of(Packing.CROSS.plain_bits(sum_bits), of, _DEGREE, HEQUANT)[0]
    half = halved(m)
    high, wide = (n + sum(pads) for n, pads in zip(m.image, m.padding, strict=True))
    at = TwoWay(Tiling(half, _DEGREE, (high, wide), 1), own, Packing.CROSS, sum_bits)

    server, client = (Randomness(rng.bytes(16)) for _ in range(2))
    ring, secret, public_seed = Ring(at.operand_bits), Secret(own.modulus, client), rng.bytes(16)
    x0 = ring.reduce(rng.integers(0, 1 << 63, m.in_shape))
    matrix = at.matrix(public_seed, "layer")
    sent = at.encrypt(secret, matrix, ring.sub(ring.reduce(x), x0))
    zero = secret.zero(public_seed)
    narrow = w.astype(np.int8)
    reply, share = at.reply(narrow, sent, zero, matrix, x0, server)
    images = at.image(share, 0), at.image(at.decrypt(secret, reply), 1)
    found = Ring(at.sum_bits).reduce(Ring(at.result_bits).add(*images) >> own.guard)

    wanted, c = convolved(m, w, x), half.inputs
    off = Ring(sum_bits).signed(Ring(sum_bits).reduce(found.astype(np.int64) - wanted))
    low = np.abs(convolved(m, w[:, :, c:], x[..., :c]))
    rate = float((low / 2.0 ** slot_bits(sum_bits)).mean())
    return {
        "widths": f"W{w_bits}A{x_bits}",
        "l": sum_bits,
        "s": slot_bits(sum_bits),
        "sums": off.size,
        "largest_error": int(np.abs(off).max()),
        "counted": float((off != 0).mean()),
        "formula": rate,
        "deviation": math.sqrt(rate * (1 - rate) / off.size),
        "formula_of_l_bits": float((low / 2.0**sum_bits).mean()),
    }
