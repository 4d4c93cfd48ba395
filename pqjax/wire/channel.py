"""The wire as protocols see it: ordered frames of lengths both sides know beforehand.

Nothing on a wire describes itself. A receiver says first how many bytes the plan makes the next
frame (`expect`), and only then is memory set aside and the frame read; a frame with another step or
length is `Drift`. `Endpoint` is the bookkeeping every wire shares; `local_pair` joins two of them
inside one process, `pqjax.wire.tcp` puts one at each end of a socket.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np

from pqjax.errors import DeadlineExceeded, Drift, InputError, PeerGone, WireError

HEADER_BYTES = 16
DEADLINE_S = 60.0
WINDOW_BYTES = 64 << 20

_STEPS = 1 << 32

Payload = np.ndarray | bytes | bytearray | memoryview


@runtime_checkable
class Ticket(Protocol):
    """The promise of one frame."""

    def wait(self) -> tuple[np.ndarray, int]:
        """Blocks for the frame: its payload (uint8, the promised length), the sender's clock."""
        ...


@runtime_checkable
class Wire(Protocol):
    """One end of an ordered, reliable connection between the two parties.

    `where` names the place in the plan ("conv2/mill.leaf"); it is used in error messages alone.
    All methods may be called from any thread. The first failure is final: it closes the connection
    at once, and every later `send`, `expect` and unfinished `wait` raises it again. Frames that
    arrived whole before it can still be waited for.

    Attributes:
      sent_bytes: bytes handed to `send` so far as they are on the stream, headers included.
      received_bytes: bytes of the frames received whole so far, headers included.
      deadline_s: a wait in which no byte moves in its direction for this long fails.
    """

    deadline_s: float | int

    @property
    def sent_bytes(self) -> int: ...  # noqa: D102

    @property
    def received_bytes(self) -> int: ...  # noqa: D102

    def send(self, payload: Payload, clock: int, where: str) -> None:
        """Queues one frame; blocks while more than the window is queued already.

        The wire may refer to `payload` until it is written: the caller must not modify it. A
        payload larger than the window is taken once nothing else is queued.
        """
        ...

    def expect(self, nbytes: int, where: str) -> Ticket:
        """Announces that the next frame has `nbytes` bytes. Frames are served in this order."""
        ...

    def recv(self, nbytes: int, where: str) -> tuple[np.ndarray, int]:
        """`expect`, then `wait`."""
        ...

    def close(self) -> None:
        """Delivers what is queued, then closes. Raises if queued frames could not be delivered.

        The other side's unmet waits raise PeerGone. Closing twice is harmless.
        """
        ...

    def abort(self) -> None:
        """Closes at once and drops what is queued: for the way out of an error. Never raises."""
        ...

    def __enter__(self) -> Wire: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes, or aborts when an exception is on its way out."""
        ...


_BETWEEN_STEPS = "between steps"


def as_bytes(payload: Payload) -> memoryview:
    """The payload's bytes; no copy if they are contiguous already."""
    if isinstance(payload, (bytes, bytearray, memoryview)):
        payload = np.asarray(memoryview(payload))
    return np.ascontiguousarray(payload).reshape(-1).view(np.uint8).data


