"""A party: the one mutable object on each side of a two-party protocol."""

import dataclasses
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import UInt, UInt8

from pqjax.crypto.prg import Randomness
from pqjax.ot.source import OtReceiver, OtSender, Pool, Source
from pqjax.ot.tuning import Tuning
from pqjax.wire.channel import Wire, local_pair
from pqjax.wire.messenger import Messenger

Share = UInt[np.ndarray, " n"]  # additive, of a ring's dtype and reduced
Bits = UInt8[np.ndarray, " n"]  # XOR shares: 0 and 1
S = TypeVar("S")
T = TypeVar("T")


@dataclasses.dataclass(repr=False)  # holds secrets
class Party:
    """One side of a session.

    Attributes:
      messenger: the conversation with the other side and its books.
      randomness: this side's private randomness; every share, mask and choice bit comes from it.
      source: how OTs are made.
      sender, receiver: this side's ends of the two directions of OT.
      tuning: sizes of messages, the other side's as well.
      pool: OTs in store that nobody waits for, by the rank that is their sender.
    """

    messenger: Messenger
    randomness: Randomness
    source: Source
    sender: OtSender
    receiver: OtReceiver
    tuning: Tuning = Tuning()
    pool: Pool = (0, 0)

    def set_up(self) -> None:
        """Makes both ends anew; both sides at once. Cost: `Source.set_up_cost`."""
        with self.messenger.layer("setup", "ot"):
            self.sender, self.receiver = self.source.set_up(self.messenger, self.randomness)

    @property
    def rank(self) -> int:
        """0 for the server, 1 for the client."""
        return self.messenger.rank

    def fill(self, wanted: Pool, streamed: bool = False) -> None:
        """Makes what the pool lacks of the OTs that are wanted, by sending rank; both sides at once.

        What is left over once they are drawn stays in the pool. If `streamed`, most are made while
        others are drawn, and few are in store at a time. Cost: `Source.fill`.
        """
        _, left = self.source.fill(self.pool, wanted)
        made = [more + n - spare for more, n, spare in zip(left, wanted, self.pool, strict=True)]
        ends = (self.sender, self.receiver) if self.rank == 0 else (self.receiver, self.sender)
        lanes = []
        for sender, (end, n) in enumerate(zip(ends, made, strict=True)):
            with self.messenger.step(f"random ots/rank {sender} sends"):
                lanes.append(self.messenger.beside(1 + sender))
            end.order(lanes[-1], self.tuning, n)
        for end in ends:
            end.wait(1 if streamed else None)
        self.messenger.clock = max(lane.clock for lane in lanes)
        self.pool = left


def make_party(
    wire: Wire,
    rank: int,
    source: Source,
    randomness: Randomness | None = None,
    tuning: Tuning = Tuning(),  # noqa: B008 (frozen)
) -> Party:
    """Sets up OT over a fresh wire (both sides call this) and returns this side's party.

    Cost: `Source.set_up_cost`.
    """
    messenger = Messenger(wire, rank)
    randomness = Randomness() if randomness is None else randomness
    with messenger.layer("setup", "ot"):
        sender, receiver = source.set_up(messenger, randomness)
    return Party(messenger, randomness, source, sender, receiver, tuning)


def run_pair(
    side0: Callable[[Wire], S], side1: Callable[[Wire], T], deadline_s: float = 60.0
) -> tuple[S, T]:
    """Runs both sides in this process, each in a thread, over a local wire.

    The first real error of either side is raised; the other side ends by it, never hangs.
    """
    wires = local_pair(deadline_s=deadline_s)
    results: list = [None, None]
    errors: list[tuple[int, BaseException]] = []

    def work(rank: int, side: Callable) -> None:
        try:
            results[rank] = side(wires[rank])
        except BaseException as error:  # handed to the caller's thread below
            errors.append((rank, error))
            wires[rank].abort()

    threads = [
        threading.Thread(target=work, args=(rank, side), name=f"pqjax-rank-{rank}", daemon=True)
        for rank, side in enumerate((side0, side1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for wire in wires:
        wire.abort() if errors else wire.close()
    if errors:
        raise errors[0][1]
    return results[0], results[1]
