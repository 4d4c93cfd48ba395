"""The client's end of a session: one call at a time, and what it prepares between two."""

import contextlib
import dataclasses
import pathlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Integer

from pqjax.engine.background import Background
from pqjax.engine.commands import GOODBYE, INFER, KEEP, MOST_PREPARED, PREPARE, SET_UP, ask, disown
from pqjax.engine.execute import Own, Preparation, Progress, infer, prepare
from pqjax.engine.half import may_be_kept
from pqjax.engine.installing import Installation
from pqjax.engine.spending import Keeping, Shelf, fresh_batch, keep_at_client
from pqjax.engine.store import MOST_IN_BATCH
from pqjax.errors import InputError, StoreError, WireError
from pqjax.graph.reference import check_input
from pqjax.planner.plan import Plan
from pqjax.protocols.party import Party
from pqjax.wire.handshake import hang_up
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

    A session that prepares `ahead` does between two calls, from the first moment on, what `prepare`
    would, until so many preparations are in store. A call waits for the one in progress, and `infer`
    uses it. What goes wrong there, the next call raises.
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
        ahead: int = 0,
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
        self._turn, self._background, self._ahead = threading.Lock(), Background(), ahead
        self._drop = weakref.finalize(self, hang_up, party.messenger.wire, Word.LEFT)
        self.plan = plan
        if self._set_up:
            self._hear_hints()
        self._rest()

    def _hear_hints(self) -> None:
        if self.plan.hinted:
            self._installation = Installation(self._party, self.plan, *self._hints)

    @property
    def stored(self) -> int:
        """How many of this session's first inferences were prepared, and kept, in an earlier one."""
        return self._party.messenger.trace.stored

    @property
    def ready(self) -> int:
        """How many preparations are in store: so many times `infer` begins at once."""
        return len(self._prepared)

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
        with self._called(), self._giving_up():
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
        """Does the work of one inference more that needs no input, for a later `infer` to use up."""
        with self._called():
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
        with self._called():
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
        with self._called(), self._giving_up():
            if not self._prepared:
                self._prepare()
            ask(self._party, INFER, self._inferences)
            ready = self._prepared.popleft()  # gone even if what follows fails
            y = infer(self._party, self.plan, self._own, ready, x, self._progress)
            assert y is not None
            self._inferences += 1
            return Result(y, self.trace.of(self._inferences - 1))

    def close(self) -> None:
        """Says goodbye and waits for the server to hang up, so that nothing is lost on the way.

        While it prepares ahead it goes at once: that preparation is in nobody's books.
        """
        with self._alone():
            wire = self._party.messenger.wire
            try:
                if self._background.busy:
                    wire.leave(Word.DONE)
                self._background.pause()
                ask(self._party, GOODBYE, None)
                wire.recv(1, "goodbye")  # ends with the server's hanging up; nothing is sent
            except WireError:
                disown(self._party.messenger.trace)
            finally:
                wire.abort()
                self._drop.detach()

    def _rest(self) -> None:
        """Nobody calls."""
        if len(self._prepared) < self._ahead:
            self._background.begin(self._prepare_ahead)

    def _prepare_ahead(self) -> bool:
        """Prepares one inference; whether there are to be more."""
        with self._giving_up():
            self._prepare()
        return len(self._prepared) < self._ahead

    @contextlib.contextmanager
    def _called(self) -> Iterator[None]:
        """The only call, once what is in progress is done."""
        with self._alone():
            with self._giving_up():
                self._background.pause()
            yield
            self._rest()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._background.here or not self._turn.acquire(blocking=False):
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
            hang_up(self._party.messenger.wire, word_for(error))
            raise

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if error is None:
            return self.close()
        hang_up(self._party.messenger.wire, word_for(error))
        with contextlib.suppress(Exception):  # it ends by that; an error is on its way already
            self._background.pause()


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


def word_for(error: BaseException) -> Word:
    """What the other party is told of it."""
    return Word.INTERRUPTED if isinstance(error, KeyboardInterrupt) else Word.LEFT
