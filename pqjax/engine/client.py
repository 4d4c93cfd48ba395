"""The client: a session with a server, one call at a time."""

import contextlib
import dataclasses
import pathlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Integer

from pqjax.engine.commands import GOODBYE, INFER, KEEP, MOST_PREPARED, PREPARE, SET_UP, ask
from pqjax.engine.execute import Own, Preparation, Progress, infer, prepare
from pqjax.engine.half import may_be_kept
from pqjax.engine.installing import Installation
from pqjax.engine.memory import check_memory
from pqjax.engine.spending import (
    Keeping,
    Note,
    Shelf,
    begin,
    fresh_batch,
    keep_at_client,
    spend_at_client,
)
from pqjax.engine.store import MOST_IN_BATCH, Store
from pqjax.errors import (
    DeadlineExceeded,
    HandshakeError,
    InputError,
    PeerGone,
    PqjaxError,
    SessionEnded,
    StoreError,
    WireError,
)
from pqjax.graph.reference import check_input
from pqjax.planner.document import read_plan
from pqjax.planner.plan import Plan
from pqjax.protocols.party import Party
from pqjax.wire.channel import DEADLINE_S
from pqjax.wire.handshake import greet_server, hang_up
from pqjax.wire.interface import Wire
from pqjax.wire.tcp import dial
from pqjax.wire.tls import Tls
from pqjax.wire.trace import Trace
from pqjax.wire.word import Word


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
    the first goes on. Between two calls a session lives for as long as the server lets it be idle;
    if the server ends it, the next call raises SessionEnded and says why. A session that is
    dropped without `close` tells the server so.
    """

    def __init__(
        self,
        party: Party,
        plan: Plan,
        progress: Progress | None = None,
        hints: pathlib.Path | str | None = None,
        hint_file: pathlib.Path | str | None = None,
        shelf: Shelf | None = None,
        spent: Sequence[Preparation] = (),
    ):
        self._party = party
        self._own = Own()
        self._installation: Installation | None = None
        self._hints = [None if path is None else pathlib.Path(path) for path in (hints, hint_file)]
        self._shelf, self._keeping = shelf, None
        self._progress = progress
        self._prepared: deque[Preparation] = deque(spent)
        self._set_up = not spent
        self._inferences = 0
        self._turn = threading.Lock()
        self._drop = weakref.finalize(self, hang_up, party.messenger.wire, Word.LEFT)
        self.plan = plan
        if self._set_up:
            self._hear_hints()

    def _hear_hints(self) -> None:
        if self.plan.hinted:
            self._installation = Installation(self._party, self.plan, *self._hints)

    @property
    def stored(self) -> int:
        """How many of this session's first inferences were prepared, and kept, in an earlier one."""
        return self._party.messenger.trace.stored

    @property
    def trace(self) -> Trace:
        """All that this party sent, received and waited for in this session so far."""
        trace = self._party.messenger.trace
        trace.alive_bytes = self._party.messenger.wire.alive_bytes
        return trace

    def install(self) -> None:
        """Gets what depends on the model alone, where any layer needs it and it is not there yet.

        Once for a model and a client, if hints are kept (`connect`, hints); `prepare` does it if nobody
        else has.

        Raises:
          CheckpointError: the hints are not what the server announced.
        """
        with self._alone(), self._giving_up():
            self._install()

    def _install(self) -> None:
        if not self._set_up:
            ask(self._party, SET_UP, self.stored)
            self._party.set_up()
            self._set_up = True
            self._hear_hints()
        if self._installation is not None and not self._own.layers:
            found = self._installation.complete(self._progress)
            self._own = Own(found.by_layer(self.plan), found.seed)

    def prepare(self) -> None:
        """Does the work of one inference that needs no input, for a later `infer` to use up."""
        with self._alone():
            if len(self._prepared) >= MOST_PREPARED:
                raise InputError(f"{MOST_PREPARED} preparations are in store, no more are kept")
            with self._giving_up():
                self._prepare()

    def _prepare(self) -> None:
        self._install()
        ask(self._party, PREPARE, self._inferences + len(self._prepared))
        self._prepared.append(prepare(self._party, self.plan, self._own, self._progress))

    def keep(self) -> None:
        """Prepares an inference, and keeps it on both sides for another session to spend.

        If preparations are in store here already, the first of them is kept.

        Raises:
          InputError: there is no store to keep it in, or what was kept is spent in this session.
          StoreError: nothing can be kept of this plan, or the server or this side has no room.
        """
        with self._alone():
            if self._shelf is None:
                raise InputError("nothing is kept without a store: connect(..., store=folder)")
            if not may_be_kept(self.plan):
                raise StoreError(
                    "preparations for this network cannot be kept: its plan makes random OTs where they "
                    "are used"
                )
            if self._prepared and self._prepared[0].ends is not None:
                raise InputError("what comes from a store is spent, and not kept again")
            with self._giving_up():
                if not self._prepared:
                    self._prepare()
                ask(self._party, KEEP, None)
                made, at = self._prepared.popleft(), self._keeping
                if at is None or at.count == MOST_IN_BATCH:
                    at = Keeping(fresh_batch(self.plan), 0)
                self._inferences += 1
                self._keeping = keep_at_client(self._party, self.plan, self._shelf, at, made)

    def infer(self, x: Integer[np.ndarray, "*shape"]) -> Result:
        """The network's answer on x, integers of the input's shape and range: checked first.

        Of a plan for a batch (n, ...) the answers (n, ...).

        Raises:
          InputError: another shape, no integers or not in range; or not as many as planned.
        """
        x = check_batch(self.plan, x)
        with self._alone(), self._giving_up():
            if not self._prepared:
                self._prepare()
            ask(self._party, INFER, self._inferences)
            ready = self._prepared.popleft()  # gone even if what follows fails
            y = infer(self._party, self.plan, self._own, ready, x, self._progress)
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
            self._drop.detach()

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
        except BaseException as error:
            hang_up(self._party.messenger.wire, _word_for(error))
            raise

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self.close() if error is None else hang_up(self._party.messenger.wire, _word_for(error))


