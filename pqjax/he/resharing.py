"""A reply of short ciphertexts under a mask, and what both sides make of it: shares of the sums.

The server has c0 with c0 + c1 s = 2^(k-p) Y + e mod 2^k, for sums Y mod 2^p. It adds a mask to c0 and
keeps the mask's negative; c0 travels with b0 bits, c1 with b1. How shares mod q become shares of Y:

    APPROXIMATE   mask uniform mod 2^b0, both sides round to p bits: Y is off by one with
                  probability |e| / 2^(k-p), give or take 2^-(b0-p) (Cheetah, eprint 2022/207)
    GUARDED       mask uniform mod 2^b0, shares of 2 Y or 2 Y + 1 mod 2^(p+1) as in `pqjax.he.shares`
    FLOODED       mask 2^(k-p) r, r uniform mod 2^p, and noise 2^40 times what e can be: the client
                  decrypts Y + r exactly

Under uniform masks what the client decrypts is uniform. Under flooding it is within 2^-41 of what does
not depend on e. A mask 2^(k-p) r without flooding would show e, which is linear in the weights.

    e = sum w e_in  +  u e_pk  +  (e1 + d1) s  +  d0

d1 and d0 are rounding errors of the reply, |d0| <= 2^(k-b0-1); the rest is as in `pqjax.he.precision`.
"""

import dataclasses
import enum
import functools
import math

import numpy as np
from jaxtyping import UInt, UInt64

from pqjax.crypto.prg import Randomness
from pqjax.errors import InputError
from pqjax.he.modulus import ERROR_VARIANCE, LIMITS, Modulus
from pqjax.he.precision import FAILURE_LOG2, Filter, rounding_variance, tail_log2
from pqjax.he.shares import rounded
from pqjax.ring import Ring

FLOOD_BITS = 40  # statistical security of flooding
ERRORS_LOG2 = -14  # of one approximate sum, where widths are chosen: what 64 bits give 37-bit sums
_MORE = 3  # bits of q beyond the fewest that do, and one of b1: they may save others


class Sharing(enum.Enum):
    """How a reply becomes shares, see above."""

    APPROXIMATE = "approximate"
    GUARDED = "guarded"
    FLOODED = "flooded"


@dataclasses.dataclass(frozen=True)
class ReplyPrecision:
    """Widths of a layer with a reply; refused where a sum fails with more than 2^FAILURE_LOG2.

    Attributes:
      modulus: of all ciphertexts, q = 2^k.
      filter: bounds on the weights.
      plain_bits: p, of the sums.
      c1_bits: b1, how many high bits of a coefficient of c1 travel.
      c0_bits: b0, the same of c0.
      sharing: how shares are made; an approximate sum that is off by one has not failed.
    """

    modulus: Modulus
    filter: Filter
    plain_bits: int
    c1_bits: int
    c0_bits: int
    sharing: Sharing

    def __post_init__(self) -> None:
        if self.plain_bits < 1:
            raise InputError(f"sums have at least 1 bit, got {self.plain_bits}")
        for name, bits in (("c1_bits", self.c1_bits), ("c0_bits", self.c0_bits)):
            if not self.plain_bits + 2 <= bits <= self.modulus.bits:
                raise InputError(
                    f"{name} must be in {self.plain_bits + 2} to {self.modulus.bits}, got {bits}"
                )
        if self.failure_log2 > FAILURE_LOG2:
            raise InputError(
                f"{self.sharing.value} sums of {self.plain_bits} bits under a modulus of "
                f"{self.modulus.bits}, replies of {self.c1_bits} and {self.c0_bits}, may fail with "
                f"2^{self.failure_log2:.1f}, more than 2^{FAILURE_LOG2}"
            )

    @property
    def guard(self) -> int:
        """1 if shares carry a guard bit."""
        return int(self.sharing is Sharing.GUARDED)

    @property
    def share_bits(self) -> int:
        """Of the ring that shares live in."""
        return self.plain_bits + self.guard

    @property
    def room(self) -> int:
        """Errors of this size and more, d0 left out, may break a sum; 0 or less if all may."""
        k = self.modulus.bits
        lost = (1 << k - self.c0_bits) >> 1
        if self.sharing is Sharing.FLOODED:
            lost += 1 << self.flood_bits
        return (1 << k - self.share_bits - 1) - lost

    @property
    def deviation(self) -> float:
        """Of e, d0 left out, where filters are as large as they may be: at least E|e|."""
        plain, *ternary = self._variances
        return math.sqrt(plain + 2 / 3 * self.modulus.degree * sum(ternary))

    @property
    def _variances(self) -> tuple[float, float, float]:
        """Of what weights multiply; of a term with u; of a term with s, its mean included."""
        dropped = self.modulus.bits - self.c1_bits
        reply = ERROR_VARIANCE + rounding_variance(dropped) + (1 / 4 if dropped else 0)
        return self.filter.squares * ERROR_VARIANCE, ERROR_VARIANCE, reply

    def _tail_log2(self, room: int) -> float:
        plain, *ternary = self._variances
        return tail_log2(room, plain, ternary, self.modulus.degree)

    @functools.cached_property
    def flood_bits(self) -> int:
        """Noise is uniform on [-2^flood_bits, 2^flood_bits): `FLOOD_BITS` more than e has."""
        most = next(n for n in range(256) if self._tail_log2(1 << n) <= FAILURE_LOG2)
        return most + FLOOD_BITS

    @functools.cached_property
    def failure_log2(self) -> float:
        """log2 of a bound on the probability that a sum is wrong; by more than one if approximate."""
        return self._tail_log2(self.room)

    @property
    def error_log2(self) -> float:
        """log2 of a bound on the probability that a sum is not exact."""
        if self.sharing is not Sharing.APPROXIMATE:
            return self.failure_log2
        k = self.modulus.bits
        step = 1 << k - self.c0_bits  # d0 and the mask's grain: |e + d0| is made a multiple of it
        return math.log2(self.deviation + 1.5 * step * (step > 1)) - (k - self.plain_bits)


