"""Lines of JSON between a server's front and its worker processes, over a socket pair."""

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

from pqjax.errors import WireError
from pqjax.graph.strict_json import parse

_MOST_BYTES = 4 << 20  # of a line


class Talk:
    """One end. Any thread may say something; one hears."""

    def __init__(self, sock: socket.socket):
        self._sock, self._lock = sock, threading.Lock()

    def say(self, **what: Any) -> None:
        """Sends one line; if the other end is gone nobody hears it, and nothing is raised."""
        line = json.dumps(what).encode() + b"\n"
        with self._lock:
            try:
                self._sock.sendall(line)
            except OSError:
                return

    def hear(self) -> Iterator[dict[str, Any]]:
        """All lines until the other end is gone.

        Raises:
          WireError: what came is no such line.
        """
        with self._sock.makefile("rb") as stream:
            while True:
                try:
                    line = stream.readline(_MOST_BYTES + 1)
                except OSError:
                    return
                if not line.endswith(b"\n"):
                    if len(line) > _MOST_BYTES:
                        raise WireError(
                            f"a line of more than {_MOST_BYTES} bytes from this process"
                        )
                    return  # cut off: its process died
                yield parse(line, _MOST_BYTES)

    def close(self) -> None:
        """Ends both directions."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._sock.close()
