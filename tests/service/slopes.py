"""What a process takes, as /proc tells it, and whether that grows."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import statistics

from experiments.processes import descendants

__all__ = ["Takes", "descendants", "grown", "growth", "takes"]
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass(frozen=True)
class Takes:
    """At one moment; of several processes, their sum."""

    resident_bytes: int = 0
    descriptors: int = 0
    threads: int = 0

    def __add__(self, other):
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Takes(*(a + b for a, b in zip(mine, others, strict=True)))


def takes(*pids):
    """Of these processes now; one that is gone takes nothing."""
    return sum((_of_one(pathlib.Path(f"/proc/{pid}")) for pid in pids), Takes())


def _of_one(place):
    with contextlib.suppress(OSError, IndexError):
        pages = int((place / "statm").read_text().split()[1])
        return Takes(
            pages * PAGE_BYTES, len(os.listdir(place / "fd")), len(os.listdir(place / "task"))
        )
    return Takes()


def growth(values):
    """By how much the second half of some values, taken at even distances, grows from end to end.

    That is the median of the slopes between any two of them (Theil and Sen), times their distance: what
    happens once, or to less than a quarter of them, is no growth.
    """
    half = values[len(values) // 2 :]
    pairs = itertools.combinations(enumerate(half), 2)
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in pairs]
    return statistics.median(slopes) * (len(half) - 1) if slopes else 0.0


def grown(seen):
    """`growth` of all that some processes took."""
    names = [field.name for field in dataclasses.fields(Takes)]
    return {name: growth([getattr(each, name) for each in seen]) for name in names}
