"""A party: the one mutable object on each side of a two-party protocol."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import TypeVar

from pqjax.crypto.prg import Randomness
from pqjax.ot.endpoint import OtReceiver, OtSender, Scheme
from pqjax.ot.setup import set_up
from pqjax.wire.channel import Wire, local_pair
from pqjax.wire.messenger import Messenger

S = TypeVar("S")
T = TypeVar("T")


@dataclasses.dataclass(repr=False)  # holds secrets
class Party:
    """One side of a session.

    Attributes:
      messenger: the conversation with the other side and its books.
      randomness: this side's private randomness; every share, mask and choice bit comes from it.
      scheme: how OTs are made.
      sender, receiver: this side's ends of the two directions of OT.
    """

    messenger: Messenger
    randomness: Randomness
    scheme: Scheme
    sender: OtSender
    receiver: OtReceiver

    @property
    def rank(self) -> int:
        """0 for the server, 1 for the client."""
        return self.messenger.rank


def make_party(
    wire: Wire, rank: int, scheme: Scheme, randomness: Randomness | None = None
) -> Party:
    """Sets up OT over a fresh wire (both sides call this) and returns this side's party."""
    messenger = Messenger(wire, rank)
    randomness = Randomness() if randomness is None else randomness
    with messenger.layer("setup", "ot"):
        sender, receiver = set_up(messenger, randomness, scheme)
    return Party(messenger, randomness, scheme, sender, receiver)


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
