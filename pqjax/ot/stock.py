"""A store of random OTs: rows that are used once, in order."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from pqjax.errors import OutOfCorrelations
from pqjax.ot.source import Choices, Rows

_SLAB = 1 << 20  # rows, 16 MiB
Part = tuple[Rows, Choices]


class Stock:
    """Rows that are used once, in order.

    Sender and receiver of a direction fill and draw in step; nothing is ever put back. Rows lie in
    slabs, each let go once all of it is drawn: arrays of each batch would outlive the memory around
    them, and break it up.
    """

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        self.left = 0

    @staticmethod
    def gathered(batches: Iterable[Part]) -> list[Part]:
        """Batches of rows and bits, as they are made, in slabs."""
        slabs, waiting, n = [], [], 0
        for batch in batches:
            waiting.append(batch)
            n += len(batch[0])
            if n >= _SLAB:
                slabs.append(joined_parts(waiting))
                waiting, n = [], 0
        return [*slabs, joined_parts(waiting)]

    def put(self, slabs: list[Part]) -> None:
        """Adds what was gathered; at the sender no bit is 1."""
        self._parts += slabs
        self.left += sum(len(rows) for rows, _ in slabs)

    def draw(self, n: int) -> Part:
        """Takes the next n rows and bits out of the store, for good; not to be written to."""
        if n > self.left:
            raise OutOfCorrelations(
                f"{n} random OTs are needed and {self.left} are left: the plan prepared too few"
            )
        self.left -= n
        taken: list[Part] = []
        while n:
            rows, bits = self._parts.popleft()
            if n < len(rows):
                self._parts.appendleft((rows[n:], bits[n:]))
            taken.append((rows[:n], bits[:n]))
            n -= len(taken[-1][0])
        return joined_parts(taken)


def joined_parts(parts: list[Part]) -> Part:
    """All rows and bits together."""
    if len(parts) == 1:
        return parts[0]
    nothing = np.zeros((0, 2), np.uint64), np.zeros(0, np.uint8)
    rows, bits = zip(nothing, *parts, strict=True)
    return np.concatenate(rows), np.concatenate(bits)
