"""A listening server: many clients side by side, none of whom can end it or shut it for others.

The accept loop hands every connection to a thread of its own and does nothing else. There it is a
guest of the lobby until it has greeted, then a session with a seat; whatever goes wrong in it ends
it alone. Seats are few, so one is taken only for a client whose hello is fine.
"""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Callable

from pqjax.engine.execute import Progress
from pqjax.engine.model import ServedModel
from pqjax.engine.worker import serve_session
from pqjax.errors import InputError, PqjaxError, WireError
from pqjax.graph.ir import Weights
from pqjax.planner.plan import Plan
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.handshake import greet_client, hang_up
from pqjax.wire.interface import Wire
from pqjax.wire.listener import Listener
from pqjax.wire.lobby import GREETING_S, MOST_WAITING, Guest, Lobby
from pqjax.wire.tls import Tls
from pqjax.wire.trace import Trace


class _Seats:
    """Who is served at the moment, and how many sessions may still begin."""

    def __init__(self, most: int):
        if most < 1:
            raise InputError(f"a server serves at least 1 client at a time, got {most}")
        self._most = most
        self._taken: set[Guest] = set()
        self._lock = threading.Lock()
        self.sessions_left: int | None = None

    def take(self, guest: Guest) -> bool:
        """A seat for this guest; False if there is none."""
        with self._lock:
            left = self._most if self.sessions_left is None else self.sessions_left
            if len(self._taken) >= min(self._most, left):
                return False
            self._taken.add(guest)
            return True

    def leave(self, guest: Guest, *, served: bool) -> None:
        """Frees the guest's seat, if it has one; a session is over if it was `served`."""
        with self._lock:
            if guest in self._taken:
                self._taken.remove(guest)
                if served and self.sessions_left is not None:
                    self.sessions_left -= 1


