"""How likely what was seen is where nothing is wrong, and below which chance a test calls it wrong.

All tests of this folder together raise a false alarm with at most `FAMILY`. That is divided evenly over
its `PARTS`, each part's over its tests, a test's over the statistics that it looks at (Bonferroni: no
independence is needed). Seeds are fixed wherever something is drawn, so a test that passes goes on to.

Chances are exact (binomial) or the usual limits: chi-square where cells expect `LEAST_EXPECTED` or more,
the normal distribution with the largest variance there can be, Kolmogorov and Smirnov's bound.
"""

import dataclasses
from typing import Any

import numpy as np
from evidence import record
from scipy import stats

FAMILY = 1e-6
PARTS = ("uniform", "transcripts", "rlwe", "fresh", "canaries")
LEAST_EXPECTED = 20


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Of one test.

    Attributes:
      least: the smallest chance of all statistics.
      limit: below this one it is called wrong.
      where: the statistic that has it.
      count: how many there were.
    """

    least: float
    limit: float
    where: str
    count: int

    @property
    def alarm(self) -> bool:
        """Whether something is wrong."""
        return self.least < self.limit


class Chances:
    """The chances of a test's statistics, as they are found.

    Args:
      part: of `PARTS`.
      tests: how many tests, cases counted, this part has.
    """

    def __init__(self, part: str, tests: int):
        assert part in PARTS
        self.part, self._allowed = part, FAMILY / len(PARTS) / tests
        self._found: list[tuple[float, str]] = []
        self._count = 0

    def add(self, where: str, chances) -> None:
        """Some statistics of one kind."""
        chances = np.atleast_1d(np.asarray(chances, float))
        if chances.size:
            self._count += chances.size
            self._found.append((float(chances.min()), where))

    @property
    def verdict(self) -> Verdict:
        """By the smallest of them."""
        assert self._found, "nothing was looked at"
        least, where = min(self._found)
        return Verdict(least, self._allowed / self._count, where, self._count)

    def told(self, case: str, runs: int, control: bool = False) -> Verdict:
        """The verdict, which is also evidence."""
        found = self.verdict
        outcome = {False: "nothing seen", True: "an alarm"}[found.alarm]
        record(
            "statistics", f"{self.part}: {case}", f"{outcome}, as it must be" if control else outcome,
            runs=runs, statistics=found.count, least_chance=found.least, limit=found.limit,
            false_alarms_at_most=self._allowed, control=int(control),
        )  # fmt: skip
        return found


def even_chance(counts):
    """Of cells that should be equally full: chi-square."""
    counts = np.asarray(counts, float)
    mean = counts.sum() / counts.size
    assert mean >= LEAST_EXPECTED, f"{mean:.1f} expected in a cell"
    found = ((counts - mean) ** 2).sum() / mean
    return float(stats.chi2.sf(found, counts.size - 1))


def even_bits_chances(ones, n):
    """Of bits that should be fair coins, by how many of n are ones: exact."""
    ones = np.asarray(ones)
    tails = np.minimum(stats.binom.cdf(ones, n, 0.5), stats.binom.sf(ones - 1, n, 0.5))
    return np.minimum(1.0, 2 * tails)


def alike_bits_chances(ones, others, n):
    """Of bits in two samples of n each, by how many are ones: as if their variance were the largest."""
    z = (np.asarray(ones, float) - np.asarray(others, float)) / np.sqrt(n / 2)
    return np.minimum(1.0, 2 * stats.norm.sf(np.abs(z)))


def alike_cells_chance(counts, others):
    """Of two samples' cells: chi-square of the table; cells of few are one."""
    both = np.stack([np.asarray(counts, float), np.asarray(others, float)])
    few = both.sum(0) < 2 * LEAST_EXPECTED
    rest = both[:, few].sum(1)
    table = both[:, ~few]
    if rest.sum() >= 2 * LEAST_EXPECTED:
        table = np.column_stack([table, rest])
    if table.shape[1] < 2:
        return 1.0
    found: Any = stats.chi2_contingency(table, correction=False)
    return float(found.pvalue)


def alike_values_chance(values, others):
    """Of two samples of numbers: Kolmogorov and Smirnov."""
    found: Any = stats.ks_2samp(np.ravel(values), np.ravel(others), method="asymp")
    return float(found.pvalue)


def ones_of(x, bits):
    """Of repetitions (n, ...) of elements: how often every bit of every element is 1."""
    x = np.asarray(x).astype(np.uint64).reshape(len(x), -1)
    return np.stack([(x >> np.uint64(i) & np.uint64(1)).sum(0) for i in range(bits)])


def byte_counts(x, shift=0, bits=8):
    """How often every value of `bits` bits, from `shift` on, is there."""
    x = np.asarray(x).astype(np.uint64).reshape(-1) >> np.uint64(shift)
    return np.bincount((x & np.uint64((1 << bits) - 1)).astype(np.int64), minlength=1 << bits)


def add_uniform(chances: Chances, where: str, x, bits: int) -> None:
    """Elements (n, ...) of a ring of so many bits: every bit, and the low and the high byte of all."""
    chances.add(f"{where}, bits", even_bits_chances(ones_of(x, bits), len(x)))
    width = min(8, bits)
    while np.size(x) >> width < LEAST_EXPECTED:
        width -= 1
    chances.add(f"{where}, low bits", even_chance(byte_counts(x, 0, width)))
    if bits > width:
        chances.add(f"{where}, high bits", even_chance(byte_counts(x, bits - width, width)))


def add_alike(chances: Chances, where: str, x, other, bits: int) -> None:
    """Two samples (n, ...) of such elements: the same, and their values."""
    n = len(x)
    assert np.shape(x) == np.shape(other), "sizes depend on a secret"
    chances.add(f"{where}, bits", alike_bits_chances(ones_of(x, bits), ones_of(other, bits), n))
    width = min(8, bits)
    for shift in {0, bits - width}:
        counts = (byte_counts(each, shift, width) for each in (x, other))
        chances.add(f"{where}, bits from {shift}", alike_cells_chance(*counts))
    some = max(1, np.size(x) >> 17)  # in steps: sorting all of them would take long
    pair = (np.ravel(each)[::some] for each in (x, other))
    chances.add(f"{where}, values", alike_values_chance(*pair))
