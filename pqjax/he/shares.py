"""Shares mod q of a noisy phase made into exact shares with one guard bit, and ciphertexts made short.

The server's r and the client's P have r + P = 2^(k - l) Y + e mod 2^k. With d = k - l - 1,

    A = floor((r + 2^(d-1)) / 2^d),   B = floor(P / 2^d),   A + B = 2 Y + {-1, 0} mod 2^(l+1)

whenever |e| < 2^(d-1): the server adds 1. Such shares of 2 Y or 2 Y + 1 go into an exact truncation by
at least one bit and nowhere else: what their lowest bit is depends on e, which depends on secrets.
"""

import numpy as np
from jaxtyping import UInt, UInt64

from pqjax.he.precision import Precision
from pqjax.ring import Ring


def with_masks(
    x: UInt[np.ndarray, "*s"], masks: UInt[np.ndarray, "*s"], own: Precision
) -> UInt[np.ndarray, "*s"]:
    """What travels: 2^(t - l) x + mask mod 2^t, the top t bits of 2^(k - l) x + mask mod 2^k, rounded.

    Args:
      x: the client's share of the operand mod 2^l, which is in no bit below.
      masks: `Secret.masks` made `short`, at the slots that travel; used for one x.
      own: the layer's widths.
    """
    scaled = x.astype(np.uint64) << np.uint64(own.sent_bits - own.sum_bits)
    return Ring(own.sent_bits).reduce(scaled + masks)


def short(masks: UInt64[np.ndarray, "*s"], own: Precision) -> UInt[np.ndarray, "*s"]:
    """Encryptions of zero mod q rounded to t bits, g times as large where g filters' hints are one."""
    larger = np.uint64(own.merging.log2 if own.merging else 0)
    return rounded(masks << larger, own.modulus.bits, own.sent_bits)


def rounded(x: UInt64[np.ndarray, "*s"], bits: int, kept: int) -> UInt[np.ndarray, "*s"]:
    """The nearest multiple of 2^(bits - kept) mod 2^bits, over that: in Ring(kept)."""
    drop = np.uint64(bits - kept)
    half = np.uint64((1 << bits - kept) >> 1)
    return Ring(kept).reduce(x + half >> drop)


def client_share(phase: UInt64[np.ndarray, "*s"], own: Precision) -> UInt[np.ndarray, "*s"]:
    """B in Ring(l + 1), of P reduced mod q."""
    guarded = Ring(own.sum_bits + 1)
    return guarded.reduce(phase >> np.uint64(own.modulus.bits - guarded.bits))


def server_share(phase: UInt64[np.ndarray, "*s"], own: Precision) -> UInt[np.ndarray, "*s"]:
    """A + 1 in Ring(l + 1), of r reduced mod q."""
    guarded = Ring(own.sum_bits + 1)
    high = rounded(phase, own.modulus.bits, guarded.bits).astype(np.uint64)
    return guarded.reduce(high + np.uint64(1))
