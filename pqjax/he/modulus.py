"""Rings R_q = Z_q[X] / (X^N + 1) with q = 2^bits that are hard enough, and no others.

Secrets are uniform ternary, errors centred binomial of deviation 3.24 (`ERROR_VARIANCE`).
"""

import dataclasses

from pqjax.errors import InputError
from pqjax.ring import Ring

# Most bits of q for 128 bits of classical security, by N: the guidelines of eprint 2024/463, checked
# with the lattice-estimator (docs/design.md, "Linear layers over RLWE").
LIMITS = {1024: 26, 2048: 53, 4096: 106}
# The same where one public matrix serves many secrets, whose attackers share the reduction of its basis:
# 135 bits a secret if 2^40 of them are attacked together.
STATIC_LIMITS = {2048: 40}
ERROR_BITS = 42  # coins of an error: half of them minus heads
ERROR_VARIANCE = ERROR_BITS / 4
_WORD = 64


@dataclasses.dataclass(frozen=True)
class Modulus:
    """A degree N and q = 2^bits, checked against the table.

    Attributes:
      degree: N.
      bits: log2 q.
      static: whether one public matrix serves the secrets of many inferences.
    """

    degree: int
    bits: int
    static: bool = True

    def __post_init__(self) -> None:
        limits = STATIC_LIMITS if self.static else LIMITS
        if self.degree not in limits:
            raise InputError(f"the degree must be one of {sorted(limits)}, got {self.degree}")
        most = min(limits[self.degree], _WORD)
        if not 2 <= self.bits <= most:
            kind = "a fixed public matrix" if self.static else "a fresh public matrix"
            raise InputError(
                f"degree {self.degree} with {kind} allows a modulus of 2 to {most} bits, "
                f"got {self.bits}"
            )

    @property
    def ring(self) -> Ring:
        """Z_q, where coefficients live."""
        return Ring(self.bits)


STATIC = Modulus(2048, 40)
