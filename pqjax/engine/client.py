"""The client: a session with a server, one call at a time."""

import contextlib
import dataclasses
import threading
from collections import deque
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Integer

from pqjax.engine.commands import GOODBYE, INFER, MOST_PREPARED, PREPARE, ask
from pqjax.engine.execute import Preparation, Progress, infer, prepare
from pqjax.engine.memory import check_memory
from pqjax.errors import HandshakeError, InputError, WireError
from pqjax.graph.reference import check_input
from pqjax.planner.document import read_plan
from pqjax.planner.plan import Plan
from pqjax.protocols.party import Party, make_party
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.handshake import greet_server, hang_up
from pqjax.wire.tcp import dial
from pqjax.wire.tls import Tls
from pqjax.wire.trace import Trace


@dataclasses.dataclass(frozen=True)
class Result:
    """The answer of one private inference.

    Attributes:
      output: the network's integers, exactly `pqjax.reference`'s.
      trace: what this party sent, received and waited for: its preparation and online phase, and of
        a session's first inference the setup, too.
    """

    output: Int[np.ndarray, "*shape"] = dataclasses.field(repr=False)
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
        self._inferences = 0
        self._turn = threading.Lock()
        self.plan = plan

    @property
    def trace(self) -> Trace:
        """All that this party sent, received and waited for in this session so far."""
        return self._party.messenger.trace

    def prepare(self) -> None:
        """Does the work of one inference that needs no input, for a later `infer` to use up."""
        with self._alone():
            if len(self._prepared) >= MOST_PREPARED:
                raise InputError(f"{MOST_PREPARED} preparations are in store, no more are kept")
            with self._giving_up():
                self._prepare()

    def _prepare(self) -> None:
        ask(self._party, PREPARE, self._inferences + len(self._prepared))
        self._prepared.append(prepare(self._party, self.plan, {}, self._progress))

    def infer(self, x: Integer[np.ndarray, "*shape"]) -> Result:
        """The network's answer on x, integers of the input's shape and range: checked first."""
        batch, shape = check_input(self.plan.source, x), self.plan.source.input.out.shape
        if len(batch) != 1 or np.ndim(x) != len(shape):
            raise InputError(f"one input of shape {shape} at a time, got {np.shape(x)}")
        with self._alone(), self._giving_up():
            if not self._prepared:
                self._prepare()
            ask(self._party, INFER, self._inferences)
            ready = self._prepared.popleft()  # gone even if what follows fails
            y = infer(self._party, self.plan, {}, ready, batch[0], self._progress)
            assert y is not None
            self._inferences += 1
            return Result(y, self.trace.of(self._inferences - 1))

    def close(self) -> None:
        """Says goodbye and waits for the server to hang up, so that nothing is lost on the way."""
        with self._alone():
            wire = self._party.messenger.wire
            with contextlib.suppress(WireError):
                ask(self._party, GOODBYE, None)
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

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close() if kind is None else self._party.messenger.wire.abort()


def connect(
    address: str,
    *,
    plan: Plan | None = None,
    tls: Tls | None = None,
    insecure_plaintext: bool = False,
    deadline_s: float = DEADLINE_S,
    patience_s: float = 0.0,
    progress: Progress | None = None,
) -> "Session":
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
        address,
        tls=tls,
        insecure_plaintext=insecure_plaintext,
        deadline_s=deadline_s,
        patience_s=patience_s,
    )
    try:
        document = greet_server(wire, plan.digest if plan else None)
        if plan is None:
            assert document is not None
            plan = read_plan(document, deadline_s)
        check_memory(plan)
        return Session(
            make_party(wire, 1, plan.preset.source, tuning=plan.preset.tuning), plan, progress
        )
    except HandshakeError:
        hang_up(wire)
        raise
    except BaseException:
        wire.abort()
        raise
