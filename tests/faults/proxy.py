"""A proxy between a client and a server that knows frames, and does something at one of them.

It hands everything on, whole frames at a time, and the ends of connections as they are: an end of stream
as one, a reset as one. At a frame for which it was given an act it lets that decide what goes on.
"""

import collections
import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from pqjax.wire.address import parse_address
from pqjax.wire.word import LANE_SHIFT, LANE_STEPS, LAST_STEP

HEADER = struct.Struct("<IIQ")
SERVER, CLIENT = 0, 1  # who sends, by rank
TICK_S = 0.02
PIECES = -1  # the lane of what is no frame that can be read: TLS, piece by piece


class Place(NamedTuple):
    """Which frame: the rank that sends it, its lane, its number in it."""

    sender: int
    lane: int
    step: int


Act = Callable[["Way", bytes], bytes]  # at a frame: what goes on in its place
Seen = tuple[Place, bytes]


class _Over(Exception):
    """The connection has been ended from here."""


class Way:
    """One direction of a connection.

    Attributes:
      mute: what comes is read and dropped.
      held: nothing more is read.
      pace_s: seconds before every byte that goes on.
    """

    def __init__(self, link: "Link", sender: int, source: socket.socket, sink: socket.socket):
        self.link, self.sender, self.source, self.sink = link, sender, source, sink
        self.mute = self.held = False
        self.pace_s = 0.0
        self._buffer, self._count = bytearray(), 0

    def run(self) -> None:
        """Hands on until either end is over."""
        try:
            while came := self._take():
                self._buffer += came
                for place, piece in self._pieces():
                    self._pass(place, piece)
            self.forward(bytes(self._buffer))
            if not self.mute:
                self.finish()
        except OSError:  # a reset, or nobody to send to
            self.link.reset()
        except _Over:
            pass
        finally:
            self.link.left()

    def _pass(self, place: Place, piece: bytes) -> None:
        proxy = self.link.proxy
        act = proxy.acts.get(place)
        if act is None or self.link.over.is_set():
            proxy.seen.append((place, piece))
            self.forward(piece)
            return
        proxy.acted_at = time.time()
        self.forward(act(self, piece))

    def _pieces(self) -> Iterator[Seen]:
        """The whole frames that have come; or, where they cannot be read, what has come."""
        if not self.link.proxy.framed:
            piece = bytes(self._buffer)
            self._buffer.clear()
            self._count += 1
            yield Place(self.sender, PIECES, self._count - 1), piece
            return
        while len(self._buffer) >= HEADER.size:
            step, _, nbytes = HEADER.unpack_from(self._buffer)
            end = HEADER.size + (0 if step == LAST_STEP else nbytes)
            if len(self._buffer) < end:
                return
            piece = bytes(self._buffer[:end])
            del self._buffer[:end]
            if step == LAST_STEP:
                self.forward(piece)
            else:
                yield Place(self.sender, step >> LANE_SHIFT, step & LANE_STEPS), piece

    def forward(self, piece: bytes) -> None:
        """Sends on, whole, at this way's pace."""
        at = 0
        while at < len(piece) and not self.mute:
            if self.pace_s and self.link.over.wait(self.pace_s):
                raise _Over
            self._wait(self.sink, select.POLLOUT)
            with contextlib.suppress(BlockingIOError):
                at += self.sink.send(piece[at : at + 1] if self.pace_s else piece[at:])

    def _take(self) -> bytes:
        while True:
            self._wait(self.source, select.POLLIN)
            with contextlib.suppress(BlockingIOError):
                return self.source.recv(1 << 16)

    def _wait(self, sock: socket.socket, event: int) -> None:
        poller = select.poll()
        poller.register(sock, event)
        while self.held or not poller.poll(TICK_S * 1e3):
            if self.link.over.wait(TICK_S if self.held else 0):
                raise _Over
        if self.link.over.is_set():
            raise _Over

    def finish(self) -> None:
        """Ends the stream towards the receiver; what comes after it is dropped."""
        self.mute = True
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)


class Link:
    """A connection, by both of its ways."""

    def __init__(self, proxy: "Proxy", client: socket.socket, server: socket.socket):
        self.proxy, self.over = proxy, threading.Event()
        self._ends, self._reset = (client, server), False
        for end in self._ends:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ways = Way(self, SERVER, server, client), Way(self, CLIENT, client, server)
        self._left, self._lock = 0, threading.Lock()
        self.threads = [
            threading.Thread(target=way.run, name=f"proxy-way-{way.sender}") for way in self.ways
        ]

    def finish(self) -> None:
        """Ends both streams, as if each side's other had closed."""
        for way in self.ways:
            way.finish()

    def reset(self) -> None:
        """Resets the connections to both."""
        self._reset = True
        self.over.set()

    def left(self) -> None:
        """A way is over; the last one closes."""
        with self._lock:
            self._left += 1
            last = self._left == len(self.ways)
        if last:
            for end in self._ends:
                if self._reset:
                    with contextlib.suppress(OSError):
                        linger = struct.pack("ii", 1, 0)
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                end.close()


