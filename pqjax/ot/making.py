"""Random OTs made in a thread of their own, while the protocol computes, waits and sends.

They come in rounds. Both ends make the same ones in the same order; a round's messages travel in the
lane of its direction, whenever they are ready. The next round begins when its thread is free and the
store holds less than it makes: so no more than two rounds are held, and whoever draws waits only if
making is slower than using.

Both ends take part in a round, but one may draw for a message that the other still waits for, and does
not draw itself before. An end on which the other depends therefore has so many in store before it rests.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pqjax.ot.stock import Part, Stock
from pqjax.wire.messenger import Bytes, Pending

Hear = Callable[[Pending], Bytes]


class Round(NamedTuple):
    """How many more OTs there are after it, and what makes them.

    `make(hear)` runs in the maker's thread: batches for the store, in order. It waits for messages,
    which were asked for before, by `hear`.
    """

    gain: int
    make: Callable[[Hear], Iterator[Part]]


class Maker:
    """Fills one end's store, round after round."""

    def __init__(self, stock: Stock, least: int = 0):
        """The store, and how many the other end may draw before this one hears of it."""
        self._stock, self._least = stock, least
        self._rounds: deque[Round] = deque()
        self._changed = threading.Condition()
        self._busy = False  # is there a thread, or what it has made
        self._made: list[Part] | BaseException | None = None
        self._awaited: Pending | None = None

    def order(self, rounds: Iterable[Round]) -> None:
        """Has these made, after all that were ordered before."""
        self._rounds += rounds
        self._begin()

    def wait(self, rounds: int | None = None) -> None:
        """Waits for all that is ordered, or so many rounds, whatever is in store.

        Raises:
          WireError: the other side does not send what it takes.
          BaseException: whatever ended a round; nothing of it is in store.
        """
        while (self._busy or self._rounds) and rounds != 0:
            self._begin(enough=False)
            self._collect()
            rounds = None if rounds is None else rounds - 1

    def draw(self, n: int) -> Part:
        """Takes the next n OTs, see `Stock.draw`; waits for them if need be. Raises as `wait` does."""
        while self._made is not None or (self._stock.left < n and (self._busy or self._rounds)):
            self._begin(enough=False)
            self._collect()
        part = self._stock.draw(n)
        self._begin()
        return part

    def _begin(self, enough: bool = True) -> None:
        if self._busy or not self._rounds:
            return
        if enough and self._stock.left >= max(self._rounds[0].gain, self._least):
            return
        self._busy = True
        work = self._rounds.popleft()
        # Called as the party's own thread is, for whoever lists them.
        name = f"pqjax-ots-of-{threading.current_thread().name}"
        threading.Thread(target=self._work, args=(work,), name=name, daemon=True).start()

    def _work(self, work: Round) -> None:
        made: list[Part] | BaseException
        try:
            made = self._stock.gathered(work.make(self._hear))
        except BaseException as error:  # handed to whoever waits
            made = error
        with self._changed:
            self._made = made
            self._changed.notify_all()

    def _hear(self, pending: Pending) -> Bytes:
        """Waits for a message, without a deadline: only who waits for this thread has one."""
        with self._changed:
            self._awaited = pending
            self._changed.notify_all()
        try:
            return pending.wait_clocked(patient=True)[0]
        finally:
            with self._changed:
                self._awaited = None

    def _collect(self) -> None:
        """Waits for the round that is being made, and puts it in store."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._made is not None or self._awaited is not None)
                if self._made is not None:
                    made, self._made, self._busy = self._made, None, False
                    break
                awaited, self._awaited = self._awaited, None
            assert awaited is not None
            awaited.look()
        if isinstance(made, BaseException):
            self._rounds.clear()
            raise made
        self._stock.put(made)
        self._begin()
