"""Hints of several filters merged into one by automorphisms (Chen, Dai, Kim, Song, 2020/015).

Where sums lie at every g-th coefficient (`pqjax.he.tiling`), ciphertexts c0 + c1 s of g filters become
one that holds the k-th's sums k coefficients further, g times as large. Two become one at a time, with h
= 2^depth from g / 2 down to 1 and A: X -> X^(N / h + 1), which keeps X^(2 h i), negates X^(2 h i + h):

    c' = (c_k + X^h c_(k+h)) + A(c_k - X^h c_(k+h))

has what lies at multiples of 2 h in both, doubled, and nothing else at multiples of h. A(c0 + c1 s) is
A(c0) + A(c1) A(s), which a key brings back to s: the high bits of A(c1), as balanced digits d_j, meet

    b_j = -a_j s + e_j + 2^(k - depth - B (j + 1)) A(s)      c0' = ... + sum d_j b_j
                                                             c1' = ... + sum d_j a_j

As the result doubles `depth` times more, its top bits do not matter. **All of c1 is static**: what
weights and public polynomials make of it is made with the hint. Of c0 only wanted coefficients are of
use: there it is g times the plain convolution, and the sums of d_j b_j.
"""

import numpy as np
from jaxtyping import UInt

from pqjax.he.levels import Merging
from pqjax.he.modulus import Modulus
from pqjax.he.polynomial import Polynomials, digit_sums
from pqjax.he.shares import rounded


def turned(x: np.ndarray, depth: int) -> np.ndarray:
    """A of polynomials (..., N), for h = 2^depth."""
    degree = x.shape[-1]
    at = np.arange(degree) * ((degree >> depth) + 1) % (2 * degree)
    found = np.empty_like(x)
    found[..., at % degree] = np.where(at < degree, x, np.negative(x))
    return found


def merged(
    products: Polynomials, merging: Merging, modulus: Modulus, seed: bytes
) -> tuple[Polynomials, tuple[UInt[np.ndarray, "n N"], ...]]:
    """What g filters' c1 each come to, and by depth what the keys' digits are cut from.

    Args:
      products: (hints g, N) mod q: the c1 of filters.
      merging: g, and how many digits.
      modulus: of all of them.
      seed: of the keys' public polynomials.

    Returns:
      (hints, N), and at every depth (hints 2^depth, N) in Ring(`kept_bits`).
    """
    items = products.reshape(-1, merging.filters, modulus.degree)
    highs = []
    for level in reversed(merging.levels):
        step = 1 << level.depth
        even, odd = items[:, :step], items[:, step:]
        odd = np.concatenate([np.negative(odd[..., -step:]), odd[..., :-step]], -1)
        rest = turned(even - odd, level.depth)
        high = rounded(rest, modulus.bits - level.depth, level.kept_bits)
        highs.append(high.reshape(-1, modulus.degree))
        public = level.matrix(modulus, seed).polynomials()
        found = digit_sums(highs[-1], level.digit_bits, public, modulus.bits)
        items = even + odd + found.reshape(items[:, :step].shape)
    return modulus.ring.reduce(items[:, 0]).astype(np.uint64), tuple(reversed(highs))
