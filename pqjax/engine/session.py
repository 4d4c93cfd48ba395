"""Sessions: a server that serves clients one after another or side by side, a client that asks.

After the handshake and the base OTs the client names phases: 1 prepare, 2 infer, 0 goodbye. Nothing
else is ever negotiated; sizes and order of all frames follow from the plan.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from pqjax.engine.execute import Preparation, Progress, command, infer, prepare
from pqjax.errors import (
    Drift,
    GraphError,
    HandshakeError,
    InputError,
    PqjaxError,
    WireError,
)
from pqjax.graph.ir import Weights
from pqjax.graph.reference import check_input
from pqjax.planner.plan import BEGIN_LAYER, COMMAND_BITS, Plan, check_weights, read_plan
from pqjax.protocols.party import Party, make_party, run_pair
from pqjax.wire.channel import DEADLINE_S, Wire
from pqjax.wire.handshake import greet_client, greet_server, turn_away
from pqjax.wire.tcp import Listener, dial
from pqjax.wire.tls import Tls
from pqjax.wire.trace import Trace

GOODBYE, PREPARE, INFER = 0, 1, 2
MOST_PREPARED = 8  # preparations a client may have in store; each takes memory on both sides


@dataclasses.dataclass(frozen=True)
class Result:
    """The answer of one private inference.

    Attributes:
      output: the network's integers, exactly `pqjax.reference`'s.
      trace: what this party sent, received and waited for so far in the session.
    """

    output: np.ndarray
    trace: Trace


class Session:
    """The client's end of a session; made by `connect`. Use it as a context manager."""

    def __init__(self, party: Party, plan: Plan, progress: Progress | None = None):
        self._party = party
        self._progress = progress
        self._prepared: deque[Preparation] = deque()
        self.plan = plan

    @property
    def trace(self) -> Trace:
        """All that this party sent, received and waited for."""
        return self._party.messenger.trace

    def prepare(self) -> None:
        """Does the work of one inference that needs no input, for a later `infer` to use up."""
        if len(self._prepared) >= MOST_PREPARED:
            raise InputError(f"{MOST_PREPARED} preparations are in store, no more are kept")
        with self._giving_up():
            command(self._party, "offline", PREPARE)
            self._prepared.append(prepare(self._party, self.plan, None, self._progress))

    def infer(self, x: np.ndarray) -> Result:
        """The network's answer on x.

        Args:
          x: integers of the input's shape and range. Checked before anything is sent.
        """
        batch = check_input(self.plan.source, x)
        if len(batch) != 1 or np.ndim(x) != len(self.plan.source.input.out.shape):
            raise InputError(
                f"one input of shape {self.plan.source.input.out.shape} at a time, got {np.shape(x)}"
            )
        if not self._prepared:
            self.prepare()
        with self._giving_up():
            command(self._party, "online", INFER)
            ready = self._prepared.popleft()  # gone even if what follows fails
            y = infer(self._party, self.plan, None, ready, batch[0], self._progress)
        assert y is not None
        return Result(y, self.trace)

    def close(self) -> None:
        """Says goodbye and waits for the server to hang up, so that nothing is lost on the way."""
        wire = self._party.messenger.wire
        with contextlib.suppress(WireError):
            command(self._party, "online", GOODBYE)
            wire.recv(1, "goodbye")  # ends with the server's hanging up; nothing is sent
        wire.abort()

    @contextlib.contextmanager
    def _giving_up(self):
        try:
            yield
        except BaseException:
            self._party.messenger.wire.abort()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._party.messenger.wire.abort()


def connect(
    address: str,
    *,
    plan: Plan | None = None,
    tls: Tls | None = None,
    insecure_plaintext: bool = False,
    deadline_s: float = DEADLINE_S,
    patience_s: float = 0.0,
    progress: Progress | None = None,
) -> Session:
    """Connects to a server and sets up oblivious transfer.

    Args:
      address: "host:port".
      plan: insist on this plan; without one the server's is taken over (it is public).
      tls: this side's certificates; needed off loopback.
      insecure_plaintext: do without TLS off loopback, on purpose.
      deadline_s: a wait in which nothing arrives for this long fails.
      patience_s: keep dialling for so long while nobody listens.
      progress: told of every layer.
    """
    wire = dial(
        address, tls=tls, insecure_plaintext=insecure_plaintext, deadline_s=deadline_s,
        patience_s=patience_s,
    )  # fmt: skip
    try:
        document = greet_server(wire, plan.digest if plan else None)
        if plan is None:
            assert document is not None
            plan = read_plan(document)
        return Session(make_party(wire, 1, plan.preset.scheme), plan, progress)
    except HandshakeError:
        _hang_up(wire)
        raise
    except BaseException:
        wire.abort()
        raise


def _hang_up(wire: Wire) -> None:
    """Ends a wire after what was sent has gone out: the other side is to hear why."""
    with contextlib.suppress(WireError):
        wire.close()
    wire.abort()


