"""Waiting for a socket until a moment: what came too slowly to be whole by then is too late.

A timeout of a socket starts anew with every byte, so a peer that trickles outlives it; here the end
is a moment of `time.monotonic()` that no byte moves. Poll, not epoll: it costs no descriptor.
"""

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

READ, WRITE = select.POLLIN, select.POLLOUT

T = TypeVar("T")


def poll(events: dict[socket.socket, int], until: float | None = None) -> list[int]:
    """Waits for any of the sockets; the descriptors that are ready, none when the time is over.

    READ, WRITE or both are waited for, for ever without `until`, a moment of `time.monotonic()`; a
    hang-up makes a socket ready whatever was asked.
    """
    poller = select.poll()
    for sock, wanted in events.items():
        poller.register(sock, wanted)
    left = None if until is None else max(0.0, until - time.monotonic()) * 1e3
    return [descriptor for descriptor, _ in poller.poll(left)]


def retry(attempt: Callable[[], T], sock: socket.socket, until: float) -> T:
    """Repeats an attempt on a non-blocking socket until it neither waits nor is too late.

    Raises:
      TimeoutError: it was not done at `until`.
    """
    while True:
        try:
            return attempt()
        except (BlockingIOError, ssl.SSLWantReadError):
            wanted = READ
        except ssl.SSLWantWriteError:
            wanted = WRITE
        if not poll({sock: wanted}, until) or time.monotonic() >= until:
            raise TimeoutError("timed out")


def drain(sock: socket.socket, until: float) -> None:
    """Drops what comes until the other side closes; reads below TLS, and never raises.

    Unread input makes a close a reset, and words are lost.
    """
    with contextlib.suppress(OSError):
        while retry(lambda: socket.socket.recv(sock, 1 << 16), sock, until):
            if time.monotonic() >= until:
                break
