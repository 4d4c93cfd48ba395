"""A wire over a TCP connection, with or without TLS.

One I/O thread per wire owns the non-blocking socket; nobody else touches it, so TLS is safe and
two parties that both send 64 MiB at once do not deadlock. A frame is a 16-byte little-endian header
(u32 step, u32 clock, u64 length) and its payload. The reader looks at the next header, waits until
a ticket is posted, compares, and only then allocates and reads the payload straight into place. Only
where another lane's frames are awaited, which may stand behind it, a frame is read before its ticket.
Between frames the thread also says that this side lives, and why it leaves (`pqjax.wire.word`).
"""

import collections
import contextlib
import socket
import ssl
import struct
import threading
import time

import numpy as np

from pqjax.errors import DeadlineExceeded, HandshakeError, PeerGone, WireError
from pqjax.wire.address import Place, parse_address, resolve_guarded
from pqjax.wire.channel import DEADLINE_S, HEADER_BYTES, WINDOW_BYTES, Endpoint, Slot
from pqjax.wire.interface import LANES
from pqjax.wire.readiness import READ, WRITE, drain, poll, retry
from pqjax.wire.tls import Tls, begin_tls, shake_hands
from pqjax.wire.word import ALIVE_S, LANE_SHIFT, LAST_STEP, PARTING_S, WORD_BYTES, Word

_HEADER = struct.Struct("<IIQ")
_JOIN_BYTES = 64 << 10  # a payload up to this is copied behind its header, so both leave at once
_TLS_BYTES = 256 << 10  # most handed to one TLS write, which must be retried with the same bytes
_TURN_BYTES = 4 << 20  # most moved one way before the other way has its turn
_EARLY_BYTES = 32 << 20  # of frames that nobody waits for yet, read for the sake of those behind


def begins_like_ours(first: bytes | bytearray) -> bool:
    """A connection begins with step 0, four zero bytes; no other protocol does."""
    return not any(first[:4])


