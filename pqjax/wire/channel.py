"""The bookkeeping that every wire shares, and a wire inside one process.

`Endpoint` keeps tickets, steps, clocks, window, deadlines and the first failure; `local_pair` joins
two of them inside one process, `pqjax.wire.tcp` puts one at each end of a socket.

Two rules end a wait. A direction in which no byte moves for `deadline_s` has stalled. And what has
begun must get done: a frame is whole within `deadline_s + its bytes / SLOWEST_BYTES_PER_S` of its
first byte, and a wait for room lasts at most so long for the bytes then queued. Without the second
rule a peer that sends a byte now and then holds a session for ever.
"""

import collections
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from pqjax.errors import DeadlineExceeded, Drift, InputError, PeerGone, WireError
from pqjax.wire.interface import Payload, Wire

HEADER_BYTES = 16
DEADLINE_S = 60.0
WINDOW_BYTES = 64 << 20
SLOWEST_BYTES_PER_S = 8 << 10  # 64 kbit/s: at that rate 250 MB take nine hours

_STEPS = 1 << 32
_BETWEEN_STEPS = "between steps"


def as_bytes(payload: Payload) -> memoryview:
    """The payload's bytes; no copy if they are contiguous already."""
    if isinstance(payload, (bytes, bytearray, memoryview)):
        payload = np.asarray(memoryview(payload))
    return np.ascontiguousarray(payload).reshape(-1).view(np.uint8).data


class Slot:
    """A posted ticket: what is expected, then what came."""

    def __init__(self, wire: "Endpoint", nbytes: int, where: str):
        self.wire, self.nbytes, self.where = wire, nbytes, where
        self.came: tuple[np.ndarray, int] | None = None

    def wait(self) -> tuple[np.ndarray, int]:
        """Blocks until the frame is here."""
        if self.came is None:
            self.wire._await(self)
        assert self.came is not None
        return self.came


