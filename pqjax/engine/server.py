"""A listening server: many clients side by side, none of whom can end it or shut it for others.

The accept loop hands every connection to a thread of its own and does nothing else. There it is a
guest of the lobby until it has greeted, then a session with a seat; whatever goes wrong in it ends
it alone. Seats are few, so one is taken (`Desk`) only for a client whose hello is fine.
"""

import pathlib
import socket
import threading
import time
from functools import partial
from typing import Any

from pqjax.engine.catalogue import Catalogue
from pqjax.engine.desk import Desk, Limits, LimitsDesk, session_bytes
from pqjax.engine.events import All, Events
from pqjax.engine.execute import Progress
from pqjax.engine.model import ServedModel
from pqjax.engine.store import Store
from pqjax.engine.visit import IDLE_S, Visit
from pqjax.engine.worker import serve_session
from pqjax.errors import Drift, InputError, PqjaxError, Spent, WireError
from pqjax.graph.ir import Weights
from pqjax.planner.plan import Plan
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.handshake import Asked, Objection, greet_client, hang_up
from pqjax.wire.interface import Wire
from pqjax.wire.listener import Door, Listener
from pqjax.wire.lobby import GREETING_S, MOST_WAITING, Guest, Lobby
from pqjax.wire.tls import Tls
from pqjax.wire.trace import Trace
from pqjax.wire.word import Word

DRAIN_S = 600.0


