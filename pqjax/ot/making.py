"""Random OTs made in a thread of their own, while the protocol computes, waits and sends.

They come in rounds. Both ends make the same ones in the same order; a round's messages travel in the
lane of its direction, whenever they are ready. The next round begins when its thread is free and the
store holds less than it makes, whatever the party itself does meanwhile: so no more than two rounds are
held, and whoever draws waits only if making is slower than using.

Both ends take part in a round, but one may draw for a message that the other still waits for, and does
not draw itself before. An end on which the other depends therefore has so many in store before it rests.
"""

import math
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
    """Fills one end's store, round after round, while it holds less than a round makes."""

    def __init__(self, stock: Stock, least: int = 0):
        """The store, and how many the other end may draw before this one hears of it."""
        self._stock, self._least = stock, least
        self._rounds: deque[Round] = deque()
        self._changed = threading.Condition()
        self._busy = False  # is there a thread
        self._done = self._mark = 0  # rounds that are in store, and that were at the last order
        self._wanted = 0  # OTs that somebody waits for
        self._until: float = 0  # rounds that somebody waits for
        self._fault: BaseException | None = None
        self._awaited: Pending | None = None

    def order(self, rounds: Iterable[Round]) -> None:
        """Has these made, after all that were ordered before."""
        with self._changed:
            if not self._pending:
                self._mark = self._done
            self._rounds += rounds
            self._begin()

    def wait(self, rounds: int | None = None) -> None:
        """Waits for all that is ordered, or the first so many rounds of it, whatever is in store.

        Raises:
          WireError: the other side does not send what it takes.
          BaseException: whatever ended a round; nothing of it is in store.
        """
        with self._changed:
            self._until = math.inf if rounds is None else self._mark + rounds
            try:
                self._wait(lambda: self._done >= self._until)
            finally:
                self._until = 0

    def draw(self, n: int) -> Part:
        """Takes the next n OTs, see `Stock.draw`; waits for them if need be. Raises as `wait` does."""
        with self._changed:
            self._wanted = n
            try:
                self._wait(lambda: self._stock.left >= n)
            finally:
                self._wanted = 0
            part = self._stock.draw(n)
            self._begin()
        return part

    @property
    def _pending(self) -> bool:
        return self._busy or bool(self._rounds)

    def _due(self) -> bool:
        """Whether the next round is to be made now."""
        if not self._rounds:
            return False
        enough = max(self._rounds[0].gain, self._least, self._wanted)
        return self._stock.left < enough or self._done < self._until

    def _begin(self) -> None:
        if self._busy or not self._due():
            return
        self._busy = True
        # Called as the party's own thread is, for whoever lists them.
        name = f"pqjax-ots-of-{threading.current_thread().name}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        """Makes rounds as long as they are due: whoever draws may be waiting for the other party."""
        while True:
            with self._changed:
                if not self._due():
                    self._busy = False
                    self._changed.notify_all()
                    return
                work = self._rounds.popleft()
            try:
                made = self._stock.gathered(work.make(self._hear))
            except BaseException as error:  # handed to whoever waits
                with self._changed:
                    self._fault = error
                    self._rounds.clear()
                continue
            with self._changed:
                self._stock.put(made)
                self._done += 1
                self._changed.notify_all()
            del work, made

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

    def _wait(self, enough: Callable[[], bool]) -> None:
        """Waits, under the lock, until there is enough, or nothing more to come."""
        self._begin()
        while self._fault is None and self._pending and not enough():
            awaited, self._awaited = self._awaited, None
            if awaited is None:
                self._changed.wait()
                continue
            self._changed.release()
            try:
                awaited.look()
            finally:
                self._changed.acquire()
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