class Endpoint:
    """Tickets, step numbers, window, deadlines and the sticky failure: all but moving the bytes.

    A subclass moves them: `_kick` is called, lock held, after the queue, the tickets or the
    state changed; `_enqueue` takes a frame to send; `_flush` waits until all frames are gone.
    """

    def __init__(self, deadline_s: float | int, window_bytes: int, lock: Any = None):
        if not deadline_s > 0:
            raise InputError(f"a wire's deadline must be above 0 seconds, got {deadline_s}")
        if window_bytes < 1:
            raise InputError(f"a wire's window must be at least 1 byte, got {window_bytes}")
        self.deadline_s = deadline_s
        self.until: float | None = None
        self.window_bytes = window_bytes
        self._changed = threading.Condition(lock)
        self._slots: collections.deque[Slot] = collections.deque()
        self._queued_bytes = 0  # accepted by send, not yet moved
        self._send_step = self._receive_step = 0
        self._most_clock = 0  # the largest sent
        self.sent_bytes = self.received_bytes = 0
        self._moved_in = self._moved_out = time.monotonic()
        self._frame_began: float | None = None  # when the awaited frame's first byte came
        self._failure: WireError | None = None
        self._told = False  # has a caller seen the failure?
        self._peer_closed = self._closed = False

    def send(self, payload: Payload, clock: int, where: str) -> None:
        if not 0 <= clock < 1 << 32:
            raise InputError(f"{where}: a clock must be in 0..2^32-1, got {clock}")
        view = as_bytes(payload)
        room = max(0, self.window_bytes - len(view))
        with self._changed:
            self._wait_for_room(room, where)
            self._refuse_if_over(where)
            if self._peer_closed:
                self._fail(PeerGone(f"{where}: the other party closed the connection"))
                self._raise_failure()
            step = self._send_step
            self._send_step = (step + 1) % _STEPS
            self._most_clock = max(self._most_clock, clock)
            self.sent_bytes += HEADER_BYTES + len(view)
            self._enqueue(step, clock, view)
            self._kick()

    def expect(self, nbytes: int, where: str) -> Slot:
        if nbytes < 0:
            raise InputError(f"{where}: cannot expect {nbytes} bytes")
        with self._changed:
            self._refuse_if_over(where)
            slot = Slot(self, int(nbytes), where)
            self._slots.append(slot)
            self._kick()
            return slot

    def recv(self, nbytes: int, where: str) -> tuple[np.ndarray, int]:
        return self.expect(nbytes, where).wait()

    def close(self) -> None:
        with self._changed:
            told = self._told
            if not self._closed:
                with contextlib.suppress(WireError):  # raised below, once the rest is torn down
                    self._flush()
            lost = self._failure is not None and self._queued_bytes > 0 and not told
        self.abort()
        if lost:
            self._raise_failure()

    def abort(self) -> None:
        with self._changed:
            self._closed = True
            self._kick()
            self._changed.notify_all()

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close() if kind is None else self.abort()

    # What a subclass supplies, all called with the lock held.

    def _enqueue(self, step: int, clock: int, view: memoryview) -> None:
        raise NotImplementedError

    def _kick(self) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        raise NotImplementedError

    # What a subclass uses, all but `_await` with the lock held.

    def _open_slot(self, step: int, clock: int, nbytes: int) -> Slot | None:
        """The head ticket if the frame is the one it expects; else fails with Drift.

        A message's clock is one more than that of a message it depends on, and those that the other
        party can depend on were sent from here.
        """
        slot = self._slots[0]
        if (step, nbytes) != (self._receive_step, slot.nbytes):
            what = (
                f"expected step {self._receive_step} with {slot.nbytes} bytes, "
                f"got step {step} with {nbytes} bytes"
            )
        elif clock > self._most_clock + 1:
            what = f"expected a clock of at most {self._most_clock + 1} in step {step}, got {clock}"
        else:
            return slot
        why = "the two parties run different plans or the stream is corrupt"
        self._fail(Drift(f"{slot.where}: {what}: {why}"))
        return None

    def _fill_slot(self, array: np.ndarray, clock: int) -> None:
        """Hands the head ticket its frame."""
        slot = self._slots.popleft()
        slot.came = (array, clock)
        self._frame_began = None
        self._receive_step = (self._receive_step + 1) % _STEPS
        self.received_bytes += HEADER_BYTES + slot.nbytes
        self._changed.notify_all()

    def _here(self) -> str:
        """Names the frame the reader is at."""
        return self._slots[0].where if self._slots else _BETWEEN_STEPS

    def _fail(self, failure: WireError) -> None:
        """Keeps the first failure and lets every waiter see it."""
        if self._failure is None:
            self._failure = failure
        self._kick()
        self._changed.notify_all()

    def _raise_failure(self, where: str = _BETWEEN_STEPS) -> NoReturn:
        """Raises a copy, for one exception raised in several threads shares its traceback.

        What broke while nobody waited is named after the step that first finds out.
        """
        assert self._failure is not None
        self._told = True
        text = str(self._failure)
        if text.startswith(_BETWEEN_STEPS):
            text = where + text.removeprefix(_BETWEEN_STEPS)
        raise type(self._failure)(text)

    def _refuse_if_over(self, where: str) -> None:
        if self._failure is not None:
            self._raise_failure(where)
        if self._closed:
            raise WireError(f"{where}: the wire was closed on this side")

    def _wait_for(
        self, ready: Callable[[], bool], ends: Callable[[], list[tuple[float, str]]], where: str
    ) -> None:
        """Waits until `ready`, a failure, or the first of `ends`: when, and what was too slow."""
        while not ready():
            self._refuse_if_over(where)
            end, why = min(ends() + self._last_end())
            left = end - time.monotonic()
            if left <= 0:
                self._fail(DeadlineExceeded(f"{where}: {why}"))
            else:
                self._changed.wait(left)

    def _last_end(self) -> list[tuple[float, str]]:
        if self.until is None:
            return []
        return [(self.until, "not done in the time that was set for it, though bytes moved")]

    def _wait_for_room(self, most_bytes: int, where: str) -> None:
        """Waits until at most so many bytes are queued. Lock held."""
        began, queued = time.monotonic(), self._queued_bytes
        whole_s = self.deadline_s + queued / SLOWEST_BYTES_PER_S

        def ends() -> list[tuple[float, str]]:
            left = self._queued_bytes
            none = f"took none of {left} queued bytes for {self.deadline_s:g} s"
            few = f"took {queued - left} of {queued} queued bytes in {whole_s:g} s"
            return [
                (max(began, self._moved_out) + self.deadline_s, f"the other party {none}"),
                (
                    began + whole_s,
                    f"the other party {few}, fewer than {SLOWEST_BYTES_PER_S} a second",
                ),
            ]

        self._wait_for(lambda: self._queued_bytes <= most_bytes, ends, where)

    def _await(self, slot: Slot) -> None:
        began = time.monotonic()

        def ends() -> list[tuple[float, str]]:
            none = f"waiting for {slot.nbytes} bytes, none came for {self.deadline_s:g} s"
            found = [(max(began, self._moved_in) + self.deadline_s, none)]
            if self._frame_began is not None:
                nbytes = self._slots[0].nbytes
                whole_s = self.deadline_s + nbytes / SLOWEST_BYTES_PER_S
                slow = f"the other party sends fewer than {SLOWEST_BYTES_PER_S} a second"
                part = f"a frame of {nbytes} bytes is not whole {whole_s:g} s after its first byte"
                found.append((self._frame_began + whole_s, f"{part}: {slow}"))
            return found

        with self._changed:
            self._wait_for(lambda: slot.came is not None, ends, slot.where)