class Server:
    """A listening server. `run` serves until `close` is called from another thread or a signal.

    Every client has a thread and a session of its own; what goes wrong in one ends that one only.

    Attributes:
      address: "host:port" as bound.
    """

    def __init__(
        self,
        plan: Plan | ServedModel,
        weights: Weights | None,
        address: str,
        *,
        tls: Tls | None = None,
        insecure_plaintext: bool = False,
        deadline_s: float = DEADLINE_S,
        greeting_s: float = GREETING_S,
        most_clients: int = 2,
        most_waiting: int = MOST_WAITING,
        on_end: Callable[[Trace | None, PqjaxError | None], None] | None = None,
        on_refused: Callable[[PqjaxError], None] | None = None,
        progress: Progress | None = None,
    ):
        """Checks the model, reads the certificates and binds the address.

        Args:
          plan: what to serve; or a model that was checked before, whose weights are its own.
          weights: the model's parameters.
          address: "host:port"; port 0 takes a free one, see `address`.
          tls: this side's certificates; needed off loopback.
          insecure_plaintext: do without TLS off loopback, on purpose.
          deadline_s: a wait in which nothing arrives for this long ends that client's session.
          greeting_s: TLS and greeting of a connection must be over in this time, both together.
          most_clients: further ones are told that the server is busy.
          most_waiting: connections that have not greeted; above that one goes, a silent one first.
          on_end: told of the end of every session: its trace, or the error that ended it.
          on_refused: told why a connection ended that never became a session.
          progress: told of every layer of every session.

        The three are called from the threads of connections. What `on_end` and `on_refused` raise
        is printed; what `progress` raises ends that session.
        """
        for name, seconds in (("deadline_s", deadline_s), ("greeting_s", greeting_s)):
            if not seconds > 0:
                raise InputError(f"{name} must be above 0 seconds, got {seconds}")
        self._model = ServedModel.of(plan, weights or {}) if isinstance(plan, Plan) else plan
        self._deadline_s, self._greeting_s = deadline_s, greeting_s
        self._on_end, self._on_refused, self._progress = on_end, on_refused, progress
        self._lobby, self._seats = Lobby(most_waiting), _Seats(most_clients)
        self._listener = Listener(address, tls=tls, insecure_plaintext=insecure_plaintext)
        self.address = self._listener.address
        self._wires: set[Wire] = set()
        self._lock = threading.RLock()  # a signal handler may close the server meanwhile
        self._closed = False

    def run(self, most_sessions: int | None = None) -> None:
        """Serves clients until closed, or until so many sessions have begun and ended.

        A connection that never greeted is no session.
        """
        if most_sessions is not None and most_sessions < 1:
            raise InputError(f"a server runs for at least 1 session, got {most_sessions}")
        self._seats.sessions_left = most_sessions
        threads: list[threading.Thread] = []
        try:
            while True:
                try:
                    sock = self._listener.accept(shed=self._lobby.shed)
                except WireError:  # closed: by `close`, or by the last session
                    break
                threads = [thread for thread in threads if thread.is_alive()]
                threads += self._let_in(sock)
        finally:
            try:
                self._listener.close()
                self._lobby.clear("the server is closing")
                for thread in threads:
                    thread.join()
            finally:
                self.close()

    def close(self) -> None:
        """Stops listening and ends all sessions under way."""
        with self._lock:
            self._closed = True
        self._listener.close()
        self._lobby.clear("the server is closing")
        with self._lock:
            for wire in self._wires:
                wire.abort()

    def _let_in(self, sock: socket.socket) -> list[threading.Thread]:
        """Gives a connection its thread; without one it ends, and the oldest guest with it."""
        guest = Guest(sock, self._greeting_s)
        self._lobby.add(guest)
        thread = threading.Thread(
            target=self._attend, args=(guest,), name="pqjax-client", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            self._lobby.remove(guest)
            guest.close()
            self._lobby.shed()
            self._tell(self._on_refused, WireError(f"no thread for another connection: {error}"))
            return []
        return [thread]

    def _attend(self, guest: Guest) -> None:
        """A connection from its first byte to its last; nothing that happens in it leaves it."""
        wire: Wire | None = None
        trace: Trace | None = None
        failure: PqjaxError | None = None
        greeted = False
        try:
            wire = guest.open(self._listener.context, self._deadline_s)
            greet_client(wire, self._model.plan.document, lambda: self._seats.take(guest))
            greeted = True
            self._begin(guest, wire)
            trace = serve_session(wire, self._model, self._progress)
            # Before the client hears of the end: it may come again at once.
            self._seats.leave(guest, served=True)
            wire.close()
        except PqjaxError as error:
            failure = guest.reason(error)
            if wire is not None and not greeted:
                hang_up(wire)
        except BaseException as error:  # a bug: this session ends, the server goes on
            failure = WireError(f"internal error in this session: {type(error).__name__}")
            failure.__cause__ = error
        finally:
            self._lobby.remove(guest)
            guest.close()
            self._seats.leave(guest, served=greeted)
            with self._lock:
                self._wires.discard(wire)
        if greeted:
            self._tell(self._on_end, trace if failure is None else None, failure)
        elif failure is not None:
            self._tell(self._on_refused, failure)
        if self._seats.sessions_left == 0:
            self._listener.close()

    def _begin(self, guest: Guest, wire: Wire) -> None:
        """Turns a guest that has greeted into a session."""
        with self._lock:
            if self._closed:
                raise WireError("the server is closing")
            self._wires.add(wire)
            self._lobby.remove(guest)
            wire.until = None

    def _tell(self, callback: Callable[..., None] | None, *what: object) -> None:
        """Calls back; a caller's fault is the caller's, and no connection's."""
        if callback is not None:
            try:
                callback(*what)
            except Exception:
                traceback.print_exc()


def serve(plan: Plan, weights: Weights, address: str, **options) -> None:
    """Serves `plan` with `weights` at `address` until interrupted; options as of `Server`."""
    server = Server(plan, weights, address, **options)
    try:
        server.run()
    finally:
        server.close()
