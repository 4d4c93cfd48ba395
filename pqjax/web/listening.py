"""A server of HTTP on loopback, and nowhere else."""

import logging
import socket

import uvicorn
from starlette.types import ASGIApp

from pqjax.errors import AddressError
from pqjax.wire.address import format_address, is_loopback, resolve

_CLOSING_S = (
    1  # for answers under way once it is to end; streams of events do not end by themselves
)


class Listening:
    """A bound address of this machine. Use as a context manager.

    Attributes:
      address: "host:port".
    """

    def __init__(self, address: str):
        """Binds it; port 0 takes a free one.

        Raises:
          AddressError: it is off loopback, or taken.
        """
        places = resolve(address)
        if not is_loopback(places):
            raise AddressError(
                f"{address} is not a loopback address: who asks here is the client, and what it asks "
                "about stays on this machine; expected 127.0.0.1:port, [::1]:port or localhost:port"
            )
        family, place = places[0]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(place)
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            raise AddressError(
                f"cannot listen on {address} ({error.strerror}): give another port, 0 takes a free one"
            ) from error
        self._server: uvicorn.Server | None = None
        self.address = format_address(*self._socket.getsockname()[:2])

    @property
    def hosts(self) -> set[str]:
        """The names by which it may be asked."""
        port = self.address.rpartition(":")[2]
        return {self.address, f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"}

    def serve(self, app: ASGIApp) -> None:
        """Serves until `stop` or, in the main thread, Ctrl-C: that is raised then."""
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", loop="asyncio", log_config=None,
            access_log=False,  # addresses hold tokens
            server_header=False, proxy_headers=False, limit_concurrency=64,
            timeout_graceful_shutdown=_CLOSING_S,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Ends `serve` soon, from any thread."""
        if self._server is not None:
            self._server.should_exit = True

    def __enter__(self) -> "Listening":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
