"""One party's end of the conversation: exact accounting, logical clock, and where we are.

Protocol code talks to a `Messenger`, never to a wire: it sends ring elements packed to exactly their
width, and every message is entered in the trace under the phase and layer that is running.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt, UInt8

from pqjax.ring import Ring, pack, unpack
from pqjax.wire.interface import Ticket, Wire
from pqjax.wire.trace import Entry, Trace

Bytes = UInt8[np.ndarray, " bytes"]
Elements = UInt[np.ndarray, "*shape"]


class Pending:
    """A message that was asked for and may still be on its way."""

    def __init__(self, messenger: "Messenger", ticket: Ticket, bits: int):
        self._messenger, self._ticket, self._bits = messenger, ticket, bits

    def wait(self) -> Bytes:
        """The message's bytes; the party's clock moves to the message's."""
        return self.wait_clocked()[0]

    def wait_clocked(self, patient: bool = False) -> tuple[Bytes, int]:
        """The message's bytes and its clock; if `patient`, without a deadline."""
        begin = time.perf_counter()
        payload, clock = self._ticket.wait(patient)
        me = self._messenger
        # In a lane of its own another thread waits, not the layer.
        seconds = 0.0 if me.entry else time.perf_counter() - begin
        me.trace.received(self._bits, payload.nbytes, seconds, me.entry)
        me.clock = max(me.clock, clock)
        return payload, clock

    def look(self) -> None:
        """Waits until the message is here, by the rules of a wait, and leaves it to whom it is for."""
        self._ticket.wait()


class Messenger:
    """Sends and receives for one party and keeps the books.

    Attributes:
      rank: 0 for the server (it holds the model), 1 for the client (it holds the input).
      clock: length of the longest chain of messages that this party's state depends on.
      trace: what was sent, received and waited for, per phase and layer.
      entry: of the trace, what all of it belongs to; None where that is the layer that is running.
    """

    def __init__(
        self,
        wire: Wire,
        rank: int,
        trace: Trace | None = None,
        lane: int = 0,
        entry: Entry | None = None,
    ):
        self.rank = rank
        self.wire = wire
        self.clock = 0
        self.trace = Trace() if trace is None else trace
        self.entry = entry
        self._lane = lane
        self._path: list[str] = []

    def beside(self, lane: int) -> "Messenger":
        """One for another thread, in a lane of its own; what it says is the running layer's."""
        made = Messenger(self.wire, self.rank, self.trace, lane, self.trace.current)
        made.clock, made._path = self.clock, [*self._path]
        return made

    @property
    def where(self) -> str:
        """The running layer and step, as errors name it."""
        return "/".join(self._path) or "session"

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Names the protocol step that the messages inside belong to."""
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    @contextlib.contextmanager
    def layer(self, phase: str, name: str) -> Iterator[None]:
        """Enters everything inside in the trace under this phase and layer."""
        with self.step(name), self.trace.section(phase, name) as entry:
            yield
            entry.clock_after = self.clock

    def send(self, payload: Bytes, bits: int, after: int | None = None) -> None:
        """Sends bytes, not modified afterwards, that carry exactly `bits` bits and padding.

        `after` is the clock this message depends on; default: everything received so far.
        """
        clock = (self.clock if after is None else after) + 1
        begin = time.perf_counter()
        self.wire.send(payload, clock, self.where, self._lane)
        seconds = 0.0 if self.entry else time.perf_counter() - begin
        self.trace.sent(bits, payload.nbytes, seconds, self.entry)

    def expect(self, bits: int, idle_s: float | None = None) -> Pending:
        """Asks for the next message, which carries exactly `bits` bits of payload.

        With `idle_s` the other party owes none, see `Wire.expect`.
        """
        return Pending(self, self.wire.expect(-(-bits // 8), self.where, idle_s, self._lane), bits)

    def receive(self, bits: int, idle_s: float | None = None) -> Bytes:
        """Waits for the next message of exactly `bits` bits; its bytes."""
        return self.expect(bits, idle_s).wait()

    def receive_each(self, sizes: Sequence[int], ahead: int = 3) -> Iterator[Bytes]:
        """The next messages in order, of these bit counts, `ahead` of them read in advance."""
        waiting: deque[Pending] = deque()
        for size in sizes:
            waiting.append(self.expect(size))
            if len(waiting) > ahead:
                yield waiting.popleft().wait()
        while waiting:
            yield waiting.popleft().wait()

    def send_elements(self, x: Elements, ring: Ring, after: int | None = None) -> None:
        """Sends ring elements, packed to `ring.bits` bits each."""
        x = np.asarray(x).reshape(-1)
        self.send(pack(x, ring.bits), x.size * ring.bits, after)

    def receive_elements(self, n: int, ring: Ring) -> UInt[np.ndarray, " n"]:
        """Receives `n` packed ring elements, of the ring's dtype."""
        return unpack(self.receive(n * ring.bits), n, ring.bits)

    def exchange_elements(self, x: Elements, ring: Ring) -> UInt[np.ndarray, " n"]:
        """Both parties send equally many ring elements at the same time; returns the other's."""
        x = np.asarray(x).reshape(-1)
        bits = x.size * ring.bits
        pending = self.expect(bits)
        self.send(pack(x, ring.bits), bits)
        return unpack(pending.wait(), x.size, ring.bits)

    def exchange_bits(self, packed: Bytes, n: int) -> Bytes:
        """Both parties send a string of n bits at the same time, eight to a byte; the other's."""
        pending = self.expect(n)
        self.send(packed, n)
        return pending.wait()
