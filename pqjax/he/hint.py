"""The server's side: a hint, made once a model's version for all clients, and the server's share.

Without u the hint would be the weights times public polynomials: anybody could solve for them. A u is
one hint's own: two hints under one u differ by what is linear in the weights.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt, UInt8, UInt64

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he.matrix import Matrix
from pqjax.he.merging import merged
from pqjax.he.polynomial import Polynomials, Small, coefficients, digit_sums, product
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
    """A layer's secrets u, (hints, N), and weights (h, w, C / groups, K).

    Attributes:
      tiling, precision: how it is computed.
      u, weights: see above.
      sums: where hints are merged, what they are once u a_pk + e1 is added.
      switched: by depth, what merging cuts digits of (`pqjax.he.merging`).
    """

    tiling: Tiling
    precision: Precision
    u: Small
    weights: Integer[np.ndarray, "h w F K"]
    sums: Polynomials | None = None
    switched: tuple[UInt[np.ndarray, "n N"], ...] = ()

    @classmethod
    def draw(
        cls,
        tiling: Tiling,
        own: Precision,
        weights: Integer[np.ndarray, "h w F K"],
        matrix: Matrix,
        randomness: Randomness,
    ) -> "ServerKey":
        """A key with a u of its own for every row. Takes a while where hints are merged.

        Args:
          tiling: how the layer lies in polynomials.
          own: its widths; InputError if the weights exceed the bounds they were made for.
          weights: signed.
          matrix: the layer's public polynomials, `tiling.polynomials` of them, of a seed that no other
            weights use.
          randomness: the server's.
        """
        # A digit of 8 bits more costs a product more.
        weights = weights.astype(np.min_scalar_type(min(weights.min(), ~weights.max())))
        squares = (tiling.filters * (weights.astype(np.int64) ** 2).sum((0, 1, 2))).max()
        if squares > own.filter.squares or tiling.degree != own.modulus.degree:
            raise InputError("the filters are larger than the layer's widths allow")
        if tiling.merged != (own.merging.filters if own.merging else 1):
            raise InputError(f"the layer's widths are not for {tiling.merged} hints merged")
        u = ternary(tiling.hints, tiling.degree, randomness)
        if own.merging is None:
            return cls(tiling, own, u, weights)
        products = _products(tiling, own, weights, matrix)
        return cls(
            tiling, own, u, weights, *merged(products, own.merging, own.modulus, matrix.seed)
        )

    def hint(self, matrix: Matrix, randomness: Randomness) -> Hint:
        """The hint  sum w^ a + u a_pk + e1  of the layer, with an e1 of its own for every row.

        Args:
          matrix: as in `draw`, the same.
          randomness: the server's.
        """
        tiling, own, modulus = self.tiling, self.precision, self.precision.modulus
        found = self.sums
        if found is None:
            found = _products(tiling, own, self.weights, matrix)
        found = found + product(
            Matrix.key(modulus, matrix.seed).polynomials(), self.u, modulus.bits
        )
        found += errors(tiling.hints, modulus.degree, randomness).astype(np.uint64)
        high = rounded(modulus.ring.reduce(found).astype(np.uint64), modulus.bits, own.hint_bits)
        return Hint(own, high)

    def zero(
        self, public: Polynomials, keys: Sequence[Polynomials] = ()
    ) -> UInt64[np.ndarray, "K pixels"]:
        """An encryption of zero at a tile's sums, u b_pk, and what merging adds.

        Args:
          public: b_pk, (1, N), of the tile's secret.
          keys: its `Secret.switching` by depth, of as many digits or more.
        """
        bits, at = self.precision.modulus.bits, self.tiling.positions
        found = coefficients(public, self.u, at, bits)
        levels = self.precision.merging.levels if self.precision.merging else ()
        for level, high, key in zip(levels, self.switched, keys[: len(levels)], strict=True):
            # The i-th of 2^depth that are left holds filters i, i + 2^depth, ...
            own = at.reshape(self.tiling.merged, -1)[:: 1 << level.depth]
            sums = digit_sums(high, level.digit_bits, key[: level.digits], bits)[:, own]
            sums = sums.reshape(len(found), 1 << level.depth, *own.shape).swapaxes(1, 2)
            found += sums.reshape(found.shape) << np.uint64(level.depth)
        return self.tiling.rows(found)

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


def _products(
    tiling: Tiling, own: Precision, weights: Integer[np.ndarray, "h w F K"], matrix: Matrix
) -> Polynomials:
    """Every filter polynomial times the layer's public ones."""
    if (matrix.count, matrix.modulus) != (tiling.polynomials, own.modulus):
        raise InputError(f"the layer takes {tiling.polynomials} polynomials, got {matrix.count}")
    return tiling.multiply(weights, matrix.polynomials(), own.modulus.bits)
