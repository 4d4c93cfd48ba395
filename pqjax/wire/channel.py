"""The bookkeeping that every wire shares, and a wire inside one process.

`Endpoint` keeps tickets, steps, clocks, window, deadlines and the first failure; `local_pair` joins
two of them inside one process, `pqjax.wire.tcp` puts one at each end of a socket.

Two rules end a wait. A direction in which no byte moves for `deadline_s` has stalled. And what has
begun must get done: a frame is whole within `deadline_s + its bytes / SLOWEST_BYTES_PER_S` of its
first byte, and a wait for room lasts at most so long for the bytes then queued. Without the second
rule a peer that sends a byte now and then holds a session for ever.

Where the other party owes nothing, between two inferences, a wait has a limit of its own (`idle_s`)
and ends sooner only if that party gives no sign of life. Signs of life count nowhere else.
"""

import collections
import contextlib
import copy
import math
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from pqjax.errors import (
    DeadlineExceeded,
    Drift,
    HandshakeError,
    InputError,
    PeerGone,
    SessionEnded,
    WireError,
)
from pqjax.wire.interface import LANES, Payload, Wire
from pqjax.wire.word import (
    ALIVE_S,
    LANE_SHIFT,
    LANE_STEPS,
    MOST_MISSED,
    Word,
    heard_reason,
    own_reason,
)

HEADER_BYTES = 16
DEADLINE_S = 60.0
WINDOW_BYTES = 64 << 20
SLOWEST_BYTES_PER_S = 8 << 10  # 64 kbit/s: at that rate 250 MB take nine hours

_BETWEEN_STEPS = "between steps"

End = tuple[float, str, Word, float]  # of a wait: when, why, and word and limit for the other side
_NO_END: End = (math.inf, "", Word.SLOW, math.inf)


def as_bytes(payload: Payload) -> memoryview:
    """The payload's bytes; no copy if they are contiguous already."""
    if isinstance(payload, (bytes, bytearray, memoryview)):
        payload = np.asarray(memoryview(payload))
    return np.ascontiguousarray(payload).reshape(-1).view(np.uint8).data


