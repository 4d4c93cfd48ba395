"""When messages come and work is done: the clocks of both parties and of the link, in seconds.

Sending waits for nobody: a message leaves when its direction of the link is free, and its receiver goes
on when it is there. So four clocks move by (max, +): two parties', two directions'.
"""

import dataclasses
import typing

from pqjax.wire.cost import Cost
from pqjax.wire.link import Link
from pqjax.wire.work import UNITS, Again, Part, Piped, Rates, Sent, Then, Times, Worked, walk

# About what two cores take, one a party; `pqjax calibrate` measures a machine.
NOMINAL = Rates(
    tuple(
        {
            "blocks": 5.5e-9,
            "streams": 6e-9,
            "rows": 2.5e-8,
            "b10": 5.1e-8,
            "b11": 5.5e-8,
            "b12": 5.6e-8,
            "b13": 7.7e-8,
            "words": 1.5e-9,
            "macs": 1.5e-11,
            "coefficients": 1.2e-8,
            "bits": 1.5e-10,
            "messages": 1e-4,
            "steps": 2e-4,
        }[unit]
        for unit in UNITS
    ),
    2.5e-4,
)


class Clocks(typing.NamedTuple):
    """Seconds: when rank 0 and 1 are done, and when what either has sent is on its way."""

    party0: float = 0.0
    party1: float = 0.0
    lane0: float = 0.0
    lane1: float = 0.0

    @property
    def last(self) -> float:
        """When both parties are done."""
        return max(self.party0, self.party1)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """How long things take on a link, or on loopback, by a machine's rates."""

    link: Link | None
    rates: Rates = NOMINAL

    def seconds(self, cost: Cost) -> float:
        """From both parties' beginning to the end of the later."""
        return self.after(cost, Clocks()).last

    def after(self, cost: Cost, clocks: Clocks) -> Clocks:
        """The clocks when a cost's work is done that begins at such clocks."""
        return Clocks(*self._played(cost.part, clocks, 1, self._latency_s))

    def computing(self, cost: Cost) -> tuple[float, float]:
        """Seconds that each party computes, packing of messages included."""
        busy = self._busy(cost.part, 1)
        return busy[0], busy[1]

    def busiest(self, cost: Cost) -> float:
        """Seconds of the party or direction of the link that has most to do, if nothing waits."""
        return max(self._busy(cost.part, 1))

    @property
    def _latency_s(self) -> float:
        return self.rates.turn_s + (self.link.rtt_ms / 2e3 if self.link else 0.0)

    @property
    def _bit_s(self) -> float:
        return 1e-6 / self.link.mbps if self.link else 0.0

    def _played(
        self, part: Part | None, clocks: typing.Sequence[float], n: int, latency_s: float
    ) -> list[float]:
        """The clocks after n times the payload and work of a part."""
        rates, bit_s = self.rates, self._bit_s
        pack_s, each_s = rates.of("bits"), rates.of("messages")
        now, left = list(clocks), [] if part is None else [(part, n)]
        while left:
            part, n = left.pop()
            if isinstance(part, Then):
                left += [(part.later, n), (part.first, n)]
            elif isinstance(part, Worked):
                each = n * rates.of(part.unit)
                now[0] += each * part.amounts[0]
                now[1] += each * part.amounts[1]
            elif isinstance(part, Sent):
                there = [0.0, 0.0]
                for rank, bits in enumerate(part.bits):
                    if bits is not None:
                        now[rank] += n * bits * pack_s + each_s
                        now[2 + rank] = max(now[2 + rank], now[rank]) + n * bits * bit_s
                        there[1 - rank] = now[2 + rank] + latency_s
                for rank, bits in enumerate(part.bits[::-1]):
                    if bits is not None:
                        now[rank] = max(now[rank], there[rank]) + n * bits * pack_s + each_s
            elif isinstance(part, Times):
                left.append((part.part, n * part.n))
            elif isinstance(part, Again):
                now = self._again(part, now, n, latency_s)
            else:
                now = self._piped(part, now, n, latency_s)
        return now

    def _again(self, part: Again, now: list[float], n: int, latency_s: float) -> list[float]:
        """From the second time on each takes as long as the one before."""
        if not part.times:
            return now
        once = self._played(part.part, now, n, latency_s)
        if part.times == 1:
            return once
        twice = self._played(part.part, once, n, latency_s)
        return [b + (part.times - 2) * (b - a) for a, b in zip(once, twice, strict=True)]

    def _piped(self, part: Piped, now: list[float], n: int, latency_s: float) -> list[float]:
        """Of many pieces the busiest of parties and directions alone counts; of one piece all do."""
        whole = self._played(part.part, now, n, latency_s)
        empty, busiest = self._played(part.part, now, 0, latency_s), max(self._busy(part.part, n))
        many = (min(x, y + busiest) for x, y in zip(whole, empty, strict=True))
        return [y + (x - y) / part.pieces for x, y in zip(whole, many, strict=True)]

    def _busy(self, part: Part | None, times: int) -> list[float]:
        """Seconds that both parties compute, and that both directions of the link are taken."""
        busy, rates = [0.0] * 4, self.rates
        for leaf, n in walk(part):
            if isinstance(leaf, Worked):
                each = times * n * rates.of(leaf.unit)
                busy[0] += each * leaf.amounts[0]
                busy[1] += each * leaf.amounts[1]
                continue
            for rank, bits in enumerate(leaf.bits):
                if bits is not None:
                    packing = times * n * bits * rates.of("bits") + rates.of("messages")
                    busy[0] += packing
                    busy[1] += packing
                    busy[2 + rank] += times * n * bits * self._bit_s
        return busy