class Proxy:
    """Listens in the place of a server; used as a context manager.

    Attributes:
      address: "host:port".
      seen: the frames that went on as they came, in order.
      acted_at: when the last act began, by the calendar's clock; None: it has not.
    """

    def __init__(
        self,
        upstream: str,
        acts: Mapping[Place, Act] | None = None,
        *,
        framed: bool = True,
        met: Callable[[], None] | None = None,
    ):
        """Of a server at `upstream`; `met` is called with a client's connection, before its server's."""
        self._upstream, self.acts, self.framed = upstream, dict(acts or {}), framed
        self._met = met
        self.seen: collections.deque[Seen] = collections.deque()
        self.acted_at: float | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._links: list[Link] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="proxy-accept")
        self._thread.start()

    def _accept(self) -> None:
        self._listener.settimeout(TICK_S)
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self._met is not None:
                self.acted_at = time.time()
                self._met()
            try:
                server = socket.create_connection(parse_address(self._upstream), timeout=10.0)
            except OSError:
                client.close()
                continue
            link = Link(self, client, server)
            self._links.append(link)
            for thread in link.threads:
                thread.start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._listener.close()
        for link in self._links:
            link.over.set()
            for thread in link.threads:
                thread.join()


# What may happen at a frame.


def closed(way: Way, piece: bytes) -> bytes:
    """Both sides see the stream end before it."""
    way.link.finish()
    return b""


def reset(way: Way, piece: bytes) -> bytes:
    """Both sides see a reset before it."""
    way.link.reset()
    return b""


def half_closed(way: Way, piece: bytes) -> bytes:
    """The receiver sees the stream end before it; what it says itself arrives."""
    way.finish()
    return b""


def held(way: Way, piece: bytes) -> bytes:
    """From it on nothing is read: neither side is told."""
    way.held = True
    return b""


def trickled(way: Way, piece: bytes) -> bytes:
    """From it on a byte a second."""
    way.pace_s = 1.0
    return piece


def cut_off(way: Way, piece: bytes) -> bytes:
    """A part of it, and then the streams end."""
    way.forward(piece[: HEADER.size + (len(piece) - HEADER.size) // 2])
    way.link.finish()
    return b""


def _with_header(piece: bytes, step: int = 0, nbytes: int = 0) -> bytes:
    """Bits of the header's fields flipped."""
    was = HEADER.unpack_from(piece)
    return HEADER.pack(was[0] ^ step, was[1], was[2] ^ nbytes) + piece[HEADER.size :]


def shorter(way: Way, piece: bytes) -> bytes:
    """A byte less of it, and its header says so."""
    step, clock, nbytes = HEADER.unpack_from(piece)
    return HEADER.pack(step, clock, nbytes - 1) + piece[HEADER.size : -1]


def longer(way: Way, piece: bytes) -> bytes:
    """A byte more, and its header says so."""
    step, clock, nbytes = HEADER.unpack_from(piece)
    return HEADER.pack(step, clock, nbytes + 1) + piece[HEADER.size :] + b"\0"


def enormous(way: Way, piece: bytes) -> bytes:
    """Its header says that it has a terabyte."""
    return _with_header(piece, nbytes=1 << 40)


def trailed(way: Way, piece: bytes) -> bytes:
    """Five bytes more behind it."""
    return piece + bytes(5)


def flipped_step(way: Way, piece: bytes) -> bytes:
    """A bit of its number."""
    return _with_header(piece, step=2)


def flipped_clock(way: Way, piece: bytes) -> bytes:
    """The highest bit of its clock."""
    return piece[:7] + bytes([piece[7] ^ 0x80]) + piece[8:]


def flipped_first(way: Way, piece: bytes) -> bytes:
    """The lowest bit of what it carries."""
    return piece[: HEADER.size] + bytes([piece[HEADER.size] ^ 1]) + piece[HEADER.size + 1 :]


def flipped_last(way: Way, piece: bytes) -> bytes:
    """The highest bit of what it carries."""
    return piece[:-1] + bytes([piece[-1] ^ 0x80])