class Slot:
    """A posted ticket: what is expected, then what came."""

    def __init__(self, wire: "Endpoint", nbytes: int, where: str, idle_s: float | None = None):
        self.wire, self.nbytes, self.where, self.idle_s = wire, nbytes, where, idle_s
        self.came: tuple[np.ndarray, int] | None = None

    def wait(self, patient: bool = False) -> tuple[np.ndarray, int]:
        """Blocks until the frame is here."""
        if self.came is None:
            self.wire._await(self, patient)
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
        self._slots = tuple(collections.deque[Slot]() for _ in range(LANES))
        self._queued_bytes = 0  # accepted by send, not yet moved
        self._send_steps, self._receive_steps = [0] * LANES, [0] * LANES
        self._most_clock = 0  # the largest sent
        self.sent_bytes = self.received_bytes = 0
        self._moved_in = self._moved_out = time.monotonic()
        self._frame_began: float | None = None  # when the frame's first byte came
        self._frame_bytes = 0  # of the one that is being read
        self._failure: WireError | None = None
        self._told = False  # has a caller seen the failure?
        self._last_word: tuple[Word, int] | None = None  # to say before hanging up
        self._heard = time.monotonic()  # the other side's last sign of life
        self.alive_bytes: tuple[int, int] = (0, 0)
        self._peer_closed = self._closed = False

    def send(self, payload: Payload, clock: int, where: str, lane: int = 0) -> None:
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
            step = self._send_steps[lane]
            self._send_steps[lane] = (step + 1) % LANE_STEPS
            self._most_clock = max(self._most_clock, clock)
            self.sent_bytes += HEADER_BYTES + len(view)
            self._enqueue(lane << LANE_SHIFT | step, clock, view)
            self._kick()

    def expect(
        self, nbytes: int, where: str, idle_s: float | int | None = None, lane: int = 0
    ) -> Slot:
        if nbytes < 0:
            raise InputError(f"{where}: cannot expect {nbytes} bytes")
        with self._changed:
            self._refuse_if_over(where)
            slot = Slot(self, int(nbytes), where, idle_s)
            self._slots[lane].append(slot)
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

    def leave(self, word: Word) -> None:
        with self._changed:
            if not self._closed:
                why = WireError(f"{_BETWEEN_STEPS}: {own_reason(word)}")
                self._fail(why, (word, 0))

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

    def _is_awaited(self, step: int) -> bool:
        """Whether there is a ticket in a frame's lane. A lane that there is not fails with Drift."""
        lane = step >> LANE_SHIFT
        if lane < LANES:
            return bool(self._slots[lane])
        self._fail(Drift(f"{self._here()}: a frame in lane {lane}: the stream is corrupt"))
        return False

    def _open_slot(self, step: int, clock: int, nbytes: int) -> Slot | None:
        """The head ticket of a frame's lane if it expects that frame; else fails with Drift.

        A message's clock is one more than that of a message it depends on, and those that the other
        party can depend on were sent from here.
        """
        lane, step = step >> LANE_SHIFT, step & LANE_STEPS
        slot, expected = self._slots[lane][0], self._receive_steps[lane]
        if (step, nbytes) != (expected, slot.nbytes):
            what = (
                f"expected step {expected} with {slot.nbytes} bytes, "
                f"got step {step} with {nbytes} bytes"
            )
        elif clock > self._most_clock + 1:
            what = f"expected a clock of at most {self._most_clock + 1} in step {step}, got {clock}"
        else:
            return slot
        why = "the two parties run different plans or the stream is corrupt"
        self._fail(Drift(f"{slot.where}: {what}: {why}"))
        return None

    def _fill_slot(self, step: int, array: np.ndarray, clock: int) -> None:
        """Hands the head ticket of a frame's lane the frame."""
        lane = step >> LANE_SHIFT
        slot = self._slots[lane].popleft()
        slot.came = (array, clock)
        self._frame_began = None
        self._receive_steps[lane] = (self._receive_steps[lane] + 1) % LANE_STEPS
        self.received_bytes += HEADER_BYTES + slot.nbytes
        self._changed.notify_all()

    def _here(self) -> str:
        """Names the frame the reader is at."""
        return next((slots[0].where for slots in self._slots if slots), _BETWEEN_STEPS)

    def _fail(self, failure: WireError, word: tuple[Word, int] | None = None) -> None:
        """Keeps the first failure, with the other side's word for it, and lets every waiter see it."""
        if self._failure is None:
            self._failure = failure
            if word is None and isinstance(failure, Drift):
                word = Word.DRIFT, 0
            elif word is None and not isinstance(failure, (PeerGone, HandshakeError)):
                word = Word.FAULT, 0
            self._last_word = word
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
        again = copy.copy(self._failure)
        again.args = (text,)
        raise again

    def _told_why(self, code: int, number: int) -> None:
        """The other side has said its last word."""
        reason, text = heard_reason(code, number)
        ended = f"{self._here()}: the other party ended the session: {text}"
        self._fail(SessionEnded(ended, reason))

    def _refuse_if_over(self, where: str) -> None:
        if self._failure is not None:
            self._raise_failure(where)
        if self._closed:
            raise WireError(f"{where}: the wire was closed on this side")

    def _wait_for(
        self, ready: Callable[[], bool], ends: Callable[[], list[End]], where: str
    ) -> None:
        """Waits until `ready`, a failure, or the first of `ends`."""
        while not ready():
            self._refuse_if_over(where)
            end, why, word, limit_s = min(ends() + self._last_end(), default=_NO_END)
            left = end - time.monotonic()
            if left <= 0:
                self._fail(DeadlineExceeded(f"{where}: {why}"), (word, round(limit_s * 1e3)))
            else:
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def _last_end(self) -> list[End]:
        if self.until is None:
            return []
        why = "not done in the time that was set for it, though bytes moved"
        return [(self.until, why, Word.SLOW, self.deadline_s)]

    def _wait_for_room(self, most_bytes: int, where: str) -> None:
        """Waits until at most so many bytes are queued. Lock held."""
        began, queued = time.monotonic(), self._queued_bytes
        whole_s = self.deadline_s + queued / SLOWEST_BYTES_PER_S

        def ends() -> list[End]:
            left, deadline_s = self._queued_bytes, self.deadline_s
            none = f"the other party took none of {left} queued bytes for {deadline_s:g} s"
            few = f"the other party took {queued - left} of {queued} queued bytes in {whole_s:g} s"
            few += f", fewer than {SLOWEST_BYTES_PER_S} a second"
            return [
                (max(began, self._moved_out) + deadline_s, none, Word.SLOW, deadline_s),
                (began + whole_s, few, Word.SLOW, deadline_s),
            ]

        self._wait_for(lambda: self._queued_bytes <= most_bytes, ends, where)

    def _await(self, slot: Slot, patient: bool = False) -> None:
        began = time.monotonic()

        def ends() -> list[End]:
            deadline_s = self.deadline_s
            if patient:
                return []
            if slot.idle_s is None:
                none = f"waiting for {slot.nbytes} bytes, none came for {deadline_s:g} s"
                found = [(max(began, self._moved_in) + deadline_s, none, Word.SLOW, deadline_s)]
            else:
                silent_s = max(deadline_s, MOST_MISSED * ALIVE_S)
                none = f"idle, and no sign of life from the other party for {silent_s:g} s"
                most = f"idle for {slot.idle_s:g} s, the most that is allowed here"
                found = [
                    (max(began, self._heard) + silent_s, none, Word.SLOW, silent_s),
                    (began + slot.idle_s, most, Word.IDLE, slot.idle_s),
                ]
            if self._frame_began is not None:
                heads = [slots[0].nbytes for slots in self._slots if slots]
                nbytes = max(self._frame_bytes, *heads)
                whole_s = deadline_s + nbytes / SLOWEST_BYTES_PER_S
                slow = f"the other party sends fewer than {SLOWEST_BYTES_PER_S} a second"
                part = f"a frame of {nbytes} bytes is not whole {whole_s:g} s after its first byte"
                end = self._frame_began + whole_s
                found.append((end, f"{part}: {slow}", Word.SLOW, deadline_s))
            return found

        with self._changed:
            self._wait_for(lambda: slot.came is not None, ends, slot.where)