class _LocalWire(Endpoint):
    """One end of an in-process pair. Both ends share one lock; no thread of its own."""

    def __init__(self, deadline_s: float | int, window_bytes: int, lock: Any):
        super().__init__(deadline_s, window_bytes, lock)
        self._inbox: collections.deque[tuple[int, int, np.ndarray]] = collections.deque()
        self._peer: _LocalWire

    def _enqueue(self, step: int, clock: int, view: memoryview) -> None:
        self._queued_bytes += len(view)
        # A copy: what arrives belongs to the receiver, as it does over a socket.
        self._peer._inbox.append((step, clock, np.frombuffer(view, np.uint8).copy()))
        self._peer._deliver()

    def _kick(self) -> None:
        if self._failure is not None or self._closed:
            self._part()
        self._deliver()

    def _flush(self) -> None:
        """Nothing to do: frames in the peer's inbox outlive this end."""

    def _part(self) -> None:
        peer = self._peer
        if not peer._peer_closed:
            peer._peer_closed = True
            peer._deliver()
            peer._changed.notify_all()

    def _deliver(self) -> None:
        """Serves tickets from the inbox; both only ever wait here for each other."""
        while self._inbox and self._slots and self._failure is None and not self._closed:
            step, clock, array = self._inbox[0]
            if self._open_slot(step, clock, len(array)) is None:
                return
            self._inbox.popleft()
            self._moved_in = self._peer._moved_out = time.monotonic()
            self._peer._queued_bytes -= len(array)
            self._peer._changed.notify_all()
            self._fill_slot(array, clock)
        if self._peer_closed and self._failure is None and not self._closed:
            if self._slots or self._queued_bytes:
                self._fail(PeerGone(f"{self._here()}: the other party closed the connection"))


def local_pair(
    deadline_s: float | int = DEADLINE_S, window_bytes: int = WINDOW_BYTES
) -> tuple[Wire, Wire]:
    """Two ends of one wire inside this process: the same rules as a socket, without one."""
    lock = threading.RLock()
    a = _LocalWire(deadline_s, window_bytes, lock)
    b = _LocalWire(deadline_s, window_bytes, lock)
    a._peer, b._peer = b, a
    return a, b