class Server:
    """A listening server. `run` serves until it is told to `stop` or `close`, or is interrupted.

    Every client has a thread and a session of its own; what goes wrong in one ends that one only.
    What a session may wait for, and how long:

      greeting   the client's TLS and hello    greeting_s in all
      setup      the client's next bytes       deadline_s
      idle       the client's next command     idle_s; less if it gives no sign of life
      running    the client's next bytes       deadline_s; 8 KiB/s at least once a frame has begun
      stopping   commands under way            drain_s in all

    Whatever ends a session early, the client is told which of these it was.

    Attributes:
      address: "host:port" as bound.
    """

    def __init__(
        self,
        plan: Plan | ServedModel | Catalogue,
        weights: Weights | None,
        address: str,
        *,
        tls: Tls | None = None,
        insecure_plaintext: bool = False,
        deadline_s: float = DEADLINE_S,
        greeting_s: float = GREETING_S,
        idle_s: float = IDLE_S,
        drain_s: float = DRAIN_S,
        most_clients: int = 2,
        desk: Desk | None = None,
        door: Door | None = None,
        most_waiting: int = MOST_WAITING,
        hints: pathlib.Path | str | None = None,
        store: Store | None = None,
        events: Events | None = None,
        progress: Progress | None = None,
    ):
        """Checks the model, reads the certificates and binds the address.

        Args:
          plan: what to serve; or a model that was checked before, or several, whose weights are their
            own.
          weights: the model's parameters.
          address: "host:port"; port 0 takes a free one, see `address`.
          tls: this side's certificates; needed off loopback.
          insecure_plaintext: do without TLS off loopback, on purpose.
          deadline_s: a wait in which nothing arrives for this long ends that client's session.
          greeting_s: TLS and greeting of a connection must be over in this time, both together.
          idle_s: a client may ask for nothing for so long between two commands; it must live, too:
            one that gives no sign of life is given up after `deadline_s`, or 20 s if that is more.
          drain_s: once the server is told to stop, sessions at work have this long to finish.
          most_clients: further ones are told that the server is busy.
          desk: keeps that and further limits; in the place of `most_clients`.
          door: where connections come from, if not from dialling `address`; says what that is.
          most_waiting: connections that have not greeted; above that one goes, a silent one first.
          hints: a folder in which to keep what is made once for a model and sent to each of its clients,
            and the key to it; without one it is made anew by every server.
          store: where preparations of clients that want to spend them another day are kept.
          events: told of all that happens here.
          progress: told of every layer of every session.

        What `progress` raises ends that session.
        """
        limits = {"deadline_s": deadline_s, "greeting_s": greeting_s, "idle_s": idle_s}
        for name, seconds in (limits | {"drain_s": drain_s}).items():
            if not 0 < seconds < threading.TIMEOUT_MAX:
                most = threading.TIMEOUT_MAX
                raise InputError(f"{name} must be above 0 and below {most:g} s, got {seconds}")
        if isinstance(plan, Plan):
            plan = ServedModel.of(plan, weights or {}, hints, progress)
        self._catalogue = plan if isinstance(plan, Catalogue) else Catalogue.of_one(plan)
        self._deadline_s, self._greeting_s = deadline_s, greeting_s
        self._idle_s, self._drain_s = idle_s, drain_s
        self._events, self._progress = All(*filter(None, (events,))), progress
        self._store = store
        self._lobby = Lobby(most_waiting)
        self._desk: Desk = desk or LimitsDesk(Limits(most_clients))
        self._desk.give_way(self.give_way)
        if door is None:
            door = Listener(address, tls=tls, insecure_plaintext=insecure_plaintext)
        self._door, self.address = door, door.address
        self._visits: dict[Wire, Visit] = {}
        self._lock = threading.RLock()  # a signal handler may close the server meanwhile
        self._stopping = False

    def give_way(self) -> None:
        """Ends sessions in the background as soon as nothing in them is half done; returns at once."""
        with self._lock:
            visits = [visit for visit in self._visits.values() if visit.background]
        for visit in visits:
            visit.finish(Word.YIELD)

    def offer(self, catalogue: Catalogue) -> None:
        """Serves these models to clients that come from now on; sessions go on with theirs."""
        self._catalogue = catalogue

    def run(self, most_sessions: int | None = None) -> None:
        """Serves clients until told to stop, or until so many sessions have begun and ended.

        A connection that never greeted is no session. KeyboardInterrupt stops the server as `stop`
        does and is raised in the end; a second one, while sessions finish, closes it at once.
        """
        if most_sessions is not None and most_sessions < 1:
            raise InputError(f"a server runs for at least 1 session, got {most_sessions}")
        self._desk.close_after(most_sessions)
        threads: list[threading.Thread] = []
        try:
            while True:
                try:
                    sock, client = self._door.accept(shed=self._lobby.shed)
                except WireError:  # closed: by `stop`, or where the door leads
                    break
                threads = [thread for thread in threads if thread.is_alive()]
                threads += self._let_in(sock, client)
            if (
                not self._stopping
            ):  # nobody else comes: those who are here stay as long as they like
                for thread in threads:
                    thread.join()
        finally:
            try:
                self.stop()
                self._drain(threads)
            finally:
                self.close()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """Lets nobody in and ends sessions as soon as nothing in them is half done; returns at once.

        From any thread or a signal handler. `run` waits for them, for `drain_s`, then returns.
        """
        for visit in self._last_visits().values():
            visit.finish()

    def close(self) -> None:
        """Stops listening and ends all sessions under way; their clients are told, in a second."""
        visits = self._last_visits()
        for visit in visits.values():
            visit.end()
        for wire in visits:
            wire.abort()

    def _last_visits(self) -> dict[Wire, Visit]:
        """Lets nobody in from here on; the sessions there are."""
        with self._lock:
            self._stopping = True
            visits = dict(self._visits)
        self._door.close()
        self._lobby.clear("the server is closing")
        return visits

    def _drain(self, threads: list[threading.Thread]) -> None:
        """Waits for the sessions' threads, for `drain_s` at most, and says for whom."""
        until = time.monotonic() + self._drain_s
        with self._lock:
            visits = [visit for visit in self._visits.values() if visit.busy]
        if visits:
            self._events.stopping(visits, self._drain_s)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _let_in(self, sock: socket.socket, client: str) -> list[threading.Thread]:
        """Gives a connection its thread; without one it ends, and the oldest guest with it."""
        guest = Guest(sock, client, self._greeting_s)
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
            failure = WireError(f"no thread for another connection: {error}")
            self._events.refused(client, failure)
            return []
        return [thread]

    def _attend(self, guest: Guest) -> None:
        """A connection from its first byte to its last; nothing that happens in it leaves it."""
        wire: Wire | None = None
        visit: Visit | None = None
        trace: Trace | None = None
        failure: PqjaxError | None = None
        try:
            wire = guest.open(self._door.context, self._deadline_s)
            model, title, offers = self._greet(wire, guest)
            note = partial(self._events.noted, guest.client)
            permit = partial(self._desk.permit, guest.owner)
            who = wire, guest.client, guest.owner
            told = self._progress, self._store, note, permit, title, guest.background
            made = Visit(*who, self._idle_s, *told)
            made.told = partial(self._events.done, made)
            self._begin(guest, wire, made)
            visit = made
            trace = serve_session(wire, model, visit, offers)
            # Before the client hears of the end: it may come again at once.
            self._desk.leave(guest, served=True)
            wire.close()
        except PqjaxError as error:
            failure = guest.reason(error)
            if wire is not None:
                hang_up(wire, _last_word(error) if visit else Word.REFUSED)
        except BaseException as error:  # a bug: this session ends, the server goes on
            failure = WireError(f"internal error in this session: {type(error).__name__}")
            failure.__cause__ = error
            if wire is not None:
                hang_up(wire, Word.FAULT)
        finally:
            self._lobby.remove(guest)
            guest.close()
            self._desk.leave(guest, served=visit is not None)
            if wire is not None:
                with self._lock:
                    self._visits.pop(wire, None)
        if visit is not None:
            self._events.ended(visit, trace if failure is None else None, failure)
        elif failure is not None:
            self._events.refused(guest.client, failure)
        if self._desk.over:
            self.stop()

    def _greet(self, wire: Wire, guest: Guest) -> tuple[ServedModel, str, bool]:
        """The model agreed on, its title, and whether the client goes on by offering preparations."""
        catalogue, found = self._catalogue, []  # what is reloaded meanwhile is for others

        def find(asked: Asked) -> bytes | None:
            model = catalogue.find(asked)
            if model is None:
                return None
            found[:] = [model]
            return model.plan.document

        def admit(document: bytes, asked: Asked) -> Objection | None:
            how = session_bytes(found[0].plan), asked.ticket, asked.background
            guest.background = asked.background
            return self._desk.enter(guest, guest.owner, *how)

        _, offers = greet_client(wire, find, admit)
        return found[0], str(catalogue.title(found[0])), offers

    def _begin(self, guest: Guest, wire: Wire, visit: Visit) -> None:
        """Turns a guest that has greeted into a session."""
        with self._lock:
            if self._stopping:
                visit.end()
                raise WireError("the server is closing")
            self._visits[wire] = visit
            self._lobby.remove(guest)
            wire.until = None
        self._events.began(visit)

    @property
    def open(self) -> bool:
        """Whether clients are let in."""
        return not self._stopping

    @property
    def state(self) -> list[dict[str, Any]]:
        """The sessions there are, each as `Visit.state`."""
        with self._lock:
            visits = list(self._visits.values())
        return [visit.state for visit in visits]


def _last_word(error: PqjaxError) -> Word:
    """What a client is told of the error that ended its session."""
    if isinstance(error, Spent):
        return Word.SPENT
    return Word.DRIFT if isinstance(error, Drift) else Word.FAULT


def serve(plan: Plan, weights: Weights, address: str, **options) -> None:
    """Serves `plan` with `weights` at `address` until interrupted; options as of `Server`."""
    Server(plan, weights, address, **options).run()