class _LocalWire(Endpoint):
    """One end of an in-process pair. Both ends share one lock; no thread of its own."""

    def __init__(self, deadline_s: float | int, window_bytes: int, lock: Any):
        super().__init__(deadline_s, window_bytes, lock)
        self._inbox = tuple(collections.deque[tuple[int, int, np.ndarray]]() for _ in range(LANES))
        self._why: tuple[Word, int] | None = None  # the other end's last word
        self._heard = math.inf  # in one process nobody dies alone
        self._peer: _LocalWire

    def _enqueue(self, step: int, clock: int, view: memoryview) -> None:
        self._queued_bytes += len(view)
        # A copy: what arrives belongs to the receiver, as it does over a socket.
        arrived = step, clock, np.frombuffer(view, np.uint8).copy()
        self._peer._inbox[step >> LANE_SHIFT].append(arrived)
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
            peer._peer_closed, peer._why = True, self._last_word
            peer._deliver()
            peer._changed.notify_all()

    def _deliver(self) -> None:
        """Serves tickets from the inbox; both only ever wait here for each other."""
        for inbox, slots in zip(self._inbox, self._slots, strict=True):
            while inbox and slots and self._failure is None and not self._closed:
                step, clock, array = inbox[0]
                if self._open_slot(step, clock, len(array)) is None:
                    return
                inbox.popleft()
                self._moved_in = self._peer._moved_out = time.monotonic()
                self._peer._queued_bytes -= len(array)
                self._peer._changed.notify_all()
                self._fill_slot(step, array, clock)
        if self._peer_closed and self._failure is None and not self._closed:
            if self._why is not None and not any(self._inbox):
                self._told_why(*self._why)
            elif any(self._slots) or self._queued_bytes:
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