class Slot:
    """A posted ticket: what is expected, then what came."""

    def __init__(self, wire: Endpoint, nbytes: int, where: str):
        self.wire = wire
        self.nbytes = nbytes
        self.where = where
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

    def __init__(
        self,
        deadline_s: float | int = DEADLINE_S,
        window_bytes: int = WINDOW_BYTES,
        lock: Any = None,
    ):
        if not deadline_s > 0:
            raise InputError(f"a wire's deadline must be above 0 seconds, got {deadline_s}")
        if window_bytes < 1:
            raise InputError(f"a wire's window must be at least 1 byte, got {window_bytes}")
        self.deadline_s = deadline_s
        self.window_bytes = window_bytes
        self._changed = threading.Condition(lock)
        self._slots: collections.deque[Slot] = collections.deque()
        self._queued_bytes = 0  # accepted by send, not yet moved
        self._send_step = 0
        self._receive_step = 0
        self._sent_bytes = 0
        self._received_bytes = 0
        self._moved_in = self._moved_out = time.monotonic()
        self._failure: WireError | None = None
        self._told = False  # has a caller seen the failure?
        self._peer_closed = False
        self._closed = False

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to `send`, headers included."""
        return self._sent_bytes

    @property
    def received_bytes(self) -> int:
        """Bytes of the frames received whole, headers included."""
        return self._received_bytes

    def send(self, payload: Payload, clock: int, where: str) -> None:
        """See `Wire.send`."""
        if not 0 <= clock < 1 << 32:
            raise InputError(f"{where}: a clock must be in 0..2^32-1, got {clock}")
        view = as_bytes(payload)
        room = max(0, self.window_bytes - len(view))
        with self._changed:
            self._wait_for(
                lambda: self._queued_bytes <= room,
                lambda: self._moved_out,
                lambda: f"the other party took none of {self._queued_bytes} queued bytes",
                where,
            )
            self._refuse_if_over(where)
            if self._peer_closed:
                self._fail(PeerGone(f"{where}: the other party closed the connection"))
                self._raise_failure()
            step = self._send_step
            self._send_step = (step + 1) % _STEPS
            self._sent_bytes += HEADER_BYTES + len(view)
            self._enqueue(step, clock, view)
            self._kick()

    def expect(self, nbytes: int, where: str) -> Slot:
        """See `Wire.expect`."""
        if nbytes < 0:
            raise InputError(f"{where}: cannot expect {nbytes} bytes")
        with self._changed:
            self._refuse_if_over(where)
            slot = Slot(self, int(nbytes), where)
            self._slots.append(slot)
            self._kick()
            return slot

    def recv(self, nbytes: int, where: str) -> tuple[np.ndarray, int]:
        """See `Wire.recv`."""
        return self.expect(nbytes, where).wait()

    def close(self) -> None:
        """See `Wire.close`."""
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
        """See `Wire.abort`."""
        with self._changed:
            self._closed = True
            self._kick()
            self._changed.notify_all()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    # What a subclass supplies, all called with the lock held.

    def _enqueue(self, step: int, clock: int, view: memoryview) -> None:
        raise NotImplementedError

    def _kick(self) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        raise NotImplementedError

    # What a subclass uses, all but `_await` with the lock held.

    def _open_slot(self, step: int, nbytes: int) -> Slot | None:
        """The head ticket if the frame is the one it expects; else fails with Drift."""
        slot = self._slots[0]
        if (step, nbytes) == (self._receive_step, slot.nbytes):
            return slot
        self._fail(
            Drift(
                f"{slot.where}: expected step {self._receive_step} with {slot.nbytes} bytes, "
                f"got step {step} with {nbytes} bytes: the two parties run different plans or "
                "the stream is corrupt"
            )
        )
        return None

    def _fill_slot(self, array: np.ndarray, clock: int) -> None:
        """Hands the head ticket its frame."""
        slot = self._slots.popleft()
        slot.came = (array, clock)
        self._receive_step = (self._receive_step + 1) % _STEPS
        self._received_bytes += HEADER_BYTES + slot.nbytes
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
        self,
        ready: Callable[[], bool],
        moved: Callable[[], float],
        stalled: Callable[[], str],
        where: str,
    ) -> None:
        """Waits until `ready`, a failure, or `deadline_s` after the last byte moved."""
        began = time.monotonic()
        while not ready():
            self._refuse_if_over(where)
            left = max(began, moved()) + self.deadline_s - time.monotonic()
            if left <= 0:
                self._fail(DeadlineExceeded(f"{where}: {stalled()} for {self.deadline_s:g} s"))
            else:
                self._changed.wait(left)

    def _await(self, slot: Slot) -> None:
        with self._changed:
            self._wait_for(
                lambda: slot.came is not None,
                lambda: self._moved_in,
                lambda: f"waiting for {slot.nbytes} bytes, none came",
                slot.where,
            )


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
            if self._open_slot(step, len(array)) is None:
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
