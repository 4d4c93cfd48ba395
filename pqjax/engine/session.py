"""Sessions: the client's half, the server's half, and both in one process.

After the handshake and the base OTs the client names phases: 1 prepare, 2 infer, 0 goodbye. Nothing
else is ever negotiated; sizes and order of all frames follow from the plan.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import deque
from collections.abc import Iterator

import numpy as np

from pqjax.engine.execute import Preparation, Progress, command, infer, prepare
from pqjax.errors import (
    Drift,
    GraphError,
    HandshakeError,
    InputError,
    WireError,
)
from pqjax.graph.ir import Weights
from pqjax.graph.reference import check_input
from pqjax.planner.plan import BEGIN_LAYER, COMMAND_BITS, Plan, check_weights, read_plan
from pqjax.protocols.party import Party, make_party, run_pair
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.handshake import greet_client, greet_server
from pqjax.wire.interface import Wire
from pqjax.wire.tcp import dial
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

    output: np.ndarray = dataclasses.field(repr=False)
    trace: Trace


class Session:
    """The client's end of a session; made by `connect`. Use it as a context manager.

    One call at a time: a second one, from another thread or from `progress`, is an InputError and
    the first goes on.
    """

    def __init__(self, party: Party, plan: Plan, progress: Progress | None = None):
        self._party = party
        self._progress = progress
        self._prepared: deque[Preparation] = deque()
        self._turn = threading.Lock()
        self.plan = plan

    @property
    def trace(self) -> Trace:
        """All that this party sent, received and waited for."""
        return self._party.messenger.trace

    def prepare(self) -> None:
        """Does the work of one inference that needs no input, for a later `infer` to use up."""
        with self._alone():
            if len(self._prepared) >= MOST_PREPARED:
                raise InputError(f"{MOST_PREPARED} preparations are in store, no more are kept")
            with self._giving_up():
                self._prepare()

    def _prepare(self) -> None:
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
        with self._alone(), self._giving_up():
            if not self._prepared:
                self._prepare()
            command(self._party, "online", INFER)
            ready = self._prepared.popleft()  # gone even if what follows fails
            y = infer(self._party, self.plan, None, ready, batch[0], self._progress)
        assert y is not None
        return Result(y, self.trace)

    def close(self) -> None:
        """Says goodbye and waits for the server to hang up, so that nothing is lost on the way."""
        with self._alone():
            wire = self._party.messenger.wire
            with contextlib.suppress(WireError):
                command(self._party, "online", GOODBYE)
                wire.recv(1, "goodbye")  # ends with the server's hanging up; nothing is sent
            wire.abort()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            raise InputError(
                "this session is at work on another call; a session serves one call at a time: "
                "wait for it, or connect once per thread"
            )
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
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
      deadline_s: a wait in which nothing arrives for this long fails, and so does planning.
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
            plan = read_plan(document, deadline_s)
        return Session(make_party(wire, 1, plan.preset.source), plan, progress)
    except HandshakeError:
        hang_up(wire)
        raise
    except BaseException:
        wire.abort()
        raise


def hang_up(wire: Wire) -> None:
    """Ends a wire after what was sent has gone out: the other side is to hear why."""
    with contextlib.suppress(WireError):
        wire.close()
    wire.abort()


def serve_session(
    wire: Wire, plan: Plan, weights: Weights, progress: Progress | None = None
) -> Trace:
    """The server's half, after the greeting, until the client says goodbye.

    The client then waits for the wire to close; that is left to the caller.
    """
    party = make_party(wire, 0, plan.preset.source)
    prepared: deque[Preparation] = deque()
    while True:
        code = _next_command(party)
        if code == GOODBYE:
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

    def server(wire: Wire) -> None:
        greet_client(wire, plan.document)
        serve_session(wire, plan, weights)
        wire.close()

    def client(wire: Wire) -> Result:
        greet_server(wire, plan.digest)
        with Session(make_party(wire, 1, plan.preset.source), plan) as session:
            return session.infer(x)

    return run_pair(server, client, deadline_s)[1]
