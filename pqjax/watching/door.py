"""Where a server can be asked over HTTP how it does: /metrics, /health and /state, and by whom.

    /metrics   for Prometheus
    /health    200 while clients are let in, 503 while the server stops
    /state     JSON: the sessions there are, each as `Visit.state`, and what else the server tells

It is read only and shows no secret, but clients' addresses: so it is meant for loopback. A few may ask
at a time; then the one goes that has been at it longest.
"""

import contextlib
import http.client
import json
import socket
import socketserver
import threading
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from pqjax.errors import InputError, PeerGone
from pqjax.graph.strict_json import parse
from pqjax.version import VERSION
from pqjax.watching.metrics import Metrics
from pqjax.wire.address import format_address, parse_address, resolve
from pqjax.wire.listener import bind_error

State = Mapping[str, Any]
PATIENCE_S = 10.0
_MOST_ASKING = 16
_MOST_BYTES = 4 << 20  # of a state
_JSON = "application/json"
_Answer = tuple[int, str, bytes]  # status, type, content


class Door:
    """Answers in threads of its own until it is closed. Use it as a context manager.

    Attributes:
      address: "host:port" as bound.
    """

    def __init__(
        self, address: str, state: Callable[[], State], ready: Callable[[], bool], metrics: Metrics
    ):
        """Binds the address.

        Args:
          address: "host:port"; port 0 takes a free one.
          state: what the server is at: `sessions`, each as `Visit.state`, and of those that it knows
            `models` (titles), `stored` (how many preparations), `workers` (`resident_bytes` of each).
          ready: whether it lets clients in.
          metrics: to show.

        Raises:
          AddressError: it cannot be had.
        """
        family, place = resolve(address)[0]
        try:
            self._server = _Server(family, place, _answers(state, ready, metrics))
        except OSError as error:
            raise bind_error(error, place, "--metrics") from error
        self.address = format_address(*self._server.socket.getsockname()[:2])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="pqjax-watching", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answers nobody any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def look(address: str) -> dict[str, Any]:
    """The state that a server tells at its door.

    Raises:
      PeerGone: nobody answers there, or something that is no pqjax server.
    """
    host, port = parse_address(address)
    asking = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        with contextlib.closing(asking):
            asking.request("GET", "/state")
            answer = asking.getresponse()
            content = answer.read(_MOST_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise PeerGone(
            f"no server says at {address} what it does ({type(error).__name__}): "
            f"`pqjax serve --metrics {address}` does"
        ) from error
    try:
        found = parse(content, _MOST_BYTES)
    except InputError:
        found = None
    if answer.status != 200 or not isinstance(found, dict):
        raise PeerGone(
            f"{address} answers as no pqjax server does: its own is at --metrics HOST:PORT"
        )
    return found


def _answers(
    state: Callable[[], State], ready: Callable[[], bool], metrics: Metrics
) -> dict[str, Callable[[], _Answer]]:
    """What there is, by path."""

    def health() -> _Answer:
        takes = ready()
        told = {"status": "ready" if takes else "stopping"}
        return 200 if takes else 503, _JSON, json.dumps(told).encode()

    def whole() -> _Answer:
        told = {"version": VERSION, "ready": ready(), **state()}
        return 200, _JSON, json.dumps(told).encode()

    def measured() -> _Answer:
        return 200, metrics.content_type, metrics.text(state())

    return {"/health": health, "/state": whole, "/metrics": measured}


class _Server(socketserver.ThreadingTCPServer):
    """The listening socket; its requests are few and short."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 4 * _MOST_ASKING
    block_on_close = False

    def __init__(self, family: int, place: tuple, answers: dict[str, Callable[[], _Answer]]):
        self.address_family, self.answers = family, answers
        self._asking: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(place, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._asking[request] = None
            if len(self._asking) > _MOST_ASKING:
                first = next(iter(self._asking))
                del self._asking[first]
                with contextlib.suppress(OSError):
                    first.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._asking.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked is gone, or was too slow."""


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = PATIENCE_S
    server: _Server

    def do_GET(self) -> None:
        make = self.server.answers.get(self.path.partition("?")[0])
        if make is None:
            status, kind, content = 404, "text/plain", b"/metrics, /health, /state\n"
        else:
            try:
                status, kind, content = make()
            except Exception:  # noqa: BLE001  a bug: who runs the server sees it, who asks does not
                traceback.print_exc()
                status, kind, content = 500, "text/plain", b"internal error\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the log is for sessions."""

    def version_string(self) -> str:
        return f"pqjax/{VERSION}"
