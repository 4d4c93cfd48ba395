"""What a schedule makes the parties compute, in a few units, and how it is put together.

A cost keeps the *part* that it was made of beside its sums: messages and work in their order, as a tree
that is cheap to build. What both parties do at once, and what of it the wire overlaps, follows from the
order; sums of work alone would not tell.
"""

import dataclasses
import typing
from collections import Counter
from collections.abc import Iterator

UNITS = {
    "blocks": "AES blocks that keys of OTs take",
    "streams": "AES blocks of an OT extension's columns",
    "rows": "OTs extended: columns turned into rows",
    "b10": "OTs made by silent set b10",
    "b11": "OTs made by silent set b11",
    "b12": "OTs made by silent set b12",
    "b13": "OTs made by silent set b13",
    "words": "elements that a local kernel reads or makes",
    "macs": "products of 8-bit digits that linear layers sum",
    "coefficients": "coefficients of products of polynomials",
    "bits": "bits of messages, packed or unpacked",
    "messages": "messages sent or received",
    "steps": "layers, tiles of them, or kernels of encrypted layers, begun",
}

Part = typing.Union["Sent", "Worked", "Then", "Times", "Again", "Piped"]


class Sent(typing.NamedTuple):
    """A message of so many bits, by the rank that sends it; None of one that sends none."""

    bits: tuple[int | None, int | None]


class Worked(typing.NamedTuple):
    """Work of both parties at once: how much of a unit, by rank."""

    unit: str
    amounts: tuple[int, int]


class Then(typing.NamedTuple):
    """One after the other."""

    first: Part
    later: Part


class Times(typing.NamedTuple):
    """For n elements at once: so many times the bits and the work, as many messages."""

    part: Part
    n: int


class Again(typing.NamedTuple):
    """So many of it, one after the other."""

    part: Part
    times: int


class Piped(typing.NamedTuple):
    """Cut into so many pieces, each of which need not wait for the one before it to end."""

    part: Part
    pieces: float


@dataclasses.dataclass(frozen=True)
class Rates:
    """Seconds that this machine takes for a unit of work, and for a message's way on loopback.

    Attributes:
      seconds: by the units of `UNITS`.
      turn_s: from the end of sending a small message to its being read, over no network.
      source: where they are from, in a few words.
    """

    seconds: tuple[float, ...]
    turn_s: float
    source: str = dataclasses.field(default="nominal", compare=False)

    def of(self, unit: str) -> float:
        """Seconds of one."""
        return self.seconds[_PLACES[unit]]


_PLACES = {unit: i for i, unit in enumerate(UNITS)}


def walk(part: Part | None) -> Iterator[tuple[Sent | Worked, int]]:
    """All messages and work in no order, and how often each counts."""
    left: list[tuple[Part, int]] = [] if part is None else [(part, 1)]
    while left:
        part, n = left.pop()
        if isinstance(part, Then):
            left += [(part.first, n), (part.later, n)]
        elif isinstance(part, Times):
            left.append((part.part, n * part.n))
        elif isinstance(part, Again):
            left.append((part.part, n * part.times))
        elif isinstance(part, Piped):
            left.append((part.part, n))
        else:
            yield part, n


def tally(part: Part | None) -> dict[str, tuple[int, int]]:
    """How much of each unit each rank works, but for messages, which `Cost.sent` tells."""
    sums: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for leaf, n in walk(part):
        if isinstance(leaf, Worked):
            for rank in (0, 1):
                sums[rank][leaf.unit] += n * leaf.amounts[rank]
    return {
        unit: (sums[0][unit], sums[1][unit]) for unit in UNITS if sums[0][unit] or sums[1][unit]
    }
