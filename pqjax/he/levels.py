"""How many hints are merged into one (`pqjax.he.merging`), and in which digits keys are switched."""

import dataclasses

from pqjax.errors import InputError
from pqjax.he.matrix import Matrix
from pqjax.he.modulus import Modulus

MOST = 32  # filters
_DIGIT_BITS = 8  # of a digit at depth 0: errors double `depth` times, so there they are smaller


@dataclasses.dataclass(frozen=True)
class Level:
    """Where two become one, and in which digits its key takes A(c1): the high bits of them all.

    Attributes:
      depth: log2 of how far apart their sums come to lie.
      digits: how many.
    """

    depth: int
    digits: int

    @property
    def digit_bits(self) -> int:
        """B."""
        return _DIGIT_BITS - self.depth

    @property
    def kept_bits(self) -> int:
        """Of A(c1), in all digits."""
        return self.digits * self.digit_bits

    def dropped_bits(self, modulus: Modulus) -> int:
        """Low bits of A(c1) that no digit holds."""
        return modulus.bits - self.depth - self.kept_bits

    def matrix(self, modulus: Modulus, seed: bytes) -> Matrix:
        """The key's public polynomials a_j; those of fewer digits are the first of more."""
        return Matrix.switching(modulus, seed, self.depth, self.digits)


@dataclasses.dataclass(frozen=True)
class Merging:
    """How many filters share a hint, and how finely keys are switched.

    Attributes:
      filters: g, a power of 2 up to `MOST`.
      key_bits: high bits of A(c1) that digits hold at least.
    """

    filters: int
    key_bits: int

    def __post_init__(self) -> None:
        if self.filters not in (1 << i for i in range(1, MOST.bit_length())):
            raise InputError(f"2, 4, ... or {MOST} filters are merged, got {self.filters}")
        if self.key_bits < 1:
            raise InputError(f"keys are switched in 1 bit and more, got {self.key_bits}")

    @property
    def log2(self) -> int:
        """Of g."""
        return self.filters.bit_length() - 1

    @property
    def levels(self) -> tuple[Level, ...]:
        """By depth; they are used from the last to the first."""
        return tuple(
            Level(depth, -(-self.key_bits // (_DIGIT_BITS - depth))) for depth in range(self.log2)
        )
