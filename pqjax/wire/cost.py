"""What a message schedule costs: payload bits in each direction and flows, as exact algebra.

A *flow* is one link of the longest chain of messages that had to wait for each other; two messages
that cross are one flow. Flows of two schedules run one after the other are not simply the sum (the
last message of the first and the first of the second may travel together), so a cost carries how it
moves the two parties' logical clocks, a 2x2 matrix over (max, +). Composition is then exact.

Beside them it carries what was put together in which order, work of the parties included, of which
`pqjax.wire.timeline` makes seconds.
"""

import dataclasses
import functools
from collections.abc import Iterable

from pqjax.wire.work import Again, Part, Piped, Sent, Then, Times, Worked, tally

_NEVER = -(10**12)

# Row r, column c: how much later than party c's clock before is party r's clock after, at least.
Delays = tuple[tuple[int, int], tuple[int, int]]

_STILL: Delays = ((0, _NEVER), (_NEVER, 0))
_FROM: tuple[Delays, Delays] = (((0, _NEVER), (1, 0)), ((0, 1), (_NEVER, 0)))
_CROSS: Delays = ((0, 1), (1, 0))


def _after(later: Delays, earlier: Delays) -> Delays:
    """Composes two clock maps in the (max, +) semiring: first `earlier`, then `later`."""
    (a, b), (c, d) = later
    (e, f), (g, h) = earlier
    return (
        (max(_NEVER, a + e, b + g), max(_NEVER, a + f, b + h)),
        (max(_NEVER, c + e, d + g), max(_NEVER, c + f, d + h)),
    )


@dataclasses.dataclass(frozen=True)
class Cost:
    """Payload bits sent by each party and the order of the messages that carry them.

    Attributes:
      sent: payload bits sent by (rank 0, rank 1). Framing and padding to bytes are not payload.
      delays: how the schedule moves the two logical clocks.
      rots: random OTs drawn from the store that the offline phase filled, by the rank that is
        their sender. OTs extended on the spot are in `sent` instead.
      part: messages and work in their order; costs that send and draw alike are equal whatever they
        work.

    `a + b` is "a, then b". `cost * n` scales the payload, not the messages: n elements at once.
    """

    sent: tuple[int, int] = (0, 0)
    delays: Delays = _STILL
    rots: tuple[int, int] = (0, 0)
    part: Part | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def work(self) -> dict[str, tuple[int, int]]:
        """How much each rank works of each unit, see `pqjax.wire.work`; messages not counted."""
        return tally(self.part)

    @property
    def bits(self) -> int:
        """Payload bits in both directions together."""
        return self.sent[0] + self.sent[1]

    @property
    def flows(self) -> int:
        """One-way bursts on the longest chain of dependent messages."""
        return max(max(row) for row in self.delays)

    def clocks(self, start: tuple[int, int] = (0, 0)) -> tuple[int, int]:
        """The two parties' logical clocks after this schedule, from those before it."""
        row0, row1 = self.delays
        return (
            max(row0[0] + start[0], row0[1] + start[1]),
            max(row1[0] + start[0], row1[1] + start[1]),
        )

    def __add__(self, later: "Cost") -> "Cost":
        if self is NOTHING:
            return later
        first, part = self.part, later.part
        return Cost(
            (self.sent[0] + later.sent[0], self.sent[1] + later.sent[1]),
            _after(later.delays, self.delays),
            (self.rots[0] + later.rots[0], self.rots[1] + later.rots[1]),
            Then(first, part) if first and part else first or part,
        )

    def __radd__(self, zero: int) -> "Cost":
        if zero != 0:
            return NotImplemented
        return self

    def __mul__(self, n: int) -> "Cost":
        return Cost(
            (self.sent[0] * n, self.sent[1] * n),
            self.delays,
            (self.rots[0] * n, self.rots[1] * n),
            self.part and Times(self.part, n),
        )

    __rmul__ = __mul__

    def repeated(self, times: int) -> "Cost":
        """So many of it, one after the other."""
        if times == 1:
            return self
        found, power, part, count = NOTHING, self, self.part, times
        while times:
            found, power, times = (found + power if times & 1 else found), power + power, times >> 1
        return dataclasses.replace(found, part=part and Again(part, count))

    def piped(self, pieces: float) -> "Cost":
        """The same, cut into pieces where one's work overlaps the messages of another."""
        if pieces <= 1 or self.part is None:
            return self
        return dataclasses.replace(self, part=Piped(self.part, pieces))


NOTHING = Cost()


def beside(costs: Iterable[Cost]) -> Cost:
    """All of `costs` at the same time, none waiting for another."""
    found = NOTHING
    for cost in costs:
        both = total([found, cost])  # but for the clocks
        later = [
            (max(a, c), max(b, d)) for (a, b), (c, d) in zip(found.delays, cost.delays, strict=True)
        ]
        found = dataclasses.replace(both, delays=(later[0], later[1]))
    return found


def message(sender: int, bits: int) -> Cost:
    """One message of `bits` payload bits from `sender` to the other party."""
    if sender == 0:
        return Cost((bits, 0), _FROM[0], part=Sent((bits, None)))
    return Cost((0, bits), _FROM[1], part=Sent((None, bits)))


def crossing(bits0: int, bits1: int | None = None) -> Cost:
    """Two messages sent at the same time, of `bits0` and `bits1` (default: as many) bits."""
    sent = bits0, bits0 if bits1 is None else bits1
    return Cost(sent, _CROSS, part=Sent(sent))


def draw(sender: int, n: int) -> Cost:
    """`n` stored random OTs with that sender; nothing is sent."""
    return Cost(rots=(n, 0) if sender == 0 else (0, n))


def work(unit: str, amount0: int, amount1: int | None = None) -> Cost:
    """What the parties compute at once, by rank (default: as much); nothing is sent."""
    amounts = amount0, amount0 if amount1 is None else amount1
    return Cost(part=Worked(unit, amounts)) if any(amounts) else NOTHING


def total(costs: Iterable[Cost]) -> Cost:
    """All of `costs`, one after the other."""
    return functools.reduce(lambda a, b: a + b, costs, NOTHING)
