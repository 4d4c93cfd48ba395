"""Secrets and errors from AES streams."""

import math

import numpy as np
from jaxtyping import Int8

from pqjax.crypto.prg import Randomness
from pqjax.he.modulus import ERROR_BITS

_TRITS = 5  # of a byte: 3^5 = 243 of its 256 values
_EXTRA = 6.0  # standard deviations of the number of bytes that are no trits
# Every value of a byte as its five digits to base 3, minus 1.
_DIGITS = (np.arange(243)[:, None] // 3 ** np.arange(_TRITS) % 3 - 1).astype(np.int8)


def ternary(n: int, degree: int, randomness: Randomness) -> Int8[np.ndarray, "n degree"]:
    """Uniform coefficients of -1, 0, 1. Bytes of 243 and more are rejected."""
    wanted, found = -(-n * degree // _TRITS), np.zeros(0, np.uint8)
    while len(found) < wanted:
        short = (wanted - len(found)) * 256 / 243
        raw = randomness.take(math.ceil(short + _EXTRA * math.sqrt(short)))
        found = np.concatenate([found, raw[raw < 243]])
    return _DIGITS[found[:wanted]].reshape(-1)[: n * degree].reshape(n, degree)


def errors(n: int, degree: int, randomness: Randomness) -> Int8[np.ndarray, "n degree"]:
    """Centred binomial: how many of `ERROR_BITS` fair coins are heads, minus half of them."""
    coins = randomness.take(8 * n * degree).view(np.uint64) & np.uint64((1 << ERROR_BITS) - 1)
    return (np.bitwise_count(coins).astype(np.int8) - np.int8(ERROR_BITS // 2)).reshape(n, degree)
