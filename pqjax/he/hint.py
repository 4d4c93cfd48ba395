"""The server's side: a hint, made once a model's version for all clients, and the server's share.

Without u the hint would be the weights times public polynomials: anybody could solve for them. A u is
one hint's own: two hints under one u differ by what is linear in the weights.
"""

import dataclasses

import numpy as np
from jaxtyping import Integer, UInt, UInt64

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he.matrix import Matrix
from pqjax.he.polynomial import Polynomials, Small, coefficients, product
from pqjax.he.precision import Precision
from pqjax.he.sampling import errors, ternary
from pqjax.he.shares import rounded, server_share
from pqjax.he.tiling import Tiling


@dataclasses.dataclass(frozen=True, repr=False)
class Hint:
    """What clients of a layer get once: the top bits of its products, in Ring(hint_bits)."""

    precision: Precision
    high: UInt[np.ndarray, "hints N"]


@dataclasses.dataclass(frozen=True, repr=False)  # the model, and what hides it
class ServerKey:
    """A layer's secrets u, (hints, N), and weights (h, w, C / groups, K)."""

    tiling: Tiling
    precision: Precision
    u: Small
    weights: Integer[np.ndarray, "h w F K"]

    def zero(self, public: Polynomials) -> UInt64[np.ndarray, "K pixels"]:
        """An encryption of zero, u b_pk, at a tile's sums; b_pk (1, N) is its secret's."""
        bits, at = self.precision.modulus.bits, self.tiling.positions
        return self.tiling.rows(coefficients(public, self.u, at, bits))

    def share(
        self,
        sent: UInt[np.ndarray, " slots"],
        zero: UInt64[np.ndarray, "K pixels"],
        sums: UInt[np.ndarray, "K pixels"],
    ) -> UInt[np.ndarray, "K pixels"]:
        """The server's share mod 2^(l+1) of twice a tile's sums, plus 0 or 1.

        Args:
          sent: what the client encrypted, in Ring(t).
          zero: see `zero`, for the same tile of the same inference.
          sums: the tile's sums of the server's own share mod 2^l.
        """
        own = self.precision
        high = self.tiling.convolve(self.weights, sent, own.sent_bits)
        phase = own.modulus.ring.reduce((high << np.uint64(own.dropped_bits)) + zero)
        return server_share(phase.astype(np.uint64), sums, own)


def hint_of(
    tiling: Tiling,
    own: Precision,
    weights: Integer[np.ndarray, "h w F K"],
    matrix: Matrix,
    randomness: Randomness,
) -> tuple[Hint, ServerKey]:
    """The hint  sum w^ a + u a_pk + e1  of a layer, with a u and an e1 of its own for every row.

    Args:
      tiling: how the layer lies in polynomials.
      own: its widths; InputError if the weights exceed the bounds they were made for.
      weights: signed.
      matrix: the layer's public polynomials, `tiling.polynomials` of them, of a seed that no other
        weights use.
      randomness: the server's.
    """
    modulus = own.modulus
    if (matrix.count, matrix.modulus) != (tiling.polynomials, modulus):
        raise InputError(f"the layer takes {tiling.polynomials} polynomials, got {matrix.count}")
    # A digit of 8 bits more costs a product more.
    weights = weights.astype(np.min_scalar_type(min(weights.min(), ~weights.max())))
    squares = (tiling.filters * (weights.astype(np.int64) ** 2).sum((0, 1, 2))).max()
    if squares > own.filter.squares or tiling.degree != modulus.degree:
        raise InputError("the filters are larger than the layer's widths allow")
    rows, degree, bits = tiling.hints, modulus.degree, modulus.bits
    u = ternary(rows, degree, randomness)
    found = tiling.multiply(weights, matrix.polynomials(), bits)
    found += product(Matrix.key(modulus, matrix.seed).polynomials(), u, bits)
    found += errors(rows, degree, randomness).astype(np.uint64)
    high = rounded(modulus.ring.reduce(found).astype(np.uint64), bits, own.hint_bits)
    return Hint(own, high), ServerKey(tiling, own, u, weights)
