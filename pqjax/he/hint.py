"""The server's side: a hint, made once a model's version for all clients, and the server's share.

Without u the hint would be the weights times public polynomials: anybody could solve for them. A u is
one hint's own: two hints under one u differ by what is linear in the weights.
"""

import dataclasses

import numpy as np
from jaxtyping import Integer, UInt, UInt8, UInt64

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he.matrix import Matrix
from pqjax.he.polynomial import Polynomials, Small, coefficients, product
from pqjax.he.precision import Precision
from pqjax.he.sampling import errors, ternary
from pqjax.he.shares import rounded, server_share
from pqjax.he.tiling import Tiling
from pqjax.ring import Ring, pack, unpack


@dataclasses.dataclass(frozen=True, repr=False)
class Hint:
    """What clients of a layer get once: the top bits of its products, in Ring(hint_bits)."""

    precision: Precision
    high: UInt[np.ndarray, "hints N"]

    def pack(self) -> UInt8[np.ndarray, " bytes"]:
        """Its bits one after the other, row by row."""
        return pack(self.high.reshape(-1), self.precision.hint_bits)

    @classmethod
    def unpack(cls, own: Precision, packed: UInt8[np.ndarray, " bytes"]) -> "Hint":
        """What `pack` made; any bytes are a hint's."""
        degree = own.modulus.degree
        high = unpack(packed, 8 * packed.size // own.hint_bits, own.hint_bits)
        return cls(own, high.reshape(-1, degree))


@dataclasses.dataclass(frozen=True, repr=False)  # the model, and what hides it
class ServerKey:
    """A layer's secrets u, (hints, N), and weights (h, w, C / groups, K)."""

    tiling: Tiling
    precision: Precision
    u: Small
    weights: Integer[np.ndarray, "h w F K"]

    @classmethod
    def draw(
        cls,
        tiling: Tiling,
        own: Precision,
        weights: Integer[np.ndarray, "h w F K"],
        randomness: Randomness,
    ) -> "ServerKey":
        """A key with a u of its own for every row.

        Args:
          tiling: how the layer lies in polynomials.
          own: its widths; InputError if the weights exceed the bounds they were made for.
          weights: signed.
          randomness: the server's.
        """
        # A digit of 8 bits more costs a product more.
        weights = weights.astype(np.min_scalar_type(min(weights.min(), ~weights.max())))
        squares = (tiling.filters * (weights.astype(np.int64) ** 2).sum((0, 1, 2))).max()
        if squares > own.filter.squares or tiling.degree != own.modulus.degree:
            raise InputError("the filters are larger than the layer's widths allow")
        return cls(tiling, own, ternary(tiling.hints, tiling.degree, randomness), weights)

    def hint(self, matrix: Matrix, randomness: Randomness) -> Hint:
        """The hint  sum w^ a + u a_pk + e1  of the layer, with an e1 of its own for every row.

        Args:
          matrix: the layer's public polynomials, `tiling.polynomials` of them, of a seed that no other
            weights use.
          randomness: the server's.
        """
        tiling, own, modulus = self.tiling, self.precision, self.precision.modulus
        if (matrix.count, matrix.modulus) != (tiling.polynomials, modulus):
            raise InputError(
                f"the layer takes {tiling.polynomials} polynomials, got {matrix.count}"
            )
        found = tiling.multiply(self.weights, matrix.polynomials(), modulus.bits)
        found += product(Matrix.key(modulus, matrix.seed).polynomials(), self.u, modulus.bits)
        found += errors(tiling.hints, modulus.degree, randomness).astype(np.uint64)
        high = rounded(modulus.ring.reduce(found).astype(np.uint64), modulus.bits, own.hint_bits)
        return Hint(own, high)

    def zero(self, public: Polynomials) -> UInt64[np.ndarray, "K pixels"]:
        """An encryption of zero, u b_pk, at a tile's sums; b_pk (1, N) is its secret's."""
        bits, at = self.precision.modulus.bits, self.tiling.positions
        return self.tiling.rows(coefficients(public, self.u, at, bits))

    def share(
        self,
        sent: UInt[np.ndarray, "tiles slots"],
        zero: UInt64[np.ndarray, "tiles K pixels"],
        own: UInt[np.ndarray, "tiles slots"],
    ) -> UInt[np.ndarray, "tiles K pixels"]:
        """The server's share mod 2^(l+1) of twice the tiles' sums, plus 0 or 1.

        Args:
          sent: what the client encrypted, in Ring(t).
          zero: see `zero`, for the same tiles of the same inference.
          own: the server's share of the operand mod 2^l, at the same slots.
        """
        widths = self.precision
        ring = Ring(widths.sent_bits)
        scaled = own.astype(np.uint64) << np.uint64(widths.sent_bits - widths.sum_bits)
        both = ring.reduce(sent.astype(np.uint64) + scaled)
        high = self.tiling.convolve(self.weights, both, widths.sent_bits)
        phase = widths.modulus.ring.reduce((high << np.uint64(widths.dropped_bits)) + zero)
        return server_share(phase.astype(np.uint64), widths)
