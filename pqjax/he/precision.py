"""How many bits of ciphertexts travel, and how likely a sum is wrong for want of those that do not.

A sum Y mod 2^l comes out as shares of 2^(k - l) Y + e mod 2^k, k = log2 q. With one guard bit the shares
are exact whenever |e| < 2^(k - l - 2), the *room* (`pqjax.he.shares`). There

    e = sum w (e_in + d_in)  +  u * e_pk  +  (e1 + d1) * s

with errors e_in, e_pk, e1, rounding errors d_in of what the client sends and d1 of the hint, ternary u
and s. Errors are sums of fair coins, and so are rounding errors over 2^n integers (bit by bit), but for
a mean of 1/2: both are strictly sub-Gaussian, E exp(x X) <= exp(x^2 Var X / 2). A coefficient of a
product with a ternary polynomial is a sum of N terms, each with E exp(x s X) <= 1/3 + 2/3 exp(x^2 E X^2
/ 2), the mean included, as signs of s are fair. Chernoff's bound holds for every x > 0; we take the best
one for a Gaussian. That rounding errors are uniform and independent is what RLWE suggests of the
ciphertexts they come from, and what tests measure; it is a premise of exactness, not of secrecy.

Merged hints (`pqjax.he.merging`) add, at every depth i and 2^i times, the digits' products with the
keys' errors, and what of A(c1) no digit holds, times A(s). Both depend on weights and are taken as large
as they may be, those with s all at once: no premise more. e_in comes g times as large.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Sequence

from pqjax.errors import InputError
from pqjax.he.levels import Level, Merging
from pqjax.he.modulus import ERROR_VARIANCE, STATIC, Modulus

FAILURE_LOG2 = -64  # of one sum at most: 2^-40 for the 2^24 sums of a large network
_TAU = 9.6  # deviations that widths leave room for: 2 exp(-tau^2 / 2) = 2^-65


@dataclasses.dataclass(frozen=True)
class Filter:
    """Public bounds on what one sum multiplies with.

    Attributes:
      squares: the largest sum of the squares of the weights.
      terms: how many weights there are.
    """

    squares: int
    terms: int

    def packed(self, filters: int) -> "Filter":
        """Of polynomials that hold so many filters: a sum meets the errors of all of them."""
        return Filter(self.squares * filters, self.terms * filters)

    @property
    def norm(self) -> float:
        """The Euclidean norm, at least 1."""
        return math.sqrt(max(1, self.squares))


@dataclasses.dataclass(frozen=True)
class Precision:
    """Widths of a layer, refused where a sum fails with more than 2^FAILURE_LOG2.

    Attributes:
      modulus: of all ciphertexts.
      filter: bounds on the weights.
      sum_bits: l, the accumulator.
      sent_bits: t, how many high bits of a ciphertext's coefficient travel.
      hint_bits: how many high bits of a hint's coefficient travel.
      merging: how many filters' hints are one, and how; None for one.
    """

    modulus: Modulus
    filter: Filter
    sum_bits: int
    sent_bits: int
    hint_bits: int
    merging: Merging | None = None

    def __post_init__(self) -> None:
        most = self.modulus.bits
        if not 1 <= self.sum_bits <= most - 3:
            raise InputError(
                f"sums have 1 to {most - 3} bits under a modulus of {most}, got {self.sum_bits}"
            )
        for name, bits in (("sent", self.sent_bits), ("hint", self.hint_bits)):
            if not self.sum_bits < bits <= most:
                raise InputError(
                    f"{name}_bits must be in {self.sum_bits + 1} to {most}, got {bits}"
                )
        for level in self._levels:
            if level.dropped_bits(self.modulus) < 0:
                raise InputError(
                    f"keys hold {level.kept_bits} bits at depth {level.depth}, more than there are"
                )
        if self.failure_log2 > FAILURE_LOG2:
            raise InputError(
                f"sums of {self.sum_bits} bits with {self.sent_bits} bits sent and hints of "
                f"{self.hint_bits} may fail with 2^{self.failure_log2:.1f}, more than 2^{FAILURE_LOG2}"
            )

    @property
    def dropped_bits(self) -> int:
        """Low bits of a sent coefficient that do not travel."""
        return self.modulus.bits - self.sent_bits

    @property
    def hint_dropped_bits(self) -> int:
        """Low bits of a hint's coefficient that do not travel."""
        return self.modulus.bits - self.hint_bits

    @property
    def _levels(self) -> tuple[Level, ...]:
        return self.merging.levels if self.merging else ()

    @property
    def room(self) -> int:
        """Errors of this size and more may break a sum."""
        return 1 << self.modulus.bits - self.sum_bits - 2

    @property
    def deviation(self) -> float:
        """Standard deviation of e where filters are as large as they may be."""
        n = self.modulus.degree
        plain, key, hint = self._variances
        return math.sqrt(plain + 2 / 3 * n * (key + hint))

    @property
    def _variances(self) -> tuple[float, float, float]:
        """Of what weights and digits multiply; of a term with u; of one with s, its mean included."""
        together = self.merging.filters if self.merging else 1
        each = rounding_variance(self.dropped_bits) + together**2 * ERROR_VARIANCE
        plain, mean = self.filter.squares * each, 1 / 2 if self.hint_dropped_bits else 0.0
        for level in self._levels:
            digit = 4 ** (level.depth + level.digit_bits - 1)
            plain += self.modulus.degree * level.digits * digit * ERROR_VARIANCE
            dropped = level.dropped_bits(self.modulus)
            mean += 2.0 ** (level.depth + dropped - 1) if dropped else 0
        hint = ERROR_VARIANCE + rounding_variance(self.hint_dropped_bits) + mean**2
        return plain, ERROR_VARIANCE, hint

    @functools.cached_property
    def failure_log2(self) -> float:
        """log2 of a bound on the probability that one sum is wrong."""
        mean = math.sqrt(self.filter.squares * self.filter.terms) / 2 if self.dropped_bits else 0
        plain, *ternary = self._variances
        return tail_log2(self.room - mean, plain, ternary, self.modulus.degree)


