"""The listening socket: hands out raw connections and outlives whatever they do.

Nothing is read or sent here. What a connection needs next (TLS, a greeting) may take as long as the
other side pleases, so it belongs to a thread of that connection's own.
"""

import contextlib
import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Protocol

from pqjax.errors import AddressError, DeadlineExceeded, WireError
from pqjax.wire.address import format_address, resolve_guarded
from pqjax.wire.readiness import READ, poll
from pqjax.wire.tls import Tls

_PAUSE_S = 0.05
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_CONNECTIONS_OWN = (errno.ECONNABORTED, errno.EPROTO, errno.EAGAIN, errno.EINTR)


class Door(Protocol):
    """Where a server's connections come from.

    Attributes:
      address: where clients dial.
      context: what connections have to be secured with; None without TLS.
    """

    address: str
    context: ssl.SSLContext | None

    def accept(
        self, timeout: float | int | None = None, shed: Callable[[], object] | None = None
    ) -> tuple[socket.socket, str]:
        """The next connection and who dialled, see `Listener.accept`."""
        ...

    def close(self) -> None:
        """Lets nobody in any more, and wakes an `accept` under way: it raises WireError."""
        ...


class Listener:
    """Waits for parties that dial; port 0 takes a free port.

    Attributes:
      address: "host:port" as bound.
      context: what connections have to be secured with; None without TLS.
    """

    def __init__(self, address: str, *, tls: Tls | None = None, insecure_plaintext: bool = False):
        """Reads the certificates, then binds the address: the faults of both are raised here."""
        family, place = resolve_guarded(address, guarded=tls is not None or insecure_plaintext)[0]
        self.context: ssl.SSLContext | None = None if tls is None else tls.context(server=True)
        with contextlib.ExitStack() as undo:
            try:
                self._waker, self._wakee = (undo.enter_context(end) for end in socket.socketpair())
                self._sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
                self._sock.setblocking(False)
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._sock.bind(place)
                # Room for a crowd: whom the queue cannot hold tries again after a second.
                self._sock.listen(socket.SOMAXCONN)
            except OSError as error:
                raise bind_error(error, place) from error
            undo.pop_all()
        host, port = self._sock.getsockname()[:2]
        self.address = format_address(host, port)
        self._closed = False
        self._waiting = threading.RLock()  # held by `accept` while it looks at the sockets

    def accept(
        self, timeout: float | int | None = None, shed: Callable[[], object] | None = None
    ) -> tuple[socket.socket, str]:
        """The next connection and who dialled; waits for ever without `timeout`, in seconds.

        `shed` is called when this process or machine has no descriptor or memory for the next
        connection; it should let go of one. Accepting goes on after a moment.

        Raises:
          DeadlineExceeded: none came in time.
        """
        with self._waiting:
            until = None if timeout is None else time.monotonic() + timeout
            while not self._closed:
                if until is not None and time.monotonic() >= until:
                    raise DeadlineExceeded(f"nobody dialled {self.address} within {timeout:g} s")
                try:
                    poll({self._sock: READ, self._wakee: READ}, until)
                    if not self._closed:
                        sock, place = self._sock.accept()
                        return sock, format_address(*place[:2])
                except ValueError:  # a signal handler closed the sockets meanwhile
                    continue
                except OSError as error:
                    if error.errno in _CONNECTIONS_OWN:
                        continue
                    if error.errno in _NO_ROOM and shed is not None:
                        shed()
                    self._pause()
        raise WireError(f"the listener on {self.address} was closed")

    def _pause(self) -> None:
        """Waits a moment: what failed just now would fail again at once."""
        with contextlib.suppress(OSError, ValueError):
            poll({self._wakee: READ}, time.monotonic() + _PAUSE_S)

    def close(self) -> None:
        """Frees the port and wakes an `accept` under way."""
        self._closed = True
        self._waker.close()  # its other end becomes readable
        with self._waiting:
            self._wakee.close()
            self._sock.close()

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bind_error(error: OSError, place: tuple, option: str = "--listen") -> AddressError:
    """Why a place that an option names cannot be listened on."""
    host, port = place[0], place[1]
    known = {
        "EADDRINUSE": f"port {port} on {host} is in use by another process; choose another "
        f"with {option}",
        "EACCES": f"port {port} on {host} needs privileges; choose one above 1023 with {option}",
        "EADDRNOTAVAIL": f"{host} is not an address of this machine; choose another with {option}",
    }
    name = errno.errorcode.get(error.errno or 0, "")
    return AddressError(known.get(name, f"cannot listen on {host}:{port}: {error}"))
