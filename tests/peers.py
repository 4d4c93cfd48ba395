"""The other side by hand: a wire out of a raw connection, and peers that behave badly."""

import contextlib
import itertools
import socket
import struct
import threading
import time

from pqjax.wire.address import parse_address
from pqjax.wire.tcp import TcpWire
from pqjax.wire.tls import begin_tls, shake_hands

HELLO = struct.pack("<IIQ8sHBx32s4x", 0, 0, 48, b"pqjax\r\n\0", 1, 1, bytes(32))  # of a client
RECORD = b"\x16\x03\x01\x02\x00" + bytes(512)  # as TLS begins


def accept_wire(listener, timeout=30.0, **options):
    """The next party that dials, as a wire; TLS, if the listener has any, within the timeout."""
    sock, _ = listener.accept(timeout)
    try:
        if listener.context is not None:
            sock = begin_tls(sock, listener.context, "TLS")
            shake_hands(sock, "TLS", time.monotonic() + timeout)
        return TcpWire(sock, **options)
    except BaseException:
        sock.close()
        raise


def silent(address):
    """A connection that says nothing."""
    return socket.create_connection(parse_address(address), timeout=30.0)


def reset(address):
    """A connection that is reset at once."""
    with silent(address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def repeating(sock, pieces, every_s):
    """Sends the pieces in turn, over and over, until the block ends or the socket does."""
    over = threading.Event()

    def repeat():
        turn = itertools.cycle(pieces)
        with contextlib.suppress(OSError):
            while not over.wait(every_s):
                sock.sendall(next(turn))

    thread = threading.Thread(target=repeat, name="repeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def trickling(sock, content, every_s):
    """Sends `content` over and over, a byte at a time."""
    return repeating(sock, [content[at : at + 1] for at in range(len(content))], every_s)


def ended(sock, within_s):
    """Whether the other side ended the connection in time; what it says before is passed over."""
    until = time.monotonic() + within_s
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        while (left := until - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(1 << 16):
                return True
        return False
    return time.monotonic() < until
