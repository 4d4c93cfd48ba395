"""A wire over a TCP connection, with or without TLS.

One I/O thread per wire owns the non-blocking socket; nobody else touches it, so TLS is safe and
two parties that both send 64 MiB at once do not deadlock. A frame is a 16-byte little-endian header
(u32 step, u32 clock, u64 length) and its payload. The reader looks at the next header, waits until
a ticket is posted, compares, and only then allocates and reads the payload straight into place.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import selectors
import socket
import ssl
import struct
import threading
import time

import numpy as np

from pqjax.errors import AddressError, DeadlineExceeded, HandshakeError, PeerGone, WireError
from pqjax.wire.address import Place, format_address, parse_address, resolve_guarded
from pqjax.wire.channel import DEADLINE_S, HEADER_BYTES, WINDOW_BYTES, Endpoint, Slot
from pqjax.wire.tls import Tls, wrap_client, wrap_server

_HEADER = struct.Struct("<IIQ")
_JOIN_BYTES = 64 << 10  # a payload up to this is copied behind its header, so both leave at once
_TLS_BYTES = 256 << 10  # most handed to one TLS write, which must be retried with the same bytes
_TURN_BYTES = 4 << 20  # most moved one way before the other way has its turn
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class TcpWire(Endpoint):
    """One end of a connected socket. It owns the socket from here on."""

    def __init__(
        self,
        sock: socket.socket,
        deadline_s: float | int = DEADLINE_S,
        window_bytes: int = WINDOW_BYTES,
    ):
        super().__init__(deadline_s, window_bytes)
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # a socketpair in tests has no Nagle to switch off
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._outgoing: collections.deque[memoryview] = collections.deque()
        self._dirty = False  # a protocol thread changed something the I/O thread has not seen
        self._asleep = False
        self._write_broken: WireError | None = None
        self._header = bytearray(HEADER_BYTES)
        self._header_got = 0
        self._body: np.ndarray | None = None
        self._body_got = 0
        self._read_wants = self._write_wants = 0  # what the last attempt each way waits for
        self._mask = 0
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakee = socket.socketpair()
        self._waker.setblocking(False)
        self._wakee.setblocking(False)
        self._selector.register(self._wakee, _READ)
        self._thread = threading.Thread(target=self._serve, name="pqjax-wire", daemon=True)
        self._thread.start()

    def abort(self) -> None:
        """See `Wire.abort`."""
        super().abort()
        self._thread.join()

    # Called by protocol threads, lock held.

    def _enqueue(self, step: int, clock: int, view: memoryview) -> None:
        header = _HEADER.pack(step, clock, len(view))
        if len(view) <= _JOIN_BYTES:
            self._outgoing.append(memoryview(header + bytes(view)))
        else:
            self._outgoing.append(memoryview(header))
            self._outgoing.append(view)
        self._queued_bytes += HEADER_BYTES + len(view)

    def _kick(self) -> None:
        self._dirty = True
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(BlockingIOError):  # full of wake-ups: it will wake
                self._waker.send(b"\0")

    def _flush(self) -> None:
        self._wait_for(
            lambda: not self._queued_bytes,
            lambda: self._moved_out,
            lambda: f"the other party took none of {self._queued_bytes} queued bytes",
            "close",
        )

    # The I/O thread.

    def _serve(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._failure is not None or self._closed:
                        break
                    self._dirty = False
                wrote = self._write()
                if not self._read() and not wrote:
                    self._sleep()
        except Exception as error:  # a bug or no memory: the session ends, the waiters hear why
            with self._changed:
                self._fail(WireError(f"{self._here()}: {type(error).__name__}: {error}"))
        finally:
            self._hang_up()

    def _sleep(self) -> None:
        """Waits until the socket is ready for what the last attempts wanted, or for a kick."""
        with self._changed:
            if self._dirty:
                return
            self._asleep = True
        mask = self._read_wants | self._write_wants
        if mask != self._mask:
            # Not modify(0): a hang-up would be reported for ever and the thread would spin.
            if not self._mask:
                self._selector.register(self._sock, mask)
            elif not mask:
                self._selector.unregister(self._sock)
            else:
                self._selector.modify(self._sock, mask)
            self._mask = mask
        for key, _ in self._selector.select():
            if key.fileobj is self._wakee:
                with contextlib.suppress(BlockingIOError):
                    self._wakee.recv(4096)
        with self._changed:
            self._asleep = False

    def _write(self) -> bool:
        """Writes queued bytes until the socket is full; True if any moved."""
        self._write_wants = 0
        moved = 0
        while moved < _TURN_BYTES:
            if self._write_broken is not None:
                # What the other party sent before it left is still worth reading, if awaited.
                with self._changed:
                    if not self._slots:
                        self._fail(self._write_broken)
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
                self._write_wants = _WRITE
                break
            except ssl.SSLWantReadError:
                self._write_wants = _READ
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
        while moved < _TURN_BYTES and not self._peer_closed:
            if self._body is None and self._header_got == HEADER_BYTES:
                if not self._open_body():
                    break
                if self._finish_body():  # an empty frame
                    continue
            if self._body is None:
                target = memoryview(self._header)[self._header_got :]
            else:
                target = self._body.data[self._body_got :]
            try:
                n = self._sock.recv_into(target)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._read_wants = _READ
                break
            except ssl.SSLWantWriteError:
                self._read_wants = _WRITE
                break
            except OSError as error:
                with self._changed:
                    self._fail(self._translate(error))
                break
            if n == 0:
                self._end_of_stream()
                break
            moved += n
            self._moved_in = time.monotonic()
            if self._body is None:
                self._header_got += n
                self._check_first_bytes()
            else:
                self._body_got += n
                self._finish_body()
        return moved > 0

    def _open_body(self) -> bool:
        """Checks the header against the head ticket and allocates; False without a ticket."""
        step, _, nbytes = _HEADER.unpack(self._header)
        with self._changed:
            if self._failure is not None or not self._slots:
                return False
            if self._open_slot(step, nbytes) is None:
                return False
        self._body = np.empty(nbytes, np.uint8)
        self._body_got = 0
        return True

    def _finish_body(self) -> bool:
        """Delivers the frame if it is whole."""
        assert self._body is not None
        if self._body_got < self._body.nbytes:
            return False
        _, clock, _ = _HEADER.unpack(self._header)
        with self._changed:
            self._fill_slot(self._body, clock)
        self._body = None
        self._header_got = 0
        return True

    def _check_first_bytes(self) -> None:
        """A connection begins with step 0, four zero bytes; no other protocol does."""
        if self._receive_step == 0 and self._received_bytes == 0:
            got = bytes(self._header[: self._header_got])
            if any(got[:4]):
                hint = ""
                if got[0] in (0x15, 0x16):
                    hint = "; it seems to speak TLS: give this side its certificates too"
                with self._changed:
                    self._fail(
                        HandshakeError(
                            f"{self._here()}: not a pqjax peer: the connection begins "
                            f"with {got!r}{hint}"
                        )
                    )

    def _end_of_stream(self) -> None:
        with self._changed:
            self._peer_closed = True
            if self._write_broken is not None:
                self._fail(self._write_broken)
            elif self._header_got or self._body is not None:
                got = self._header_got + (self._body_got if self._body is not None else 0)
                self._fail(
                    PeerGone(
                        f"{self._here()}: the other party closed the connection in the middle "
                        f"of a frame, {got} bytes into it"
                    )
                )
            elif self._slots:
                self._lose_peer()
            self._changed.notify_all()

    def _lose_peer(self) -> None:
        self._fail(PeerGone(f"{self._here()}: the other party closed the connection"))

    def expect(self, nbytes: int, where: str) -> Slot:
        """See `Wire.expect`."""
        with self._changed:
            slot = super().expect(nbytes, where)
            if self._peer_closed:
                self._lose_peer()
            return slot

    def _translate(self, error: OSError) -> WireError:
        """Names an I/O error in our own terms."""
        with self._changed:
            where = self._here()
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            if "ALERT" in (error.reason or ""):
                return HandshakeError(
                    f"{where}: the other party refused this side's certificate or ended TLS "
                    f"({error.reason})"
                )
            return WireError(f"{where}: TLS failed ({error.reason or error})")
        return PeerGone(
            f"{where}: the connection to the other party broke ({error.strerror or error})"
        )

    def _hang_up(self) -> None:
        """Ends TLS, the connection, and the wake-up pair; the queue lets go of its payloads."""
        with self._changed:
            self._asleep = False
            self._outgoing.clear()
            graceful = self._failure is None
        with contextlib.suppress(OSError, ValueError):
            if graceful and isinstance(self._sock, ssl.SSLSocket):
                self._sock.unwrap()  # sends close_notify; its answer is not waited for
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._selector.close()
        self._sock.close()
        self._wakee.close()
        self._waker.close()


def dial(
    address: str,
    *,
    tls: Tls | None = None,
    insecure_plaintext: bool = False,
    deadline_s: float | int = DEADLINE_S,
    window_bytes: int = WINDOW_BYTES,
    patience_s: float | int = 0.0,
) -> TcpWire:
    """Connects to a listening party.

    Args:
      address: "host:port".
      tls: this side's certificates; an address off loopback needs them, or the next.
      insecure_plaintext: sends everything unencrypted, on purpose.
      deadline_s: see `Wire.deadline_s`; also bounds connecting and the TLS handshake.
      window_bytes: see `Wire.send`.
      patience_s: keep trying for this long while nobody listens yet.
    """
    places = resolve_guarded(address, guarded=tls is not None or insecure_plaintext)
    give_up = time.monotonic() + patience_s
    while True:
        sock = _connect(places, address, deadline_s)
        if sock is not None:
            break
        if time.monotonic() >= give_up:
            raise PeerGone(f"nobody listens on {address}: start the server first (pqjax serve)")
        time.sleep(0.05)
    if tls is not None:
        sock = wrap_client(sock, tls, parse_address(address)[0], address, deadline_s)
    return TcpWire(sock, deadline_s, window_bytes)


def _connect(places: list[Place], address: str, deadline_s: float | int) -> socket.socket | None:
    """Tries each place once; None if all refused."""
    trouble: OSError | None = None
    for family, place in places:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline_s)
            sock.connect(place)
            return sock
        except ConnectionRefusedError:
            sock.close()
        except OSError as error:
            sock.close()
            trouble = error
    if isinstance(trouble, TimeoutError):
        raise DeadlineExceeded(f"{address} did not answer within {deadline_s:g} s")
    if trouble is not None:
        raise PeerGone(f"cannot reach {address}: {trouble.strerror or trouble}")
    return None


class Listener:
    """Waits for parties that dial; port 0 takes a free port.

    Attributes:
      address: "host:port" as bound.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: Tls | None = None,
        insecure_plaintext: bool = False,
        deadline_s: float | int = DEADLINE_S,
        window_bytes: int = WINDOW_BYTES,
    ):
        family, place = resolve_guarded(address, guarded=tls is not None or insecure_plaintext)[0]
        self._tls = tls
        self._deadline_s = deadline_s
        self._window_bytes = window_bytes
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._sock.bind(place)
            self._sock.listen(16)
        except OSError as error:
            self._sock.close()
            raise _bind_error(error, place) from error
        self._sock.setblocking(False)
        host, port = self._sock.getsockname()[:2]
        self.address = format_address(host, port)
        self._closed = False
        self._waiting = threading.RLock()  # held by `accept` while it looks at the sockets
        self._waker, self._wakee = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._sock, _READ)
        self._selector.register(self._wakee, _READ)

    def accept(self, timeout: float | int | None = None) -> TcpWire:
        """The next party that connects; waits for ever without `timeout` (seconds).

        A party that fails the TLS handshake raises HandshakeError; the listener stays usable.
        """
        with self._waiting:
            sock = self._accept(timeout)
        if self._tls is not None:
            sock = wrap_server(sock, self._tls, self.address, self._deadline_s)
        return TcpWire(sock, self._deadline_s, self._window_bytes)

    def _accept(self, timeout: float | int | None) -> socket.socket:
        give_up = None if timeout is None else time.monotonic() + timeout
        while not self._closed:
            left = None if give_up is None else max(0.0, give_up - time.monotonic())
            if self._selector.select(left):
                with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
                    if not self._closed:
                        return self._sock.accept()[0]
            elif give_up is not None and time.monotonic() >= give_up:
                raise DeadlineExceeded(f"nobody dialled {self.address} within {timeout:g} s")
        raise WireError(f"the listener on {self.address} was closed")

    def close(self) -> None:
        """Frees the port and wakes an `accept` under way."""
        self._closed = True
        self._waker.close()  # its other end becomes readable
        with self._waiting:
            self._selector.close()
            self._wakee.close()
            self._sock.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bind_error(error: OSError, place: tuple) -> AddressError:
    host, port = place[0], place[1]
    known = {
        "EADDRINUSE": f"port {port} on {host} is in use by another process; choose another "
        "with --listen",
        "EACCES": f"port {port} on {host} needs privileges; choose one above 1023 with --listen",
        "EADDRNOTAVAIL": f"{host} is not an address of this machine; choose another with --listen",
    }
    name = errno.errorcode.get(error.errno or 0, "")
    return AddressError(known.get(name, f"cannot listen on {host}:{port}: {error}"))
