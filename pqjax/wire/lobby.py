"""Connections that have not greeted yet: few, cheap, and for a few seconds only.

Whoever reaches the port can open a connection and say nothing, or a byte now and then. So until a
connection has greeted it has one descriptor and one small thread; TLS and the greeting must both be
done by one moment that no byte moves; and when there are too many, the one that has waited longest
goes, not the one that has just come. Those who have said nothing go first: saying nothing is the
cheapest way to shut others out.
"""

import contextlib
import functools
import hashlib
import socket
import ssl
import threading
import time

from pqjax.errors import DeadlineExceeded, InputError, PeerGone, PqjaxError, WireError
from pqjax.wire.channel import DEADLINE_S, HEADER_BYTES
from pqjax.wire.handshake import HELLO_BYTES
from pqjax.wire.readiness import READ, poll, retry
from pqjax.wire.tcp import TcpWire, begins_like_ours
from pqjax.wire.tls import begin_tls, shake_hands
from pqjax.wire.word import Word

GREETING_S = 5.0
MOST_WAITING = 64


class Guest:
    """An accepted connection that has not greeted; it owns the socket until `open` gives a wire.

    Attributes:
      client: the address it comes from.
      owner: whose limits hold for it: its host's or, once TLS has shown one, its certificate's.
      spoke: something has come from the other side.
      background: it has greeted as one that gives way to others.
    """

    def __init__(self, sock: socket.socket, client: str = "", greeting_s: float | int = GREETING_S):
        self._sock, self.client, self.owner = sock, client, client.rpartition(":")[0]
        self._wire: TcpWire | None = None
        self._lock = threading.Lock()
        self._dropped = ""
        self.spoke = self.background = False
        self._greeting_s = greeting_s
        self._until = time.monotonic() + greeting_s

    def open(self, context: ssl.SSLContext | None, deadline_s: float | int = DEADLINE_S) -> TcpWire:
        """Secures the connection, waits for the hello, and makes a wire of both.

        The time for the greeting binds the wire too, until the caller lifts it (`wire.until`).

        Raises:
          WireError: TLS failed, the hello did not come in time, or there is no room for a wire.
        """
        self._sock.setblocking(False)
        if not poll({self._sock: READ}, self._until):
            raise DeadlineExceeded(f"handshake: nothing came within {self._greeting_s:g} s")
        self.spoke = True
        if context is not None:
            with self._lock:
                secured = self._sock = begin_tls(self._sock, context, "TLS")
            shake_hands(secured, "TLS", self._until)
            shown = secured.getpeercert(binary_form=True)
            assert shown is not None  # `Tls.context` lets nobody in without one
            self.owner = f"certificate {hashlib.sha256(shown).hexdigest()}"
        first = self._hello()
        with self._lock:
            wire = self._wire = TcpWire(self._sock, deadline_s, first=first)
            wire.until = self._until
        return wire

    def _hello(self) -> bytes:
        """The first frame; less of it if no more comes, or if what came cannot be one of ours."""
        nbytes = HEADER_BYTES + HELLO_BYTES
        got = b""
        try:
            while len(got) < nbytes and begins_like_ours(got):
                more = functools.partial(self._sock.recv, nbytes - len(got))
                came = retry(more, self._sock, self._until)
                if not came:
                    break
                got += came
        except TimeoutError as error:
            came = f"{len(got)} bytes of a hello of {nbytes} came within {self._greeting_s:g} s"
            raise DeadlineExceeded(f"handshake: {came}") from error
        except OSError as error:
            why = error.strerror or error
            raise PeerGone(f"handshake: the connection broke ({why})") from error
        return got

    def drop(self, why: str, word: Word) -> None:
        """Ends the connection from any thread; its own finds it over, for the reason `why`."""
        with self._lock:
            self._dropped = self._dropped or why
            if self._wire is not None:
                self._wire.leave(word)
                return
            with contextlib.suppress(OSError):
                # Not what SSLSocket makes of it, which two threads must not do at once.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def reason(self, error: PqjaxError) -> PqjaxError:
        """What `error` comes from if this guest was dropped; else itself."""
        return WireError(self._dropped) if self._dropped else error

    def close(self) -> None:
        """Frees the descriptor; only for the thread that opens the guest, or before there is one."""
        with self._lock:
            if self._wire is not None:
                self._wire.abort()
            self._sock.close()


class Lobby:
    """The guests there are, in the order in which they came."""

    def __init__(self, most: int = MOST_WAITING):
        if most < 1:
            raise InputError(f"at least 1 connection may wait to greet, got {most}")
        self._most = most
        self._guests: dict[Guest, None] = {}
        self._lock = threading.RLock()  # a signal handler may close the server meanwhile

    def add(self, guest: Guest) -> None:
        """Takes a guest in; above the most allowed one is dropped, see `shed`."""
        with self._lock:
            self._guests[guest] = None
            if len(self._guests) > self._most:
                self.shed(f"dropped for a newer connection: {self._most} others have not greeted")

    def shed(
        self,
        why: str = "dropped: no descriptors or memory for more connections",
        word: Word = Word.FULL,
    ) -> None:
        """Drops the guest that has waited longest: of those that said nothing, if there are any."""
        with self._lock:
            if self._guests:
                guest = min(self._guests, key=lambda guest: guest.spoke)  # the first of several
                del self._guests[guest]
                guest.drop(why, word)

    def remove(self, guest: Guest) -> None:
        """The guest has greeted or gone."""
        with self._lock:
            self._guests.pop(guest, None)

    def clear(self, why: str) -> None:
        """Drops all guests."""
        with self._lock:
            while self._guests:
                self.shed(why, Word.CLOSING)
