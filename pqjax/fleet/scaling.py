"""How many replicas a fleet has: more where clients wait, fewer where nobody comes for a while."""

import dataclasses
from collections.abc import Mapping

from pqjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Scale:
    """The bounds.

    Attributes:
      least: so many replicas always.
      most: and never more.
      seats: sessions at a time, of each.
      idle_s: one that has had none for so long is ended.
    """

    least: int = 1
    most: int = 1
    seats: int = 2
    idle_s: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise InputError(
                f"replicas LEAST:MOST with 1 <= LEAST <= MOST expected, got {self.least}:{self.most}"
            )
        if self.seats < 1:
            raise InputError(f"a replica serves at least 1 client at a time, got {self.seats}")


def missing(scale: Scale, ready: int, starting: int, free: int, waiting: int) -> int:
    """How many replicas to start.

    Args:
      scale: the bounds.
      ready: replicas that take clients.
      starting: replicas that will.
      free: seats of those that are ready.
      waiting: clients.
    """
    there = ready + starting
    unseated = waiting - free - starting * scale.seats
    wanted = there + max(0, -(-unseated // scale.seats))
    return max(0, min(max(wanted, scale.least), scale.most) - there)


def surplus(scale: Scale, idle: Mapping[str, float], ready: int, waiting: int) -> list[str]:
    """Which replicas to end: those that have been idle longest, for `idle_s` at least.

    Args:
      scale: the bounds.
      idle: seconds that replicas without sessions and tickets have been so, by name.
      ready: replicas that take clients, idle or not.
      waiting: clients; where any wait nothing is ended.
    """
    if waiting:
        return []
    long = sorted((name for name, s in idle.items() if s >= scale.idle_s), key=lambda n: -idle[n])
    return long[: max(0, ready - scale.least)]