class TcpWire(Endpoint):
    """One end of a connected socket. It owns the socket from here on."""

    def __init__(
        self,
        sock: socket.socket,
        deadline_s: float | int = DEADLINE_S,
        window_bytes: int = WINDOW_BYTES,
        first: bytes = b"",
    ):
        """Starts the I/O thread; `first` was read from the socket already."""
        super().__init__(deadline_s, window_bytes)
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # a socketpair in tests has no Nagle to switch off
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._first = memoryview(first)
        self._outgoing: collections.deque[memoryview] = collections.deque()
        self._dirty = False  # a protocol thread changed something the I/O thread has not seen
        self._asleep = False
        self._write_broken: WireError | None = None
        self._header, self._header_got = bytearray(HEADER_BYTES), 0
        self._body: np.ndarray | None = None
        self._body_got = 0
        self._met = False  # has a whole header come, and begun like ours
        self._early = tuple(collections.deque[tuple[int, int, np.ndarray]]() for _ in range(LANES))
        self._early_bytes = 0
        self._moved_before = self._moved_in  # without the header that is being read
        self._read_wants = self._write_wants = 0  # what the last attempt each way waits for
        self._thread = threading.Thread(target=self._serve, name="pqjax-wire", daemon=True)
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            try:
                self._waker, self._wakee = (undo.enter_context(end) for end in socket.socketpair())
                self._waker.setblocking(False)
                self._wakee.setblocking(False)
                self._thread.start()
            except (OSError, RuntimeError) as error:  # no descriptor or no thread is left
                raise WireError(f"no room for a connection on this side: {error}") from error
            undo.pop_all()

    def abort(self) -> None:
        super().abort()
        if threading.current_thread() is not self._thread:  # a finalizer may run anywhere
            self._thread.join()

    # Called by protocol threads, lock held.

    def _enqueue(self, step: int, clock: int, view: memoryview) -> None:
        header = _HEADER.pack(step, clock, len(view))
        if len(view) <= _JOIN_BYTES:
            self._outgoing.append(memoryview(header + bytes(view)))
        else:
            self._outgoing += (memoryview(header), view)
        self._queued_bytes += HEADER_BYTES + len(view)

    def _kick(self) -> None:
        self._dirty = True
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(BlockingIOError):  # full of wake-ups: it will wake
                self._waker.send(b"\0")

    def _flush(self) -> None:
        self._wait_for_room(0, "close")

    # The I/O thread.

    def _serve(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._failure is not None or self._closed:
                        break
                    self._dirty = False
                    self._say_alive()
                wrote = self._write()
                read = self._read()
                if self._write_broken is not None and not read:
                    # What the other party sent before it left is still worth reading, if awaited.
                    with self._changed:
                        awaited = any(self._slots)
                    if not awaited:
                        self._seek_last_word()
                        with self._changed:
                            self._fail(self._write_broken)
                if not read and not wrote:
                    self._sleep()
        except Exception as error:  # a bug or no memory: the session ends, the waiters hear why
            with self._changed:
                self._fail(WireError(f"{self._here()}: {type(error).__name__}: {error}"))
        finally:
            self._hang_up()

    def _sleep(self) -> None:
        """Waits until the socket is ready for what the last attempts wanted, or for a kick.

        Or for the moment to say that this side lives.
        """
        with self._changed:
            if self._dirty:
                return
            self._asleep = True
            until = self._moved_out + ALIVE_S if self._greeted and not self._outgoing else None
        events = {self._wakee: READ}
        mask = self._read_wants | self._write_wants
        if mask:  # else a hang-up would be reported for ever and the thread would spin
            events[self._sock] = mask
        if self._wakee.fileno() in poll(events, until):
            with contextlib.suppress(BlockingIOError):
                self._wakee.recv(4096)
        with self._changed:
            self._asleep = False

    def _say_alive(self) -> None:
        """Queues a sign of life if it is due: after the hello, when nothing else goes out. Lock held."""
        quiet = self._greeted and not self._outgoing and self._write_broken is None
        if quiet and time.monotonic() - self._moved_out >= ALIVE_S:
            self._outgoing.append(memoryview(_HEADER.pack(LAST_STEP, Word.ALIVE, 0)))
            self._queued_bytes += WORD_BYTES
            self.alive_bytes = (self.alive_bytes[0] + WORD_BYTES, self.alive_bytes[1])

    @property
    def _greeted(self) -> bool:
        """Whether this side has said its hello."""
        return self._send_steps[0] > 0

    def _write(self) -> bool:
        """Writes queued bytes until the socket is full; True if any moved."""
        self._write_wants = 0
        moved = 0
        while moved < _TURN_BYTES:
            if self._write_broken is not None:
                break
            with self._changed:
                pieces = [self._outgoing[i] for i in range(min(8, len(self._outgoing)))]
            if not pieces:
                break
            try:
                if self._tls:
                    n = self._sock.send(pieces[0][:_TLS_BYTES])
                else:
                    n = self._sock.sendmsg(pieces)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._write_wants = WRITE
                break
            except ssl.SSLWantReadError:
                self._write_wants = READ
                break
            except OSError as error:
                self._write_broken = self._translate(error)
                continue
            moved += n
            with self._changed:
                self._moved_out = time.monotonic()
                self._queued_bytes -= n
                while n:
                    head = self._outgoing[0]
                    if n < len(head):
                        self._outgoing[0] = head[n:]
                        break
                    n -= len(head)
                    self._outgoing.popleft()
                self._changed.notify_all()
        return moved > 0

    def _read(self) -> bool:
        """Reads while frames arrive and tickets for them are posted; True if any byte moved."""
        self._read_wants = 0
        moved = 0
        while moved < _TURN_BYTES and not self._peer_closed and self._failure is None:
            if self._body is None and self._header_got == HEADER_BYTES:
                if self._take_word():
                    continue
                if not self._open_body():
                    break
                if self._finish_body():  # an empty frame
                    continue
            if self._body is None:
                target = memoryview(self._header)[self._header_got :]
            else:
                target = self._body.data[self._body_got :]
            try:
                n = self._take(target)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._read_wants = READ
                break
            except ssl.SSLWantWriteError:
                self._read_wants = WRITE
                break
            except OSError as error:
                with self._changed:
                    self._fail(self._translate(error))
                break
            if n == 0:
                self._end_of_stream()
                break
            moved += n
            self._heard = time.monotonic()
            if self._header_got == 0:
                self._moved_before = self._moved_in
            self._moved_in = self._heard
            if self._frame_began is None and any(self._slots):
                self._frame_began = self._moved_in
            if self._body is None:
                self._header_got += n
                self._check_first_bytes()
            else:
                self._body_got += n
                self._finish_body()
        return moved > 0

    def _take(self, target: memoryview) -> int:
        """Fills a part of `target` with what comes next on the stream."""
        if not self._first:
            return self._sock.recv_into(target)
        n = min(len(target), len(self._first))
        target[:n] = self._first[:n]
        self._first = self._first[n:]
        return n

    def _take_word(self) -> bool:
        """Hears what the header says if it is a word; as movement of frames it does not count."""
        step, code, number = _HEADER.unpack(self._header)
        if step != LAST_STEP:
            return False
        self._header_got = 0
        with self._changed:
            self._moved_in, self._frame_began = self._moved_before, None
            if code == Word.ALIVE:
                self.alive_bytes = (self.alive_bytes[0], self.alive_bytes[1] + WORD_BYTES)
            else:
                self._told_why(code, number)
        return True

    def _seek_last_word(self) -> None:
        """Passes over frames that nobody asked for: why the other party left may stand behind them."""
        until = time.monotonic() + PARTING_S
        dropped = memoryview(bytearray(_JOIN_BYTES))
        with contextlib.suppress(OSError):
            while self._failure is None:
                while self._header_got < HEADER_BYTES:
                    rest = memoryview(self._header)[self._header_got :]
                    self._header_got += self._take_until(rest, until)
                if not self._take_word():
                    self._header_got, left = 0, _HEADER.unpack(self._header)[2]
                    while left:
                        left -= self._take_until(dropped[:left], until)

    def _take_until(self, target: memoryview, until: float) -> int:
        n = retry(lambda: self._take(target), self._sock, until)
        if n == 0 or time.monotonic() >= until:
            raise TimeoutError("nothing more comes, or too slowly")
        return n

    def _open_body(self) -> bool:
        """Checks the header against its lane's head ticket and allocates; False without a ticket.

        Frames of a lane without one are read all the same, a few, while another lane has tickets.
        """
        step, clock, nbytes = _HEADER.unpack(self._header)
        with self._changed:
            if self._failure is not None:
                return False
            room = _EARLY_BYTES - self._early_bytes if any(self._slots) else -1
            if self._is_awaited(step):
                if self._open_slot(step, clock, nbytes) is None:
                    return False
            elif nbytes > room or self._failure is not None:
                self._frame_began = None  # it waits for this side
                return False
            self._frame_bytes = nbytes
        self._body = np.empty(nbytes, np.uint8)
        self._body_got = 0
        return True

    def _finish_body(self) -> bool:
        """Delivers the frame if it is whole."""
        assert self._body is not None
        if self._body_got < self._body.nbytes:
            return False
        step, clock, _ = _HEADER.unpack(self._header)
        with self._changed:
            self._early[step >> LANE_SHIFT].append((step, clock, self._body))
            self._early_bytes += self._body.nbytes
            self._frame_began, self._frame_bytes = None, 0
            self._hand_out(step >> LANE_SHIFT)
        self._body = None
        self._header_got = 0
        return True

    def _hand_out(self, lane: int) -> None:
        """Gives a lane's tickets the frames that are here. Lock held."""
        early, slots = self._early[lane], self._slots[lane]
        while early and slots and self._failure is None:
            step, clock, body = early[0]
            if self._open_slot(step, clock, len(body)) is not None:
                early.popleft()
                self._early_bytes -= len(body)
                self._fill_slot(step, body, clock)

    def _check_first_bytes(self) -> None:
        """Refuses what is no pqjax peer by what the connection begins with."""
        if not self._met:
            got = bytes(self._header[: self._header_got])
            if not begins_like_ours(got):
                what = f"not a pqjax peer: the connection begins with {got!r}"
                if got[0] in (0x15, 0x16):
                    what += "; it seems to speak TLS: give this side its certificates too"
                with self._changed:
                    self._fail(HandshakeError(f"{self._here()}: {what}"))
            self._met = self._header_got == HEADER_BYTES

    def _end_of_stream(self) -> None:
        with self._changed:
            self._peer_closed = True
            if self._write_broken is not None:
                self._fail(self._write_broken)
            elif self._header_got or self._body is not None:
                got = self._header_got + (self._body_got if self._body is not None else 0)
                self._lose_peer(f" in the middle of a frame, {got} bytes into it")
            elif any(self._slots):
                self._lose_peer()
            self._changed.notify_all()

    def _lose_peer(self, when: str = "") -> None:
        self._fail(PeerGone(f"{self._here()}: the other party closed the connection{when}"))

    def expect(
        self, nbytes: int, where: str, idle_s: float | int | None = None, lane: int = 0
    ) -> Slot:
        with self._changed:
            slot = super().expect(nbytes, where, idle_s, lane)
            self._hand_out(lane)
            if self._peer_closed and slot.came is None:
                self._lose_peer()
            return slot

    def _translate(self, error: OSError) -> WireError:
        """Names an I/O error in our own terms."""
        with self._changed:
            where = self._here()
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            reason = error.reason or ""
            # OpenSSL says the second of a connection that ends without a word.
            if "ALERT" in reason and (self._met or "DECODE_ERROR" in reason):
                return PeerGone(f"{where}: the other party ended TLS ({reason})")
            if "ALERT" in reason:
                what = "the other party refused this side's certificate or ended TLS"
                return HandshakeError(f"{where}: {what} ({reason})")
            return WireError(f"{where}: TLS failed ({error.reason or error})")
        why = error.strerror or error
        return PeerGone(f"{where}: the connection to the other party broke ({why})")

    def _hang_up(self) -> None:
        """Ends TLS, the connection, and the wake-up pair; the queue lets go of its payloads."""
        with self._changed:
            self._asleep = False
            queued = [*self._outgoing]
            self._outgoing.clear()
            graceful = self._failure is None
            word = self._last_word if self._greeted else None  # a hello comes before any word
        until = time.monotonic() + PARTING_S
        with contextlib.suppress(OSError, ValueError):
            if word is not None:
                for piece in (*queued, memoryview(_HEADER.pack(LAST_STEP, *word))):
                    self._send_all(piece, until)
                graceful = True
        queued.clear()
        with contextlib.suppress(OSError, ValueError):
            if graceful and isinstance(self._sock, ssl.SSLSocket):
                self._sock.unwrap()  # sends close_notify; its answer is not waited for
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
        if word is not None:
            drain(self._sock, until)
        self._sock.close()
        self._wakee.close()
        self._waker.close()

    def _send_all(self, piece: memoryview, until: float) -> None:
        while piece:
            head = piece[:_TLS_BYTES]
            piece = piece[retry(lambda head=head: self._sock.send(head), self._sock, until) :]


def dial(
    address: str,
    *,
    tls: Tls | None = None,
    insecure_plaintext: bool = False,
    deadline_s: float | int = DEADLINE_S,
    window_bytes: int = WINDOW_BYTES,
    patience_s: float | int = 0.0,
    name: str | None = None,
) -> TcpWire:
    """Connects to a listening party.

    Args:
      address: "host:port".
      tls: this side's certificates; an address off loopback needs them, or the next.
      insecure_plaintext: sends everything unencrypted, on purpose.
      deadline_s: see `Wire.deadline_s`; also bounds connecting and the TLS handshake.
      window_bytes: see `Wire.send`.
      patience_s: keep trying for this long while nobody listens yet.
      name: whom the other side's certificate has to name; the host of the address if not given.
    """
    places = resolve_guarded(address, guarded=tls is not None or insecure_plaintext)
    context = None if tls is None else tls.context(server=False)
    give_up = time.monotonic() + patience_s
    while True:
        until = time.monotonic() + deadline_s
        sock = _connect(places, address, deadline_s, until)
        if sock is not None:
            break
        if time.monotonic() >= give_up:
            raise PeerGone(f"nobody listens on {address}: start the server first (pqjax serve)")
        time.sleep(0.05)
    try:
        if context is not None:
            where = f"TLS with {address}"
            sock = begin_tls(sock, context, where, name or parse_address(address)[0])
            shake_hands(sock, where, until)
        return TcpWire(sock, deadline_s, window_bytes)
    except BaseException:
        sock.close()
        raise


def _connect(
    places: list[Place], address: str, deadline_s: float | int, until: float
) -> socket.socket | None:
    """Tries each place once; None if all refused."""
    trouble: OSError | None = None
    for family, place in places:
        try:
            with contextlib.ExitStack() as undo:
                sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
                sock.settimeout(max(1e-3, until - time.monotonic()))
                sock.connect(place)
                undo.pop_all()
                return sock
        except ConnectionRefusedError:
            continue
        except OSError as error:
            trouble = error
    if isinstance(trouble, TimeoutError):
        raise DeadlineExceeded(f"{address} did not answer within {deadline_s:g} s")
    if trouble is not None:
        raise PeerGone(f"cannot reach {address}: {trouble.strerror or trouble}")
    return None