def tail_log2(room: float, plain: float, ternary: Sequence[float], degree: int) -> float:
    """log2 of a bound on the probability that an error e reaches `room`, see above.

    Args:
      room: less the mean of e.
      plain: the variance of what is multiplied with weights, or with nothing.
      ternary: mean squares of the coefficients whose products with ternary polynomials are added.
      degree: N.
    """
    if room <= 0:
        return 0.0
    x = room / (plain + 2 / 3 * degree * sum(ternary))
    log = math.log(2) - x * room + x * x / 2 * plain
    log += degree * sum(_with_ternary(x * x / 2 * variance) for variance in ternary)
    return min(0.0, log / math.log(2))


def rounding_variance(bits: int) -> float:
    """Variance of what rounding takes away: uniform on 2^bits integers."""
    return (4**bits - 1) / 12


def _with_ternary(y: float) -> float:
    """ln(1/3 + 2/3 exp(y)), for large y by something larger."""
    return math.log1p(2 / 3 * math.expm1(y)) if y < 1 else y


def merged_precision(
    sum_bits: int, of: Filter, together: int, modulus: Modulus = STATIC
) -> Precision:
    """The same with so many filters' hints merged, and as short keys as do. InputError if none do."""
    own = precision_for(sum_bits, of, modulus)
    for key_bits in range(1, modulus.bits + 1):
        with contextlib.suppress(InputError):
            return dataclasses.replace(own, merging=Merging(together, key_bits))
    raise InputError(f"no keys merge {together} hints of sums of {sum_bits} bits")


def precision_for(sum_bits: int, of: Filter, modulus: Modulus = STATIC) -> Precision:
    """The widths for sums of so many bits: rounding a hint leaves most of the room to what is sent.

    What is sent has 1/sqrt(2) of the room, the hint's rounding 1/sqrt(8), in deviations. Where errors of
    encryption take much of it, more bits travel, as few as will do. InputError names the widest sums
    that would do if these do not.
    """
    found, problem = widths_for(sum_bits, of, modulus), ""
    if found is not None:
        return found
    try:
        Precision(modulus, of, sum_bits, *_least(sum_bits, of, modulus))
    except InputError as error:
        problem = str(error)
    good = [bits for bits in range(1, sum_bits) if widths_for(bits, of, modulus)]
    known = f"sums of at most {max(good)} bits would" if good else "no width of sums would"
    raise InputError(
        f"no parameters for sums of {sum_bits} bits and filters of norm {of.norm:.1f} "
        f"({problem}); {known} do"
    )


@functools.lru_cache(maxsize=1 << 16)
def widths_for(sum_bits: int, of: Filter, modulus: Modulus = STATIC) -> Precision | None:
    """As `precision_for`; None where no widths do."""
    sent, hint = _least(sum_bits, of, modulus)
    found = (_fit(modulus, of, sum_bits, sent, b) for b in range(hint, modulus.bits + 1))
    return next(filter(None, found), None)


def _least(sum_bits: int, of: Filter, modulus: Modulus) -> tuple[int, int]:
    """Bits that are sent, as few as do with a whole hint if any do; of a hint, the fewest to try."""
    sent = math.ceil(sum_bits + 2.5 + math.log2(_TAU * of.norm / math.sqrt(12)))
    hint = math.ceil(sum_bits + 3.5 + math.log2(_TAU * math.sqrt(modulus.degree / 18)))
    whole = range(sent, modulus.bits + 1)
    sent = next((b for b in whole if _fit(modulus, of, sum_bits, b, modulus.bits)), sent)
    return sent, hint


def _fit(modulus: Modulus, of: Filter, sum_bits: int, sent: int, hint: int) -> Precision | None:
    try:
        return Precision(modulus, of, sum_bits, sent, hint)
    except InputError:
        return None
