"""What protocols may ask of a wire: ordered frames of lengths both sides know beforehand.

Nothing on a wire describes itself. A receiver says first how many bytes the plan makes the next
frame (`expect`), and only then is memory set aside and the frame read; a frame with another step or
length, or with a clock that nothing sent from here explains, is `Drift`. Words of the connection
itself (`pqjax.wire.word`) go between frames and are no part of this.

A wire has `LANES` lanes. The frames of one come in order; those of another may come before or after.
So what is done beside the protocol, in threads of its own, needs no turn in it.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from pqjax.wire.word import Word

Payload = np.ndarray | bytes | bytearray | memoryview

LANES = 3  # the protocol's, and one for the random OTs of each direction


@runtime_checkable
class Ticket(Protocol):
    """The promise of one frame."""

    def wait(self, patient: bool = False) -> tuple[np.ndarray, int]:
        """Blocks for the frame: its payload (uint8, the promised length), the sender's clock.

        If `patient`, without a deadline: until it comes or the wire fails.
        """
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
      alive_bytes: what (this side, the other) sent besides, to say that it lives.
      deadline_s: a wait in which no byte moves in its direction for this long fails.
      until: the moment of `time.monotonic()` at which every wait fails, however fast bytes move;
        None for no such moment.
    """

    deadline_s: float | int
    until: float | None
    sent_bytes: int
    received_bytes: int
    alive_bytes: tuple[int, int]

    def send(self, payload: Payload, clock: int, where: str, lane: int = 0) -> None:
        """Queues one frame; blocks while more than the window is queued already.

        The wire may refer to `payload` until it is written: the caller must not modify it. A
        payload larger than the window is taken once nothing else is queued.
        """

    def expect(
        self, nbytes: int, where: str, idle_s: float | int | None = None, lane: int = 0
    ) -> Ticket:
        """Announces that the lane's next frame has `nbytes` bytes. Frames are served in this order.

        With `idle_s` the other party owes none: waiting for it to begin fails after so long, or when
        the other party gives no sign of life, not after the deadline.
        """
        ...

    def recv(self, nbytes: int, where: str) -> tuple[np.ndarray, int]:
        """`expect`, then `wait`."""
        ...

    def close(self) -> None:
        """Delivers what is queued, then closes. Raises if queued frames could not be delivered.

        The other side's unmet waits raise PeerGone. Closing twice is harmless.
        """

    def leave(self, word: Word) -> None:
        """Ends the session and says why: to the other side if it listens, to this one's waits.

        Returns at once and never raises; after a failure or `close` it does nothing. A failure on
        this side says its own word.
        """

    def abort(self) -> None:
        """Closes at once, without a word, and drops what is queued. Never raises.

        After a failure or `leave` it waits until the word is said, for `PARTING_S` at most.
        """

    def __enter__(self) -> "Wire": ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes, or aborts when an exception is on its way out."""
