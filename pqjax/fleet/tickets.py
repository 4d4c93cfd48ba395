"""Tickets: what a client shows once at a server, so that it is let in where its directory sent it.

A ticket is 32 random bytes, good for one owner (its certificate, as TLS shows it), one time, some
seconds. The server that has made it keeps its hash alone. One that comes with another owner stays as it
is: a thief cannot spend it, and whose it is still can.
"""

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable

from pqjax.wire.handshake import TICKET_BYTES

VALID_S = 30.0


class Tickets:
    """The tickets of one server that can still be used; for any number of threads."""

    def __init__(self, valid_s: float = VALID_S, now: Callable[[], float] = time.monotonic):
        self._valid_s, self._now = valid_s, now
        self._issued: dict[bytes, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def issue(self, owner: str) -> bytes:
        """A new ticket for an owner."""
        ticket = os.urandom(TICKET_BYTES)
        with self._lock:
            self._forget()
            self._issued[_hashed(ticket)] = owner, self._now() + self._valid_s
        return ticket

    def take(self, ticket: bytes, owner: str) -> bool:
        """Uses a ticket up; whether it was good: made here, for this owner, not used and not too old."""
        with self._lock:
            self._forget()
            whose, _ = self._issued.get(_hashed(ticket), (None, 0.0))
            if whose != owner:
                return False
            del self._issued[_hashed(ticket)]
            return True

    @property
    def owners(self) -> Counter[str]:
        """How many tickets every owner has."""
        with self._lock:
            self._forget()
            return Counter(owner for owner, _ in self._issued.values())

    def _forget(self) -> None:
        """Drops what is too old; tickets are in the order of their age."""
        now = self._now()
        while self._issued:
            oldest = next(iter(self._issued))
            if now < self._issued[oldest][1]:
                break
            del self._issued[oldest]


def _hashed(ticket: bytes) -> bytes:
    return hashlib.sha256(ticket).digest()