def mask(
    phase: UInt64[np.ndarray, "*s"], own: ReplyPrecision, randomness: Randomness
) -> tuple[UInt[np.ndarray, "*s"], UInt64[np.ndarray, "*s"]]:
    """The server's step: c0 as it travels, in Ring(b0), and the server's share, in Ring(share_bits).

    Args:
      phase: c0 at wanted coefficients, reduced mod q.
      own: the layer's widths.
      randomness: the server's.
    """
    k, p, b0 = own.modulus.bits, own.plain_bits, own.c0_bits
    if own.sharing is Sharing.FLOODED:
        drawn = randomness.elements(phase.size, Ring(p)).reshape(phase.shape).astype(np.uint64)
        flood = randomness.elements(phase.size, Ring(own.flood_bits + 1)).reshape(phase.shape)
        noise = flood.astype(np.uint64) - np.uint64(1 << own.flood_bits)
        hidden = phase + (drawn << np.uint64(k - p)) + noise
        return rounded(hidden, k, b0), Ring(p).neg(drawn).astype(np.uint64)
    uniform = randomness.elements(phase.size, Ring(b0)).reshape(phase.shape).astype(np.uint64)
    sent = Ring(b0).reduce(rounded(phase, k, b0) + uniform)
    if own.guard:
        kept = rounded(Ring(b0).neg(uniform).astype(np.uint64), b0, p + 1) + np.uint64(1)
    else:  # half rounds down, so that e = 0 is never an error
        kept = Ring(p).neg(rounded(uniform, b0, p).astype(np.uint64))
    return sent, Ring(own.share_bits).reduce(kept).astype(np.uint64)


def unmask(phase: UInt64[np.ndarray, "*s"], own: ReplyPrecision) -> UInt[np.ndarray, "*s"]:
    """The client's share, in Ring(share_bits), of what it decrypts mod q."""
    if own.guard:
        return Ring(own.share_bits).reduce(phase >> np.uint64(own.modulus.bits - own.share_bits))
    return rounded(phase, own.modulus.bits, own.plain_bits)


@functools.lru_cache(maxsize=4096)
def widths(
    plain_bits: int, of: Filter, degree: int, sharing: Sharing
) -> tuple[ReplyPrecision, ...]:
    """Widths worth a look: the smallest moduli that do, with the fewest bits of c1 and one more.

    For each the fewest bits of c0. None if the largest modulus of the degree is too small. Approximate
    sums are off with 2^ERRORS_LOG2 at most.
    """

    def fit(k: int, b1: int, b0: int) -> ReplyPrecision | None:
        try:
            found = ReplyPrecision(Modulus(degree, k, False), of, plain_bits, b1, b0, sharing)
        except InputError:
            return None
        good = sharing is not Sharing.APPROXIMATE or found.error_log2 <= ERRORS_LOG2
        return found if good else None

    most, low = min(LIMITS[degree], 64), plain_bits + 2
    least = next((k for k in range(low, most + 1) if fit(k, k, k)), most + 1)
    found = []
    for k in range(least, min(least + _MORE, most) + 1):
        b1 = next(b for b in range(low, k + 1) if fit(k, b, k))
        for first in range(b1, min(b1 + 1, k) + 1):
            found.append(next(filter(None, (fit(k, first, b0) for b0 in range(low, k + 1)))))
    return tuple(found)