def check_batch(plan: Plan, x: Integer[np.ndarray, "*shape"]) -> Integer[np.ndarray, "*shape"]:
    """The inputs of one inference: one, or as many (n, ...) as it was planned for.

    Raises:
      InputError: they do not fit the network, or are more or fewer.
    """
    batch, shape = check_input(plan.source, x), plan.source.input.out.shape
    if len(batch) != plan.batch or (batch.ndim == np.ndim(x)) != (plan.batch > 1):
        one = "one input" if plan.batch == 1 else f"{plan.batch} inputs"
        raise InputError(
            f"the plan is for {one} of shape {shape} at a time, got {np.shape(x)}: a plan for another "
            "batch answers as many"
        )
    return batch if plan.batch > 1 else batch[0]


def _word_for(error: BaseException) -> Word:
    return Word.INTERRUPTED if isinstance(error, KeyboardInterrupt) else Word.LEFT


def connect(
    address: str,
    *,
    plan: Plan | None = None,
    tls: Tls | None = None,
    insecure_plaintext: bool = False,
    deadline_s: float = DEADLINE_S,
    patience_s: float = 0.0,
    name: str | None = None,
    hints: pathlib.Path | str | None = None,
    hint_file: pathlib.Path | str | None = None,
    store: Shelf | pathlib.Path | str | None = None,
    spend: int = 0,
    note: Note = lambda text: None,
    progress: Progress | None = None,
) -> "Session":
    """Connects to a server and sets up oblivious transfer.

    Raises:
      AddressError: the address cannot be read or resolved, or is off loopback without TLS.
      PeerGone: nobody listens there, or who does closed the connection.
      DeadlineExceeded: who listens there says nothing.
      HandshakeError: it is no pqjax server, is busy, or has another version or plan.
      SessionEnded: the server ended the session and said why.
      CheckpointError: the file of hints is damaged, or of another model or version of it.
      StoreError: the folder of stored preparations cannot be used.

    Args:
      address: "host:port".
      plan: insist on this plan; without one the server's is taken over (it is public).
      tls: this side's certificates; needed off loopback.
      insecure_plaintext: do without TLS off loopback, on purpose.
      deadline_s: a wait for the server in which nothing moves for this long fails, and so do
        connecting and checking the plan. Between two calls nobody waits; how long that may be is
        the server's to say (`Server`, idle_s).
      patience_s: keep dialling for so long while nobody listens.
      name: whom the server's certificate has to name, where that is not the host dialled (a relay).
      hints: a folder in which to keep what a model's clients get once; without one it is asked for in
        every session that needs it.
      hint_file: such a file (`pqjax hint`), which came in another way.
      store: a folder of preparations that `Session.keep` put there, in any session with this address; or
        that and another name for the server than the address.
      spend: as many of them as so many inputs take, if there are, are this session's first ones; those
        that are not used then are lost.
      note: told of stored preparations that cannot be spent, and why.
      progress: told of every layer.
    """
    if not 0 <= spend <= MOST_PREPARED:
        raise InputError(f"0 to {MOST_PREPARED} stored preparations may be spent, got {spend}")
    shelf = store if store is None or isinstance(store, Shelf) else Shelf(Store(store), address)
    wire = dial(
        address,
        tls=tls,
        insecure_plaintext=insecure_plaintext,
        deadline_s=deadline_s,
        patience_s=patience_s,
        name=name,
    )
    try:
        with shelf.store.locked() if shelf and spend else contextlib.nullcontext():
            batches = shelf.store.batches(shelf.server) if shelf and spend else []
            document = _greet(wire, address, plan.digest if plan else None, bool(batches))
            if plan is None:
                assert document is not None
                plan = read_plan(document, deadline_s)
            check_memory(plan)
            spent: list[Preparation] = []
            if shelf and batches:
                spent = spend_at_client(
                    wire, plan, shelf.store, batches, -(-spend // plan.batch), note
                )
        party, _ = begin(wire, 1, plan, spent)
        return Session(party, plan, progress, hints, hint_file, shelf, spent)
    except BaseException as error:
        refused = isinstance(error, PqjaxError) and plan is None
        hang_up(wire, Word.REFUSED if refused else _word_for(error))
        raise


_PERHAPS = "perhaps another program listens there, or a server with TLS (then give certificates)"


def _greet(wire: Wire, address: str, digest: bytes | None, offers: bool) -> bytes | None:
    """Greets; what goes wrong names the address, and what may be there."""
    try:
        return greet_server(wire, digest, offers)
    except SessionEnded as error:
        raise SessionEnded(f"{address}: {error}", error.reason) from error
    except DeadlineExceeded as error:
        took = f"{address} took the connection and then said too little"
        raise DeadlineExceeded(f"{took} ({error}): {_PERHAPS}") from error
    except PeerGone as error:
        took = f"{address} took the connection and then closed it"
        raise PeerGone(f"{took} ({error}): it is closing or full, or {_PERHAPS}") from error
    except HandshakeError as error:
        raise HandshakeError(f"{address}: {error}") from error