def serve_wire(wire: Wire, plan: Plan, weights: Weights, progress: Progress | None = None) -> Trace:
    """Serves one client on an open wire, greeting included, until it says goodbye."""
    greet_client(wire, plan.document)
    party = make_party(wire, 0, plan.preset.scheme)
    prepared: deque[Preparation] = deque()
    while True:
        code = _next_command(party)
        if code == GOODBYE:
            wire.close()  # the client waits for it
            return party.messenger.trace
        if code == PREPARE and len(prepared) < MOST_PREPARED:
            prepared.append(prepare(party, plan, weights, progress))
        elif code == INFER and prepared:
            infer(party, plan, weights, prepared.popleft(), None, progress)
        else:
            raise Drift(
                f"the client asked for phase {code} with {len(prepared)} preparations in store"
            )


def _next_command(party: Party) -> int:
    """Waits for the client's next wish; its phase is known only once it is read."""
    messenger = party.messenger
    with messenger.layer("online", BEGIN_LAYER):
        code = int(messenger.receive(COMMAND_BITS)[0])
        if code == PREPARE:
            messenger.trace.entries[-1].phase = "offline"
    return code


class Server:
    """A listening server. `run` serves until `close` is called from another thread or a signal.

    Every client has a thread and a session of its own; what goes wrong in one ends that one only.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        address: str,
        *,
        tls: Tls | None = None,
        insecure_plaintext: bool = False,
        deadline_s: float = DEADLINE_S,
        most_clients: int = 2,
        on_end: Callable[[Trace | None, PqjaxError | None], None] | None = None,
        progress: Progress | None = None,
    ):
        """Checks the model and binds the address.

        Args:
          plan: what to serve.
          weights: the model's parameters.
          address: "host:port"; port 0 takes a free one, see `address`.
          tls: this side's certificates; needed off loopback.
          insecure_plaintext: do without TLS off loopback, on purpose.
          deadline_s: a wait in which nothing arrives for this long ends that client's session.
          most_clients: further ones are told that the server is busy.
          on_end: told of the end of every session: its trace, or the error that ended it.
          progress: told of every layer of every session.
        """
        check_weights(plan, weights)
        self._plan, self._weights = plan, dict(weights)
        self._listener = Listener(
            address, tls=tls, insecure_plaintext=insecure_plaintext, deadline_s=deadline_s
        )
        self.address = self._listener.address
        self._room = threading.Semaphore(most_clients)
        self._on_end, self._progress = on_end, progress
        self._wires: set[Wire] = set()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, most_sessions: int | None = None) -> None:
        """Serves clients until closed, or until so many sessions have begun and ended."""
        threads: list[threading.Thread] = []
        served = 0
        try:
            while not self._closed and (most_sessions is None or served < most_sessions):
                try:
                    wire = self._listener.accept()
                except WireError as error:
                    if self._closed:
                        break
                    self._ended(None, error)
                    continue
                served += 1
                thread = threading.Thread(target=self._serve, args=(wire,), daemon=True)
                thread.start()
                threads = [t for t in threads if t.is_alive()] + [thread]
        finally:
            if not self._closed:
                for thread in threads:
                    thread.join()
            self.close()

    def close(self) -> None:
        """Stops listening and ends all sessions under way."""
        self._closed = True
        self._listener.close()
        with self._lock:
            for wire in self._wires:
                wire.abort()

    def _serve(self, wire: Wire) -> None:
        with self._lock:
            self._wires.add(wire)
        try:
            if not self._room.acquire(blocking=False):
                turn_away(wire)
                wire.close()
                return
            try:
                trace = serve_wire(wire, self._plan, self._weights, self._progress)
                self._ended(trace, None)
            finally:
                self._room.release()
        except PqjaxError as error:
            if isinstance(error, HandshakeError):
                _hang_up(wire)
            self._ended(None, error)
        except Exception as error:  # a bug: this session ends, the server goes on
            failure = WireError(f"internal error in this session: {type(error).__name__}")
            failure.__cause__ = error
            self._ended(None, failure)
        finally:
            wire.abort()
            with self._lock:
                self._wires.discard(wire)

    def _ended(self, trace: Trace | None, error: PqjaxError | None) -> None:
        if self._on_end is not None:
            self._on_end(trace, error)


def serve(plan: Plan, weights: Weights, address: str, **options) -> None:
    """Serves `plan` with `weights` at `address` until interrupted; options as of `Server`."""
    server = Server(plan, weights, address, **options)
    try:
        server.run()
    finally:
        server.close()


def run_local(
    plan: Plan, weights: Weights, x: np.ndarray, deadline_s: float = DEADLINE_S
) -> Result:
    """Both parties in this process, over a local wire: the same code, bits and checks as over TCP.

    Returns:
      The client's result; `trace` is the client's.
    """
    try:
        check_weights(plan, weights)
    except GraphError as error:
        raise InputError(f"the weights do not fit the plan: {error}") from error
    check_input(plan.source, x)

    def client(wire: Wire) -> Result:
        greet_server(wire, plan.digest)
        with Session(make_party(wire, 1, plan.preset.scheme), plan) as session:
            return session.infer(x)

    return run_pair(lambda wire: serve_wire(wire, plan, weights), client, deadline_s)[1]
