"""Between a client and its server: counts what goes by, and keeps a sample of what the server gets.

    with Tap("127.0.0.1:7700") as tap, connect(tap.address) as session:
        ...
        tap.sample

It hands on what it reads, as it is. Its connections are of this machine, and it keeps the last of the
client's bytes alone: what the server can see of its input.
"""

import contextlib
import socket
import threading

from pqjax.wire.address import format_address, resolve
from pqjax.wire.channel import HEADER_BYTES
from pqjax.wire.word import LAST_STEP

SAMPLE_BYTES = 128 * 128
_CHUNK_BYTES = 256 << 10


class Payloads:
    """Finds the payloads in a stream of frames, and keeps the last bytes of them."""

    def __init__(self, most: int = SAMPLE_BYTES):
        self._most, self._last = most, b""
        self._header, self._left = b"", 0

    def feed(self, chunk: bytes) -> None:
        """What comes next on the stream."""
        while chunk:
            if not self._left:
                lacking = HEADER_BYTES - len(self._header)
                self._header, chunk = self._header + chunk[:lacking], chunk[lacking:]
                if len(self._header) == HEADER_BYTES:
                    word = int.from_bytes(self._header[:4], "little") == LAST_STEP
                    self._left = 0 if word else int.from_bytes(self._header[8:], "little")
                    self._header = b""
                continue
            payload, chunk = chunk[: self._left], chunk[self._left :]
            self._left -= len(payload)
            self._last = (self._last + payload[-self._most :])[-self._most :]

    @property
    def last(self) -> bytes:
        """The last bytes of them so far."""
        return self._last


class Tap:
    """Listens for one client at a time and hands its connection on. Use as a context manager.

    Attributes:
      address: where to dial instead of the target.
      sent, received: bytes that went by, from the client and to it, frame headers included.
    """

    def __init__(self, target: str):
        """Of a server on loopback."""
        self._family, self._place = resolve(target)[0]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = format_address(*self._listener.getsockname()[:2])
        self.sent = self.received = 0
        self._payloads = Payloads()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="pqjax-tap", daemon=True).start()

    @property
    def sample(self) -> bytes:
        """The last `SAMPLE_BYTES` of what the client sent as payload."""
        return self._payloads.last

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(self._family, socket.SOCK_STREAM)
                self._open |= {client, server}
                try:
                    server.connect(self._place)
                except OSError:
                    self._drop(client, server)
                    continue
                self._payloads = Payloads()
                for ends in ((client, server), (server, client)):
                    for sock in ends:
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    args = (*ends, ends[0] is client)
                    threading.Thread(
                        target=self._pump, args=args, name="pqjax-tap", daemon=True
                    ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while chunk := source.recv(_CHUNK_BYTES):
                if up:
                    self.sent += len(chunk)
                    self._payloads.feed(chunk)
                else:
                    self.received += len(chunk)
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(source, sink)

    def _drop(self, *ends: socket.socket) -> None:
        for sock in ends:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the other pump, too
            sock.close()
            self._open.discard(sock)

    def __enter__(self) -> "Tap":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._listener.close()
        self._drop(*self._open.copy())
