"""The client's side: a secret of one inference and tile, what it encrypts, and the client's share.

A second use of a secret with the same public polynomials would show the difference of two inputs, so a
`Secret` gives out what each matrix makes of it once.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int8, UInt

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he.hint import Hint
from pqjax.he.levels import Level
from pqjax.he.matrix import Matrix
from pqjax.he.merging import turned
from pqjax.he.modulus import Modulus
from pqjax.he.polynomial import Polynomials, coefficients, product
from pqjax.he.sampling import errors, ternary
from pqjax.he.shares import client_share
from pqjax.he.tiling import Tiling


class Secret:
    """A ternary s, drawn for one inference and for one tile of every layer; in no repr."""

    def __init__(self, modulus: Modulus, randomness: Randomness):
        self._modulus, self._randomness = modulus, randomness
        self._s = ternary(1, modulus.degree, randomness)
        self._met: set[str] = set()

    def kept(self) -> tuple[Modulus, Int8[np.ndarray, "1 N"], tuple[str, ...]]:
        """All of it: its ring, s, and the names of the matrices that it has met."""
        return self._modulus, self._s, tuple(sorted(self._met))

    @classmethod
    def of(
        cls, modulus: Modulus, s: Int8[np.ndarray, "1 N"], met: Iterable[str], own: Randomness
    ) -> "Secret":
        """One of what was `kept`, of which it is the only one, with randomness for its errors."""
        made = cls(modulus, own)
        made._s, made._met = s, set(met)
        return made

    def masks(self, matrix: Matrix) -> Polynomials:
        """Encryptions of zero e - a s mod q under every polynomial of a matrix, once."""
        if matrix.modulus != self._modulus or matrix.name in self._met:
            raise InputError(f"a secret meets {matrix.name!r} once, and in its own ring")
        self._met.add(matrix.name)
        ring = self._modulus.ring
        noise = errors(matrix.count, self._modulus.degree, self._randomness)
        hidden = product(matrix.polynomials(), self._s, ring.bits)
        return ring.reduce(noise - hidden.view(np.int64)).astype(np.uint64)

    def zero(self, seed: bytes) -> Polynomials:
        """b_pk (1, N): with it the server makes encryptions of zero of its own, u b_pk."""
        return self.masks(Matrix.key(self._modulus, seed))

    def switching(self, seed: bytes, level: Level) -> Polynomials:
        """The key (digits, N) that merges hints at a level, once: the secret, turned, under itself."""
        bits = self._modulus.bits
        shifts = bits - level.depth - level.digit_bits * np.arange(1, level.digits + 1)
        own = turned(self._s.astype(np.int64), level.depth) << shifts[:, None]
        hidden = self.masks(level.matrix(self._modulus, seed)) + own.view(np.uint64)
        return self._modulus.ring.reduce(hidden).astype(np.uint64)

    def share(self, tiling: Tiling, hint: Hint) -> UInt[np.ndarray, "K pixels"]:
        """The client's share mod 2^(l+1) of twice a tile's sums, known before its input."""
        own = hint.precision
        # The low bits of a hint are zeros: its high ones are multiplied, in a ring of their own.
        high = coefficients(hint.high, self._s, tiling.positions, own.hint_bits)
        return client_share(tiling.rows(high << np.uint64(own.hint_dropped_bits)), own)

    def times(self, polynomials: Polynomials) -> Polynomials:
        """Polynomials times s mod q: of a c1, what with its c0 makes a phase."""
        return product(polynomials, self._s, self._modulus.bits)
