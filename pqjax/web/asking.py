"""One session with a server for many who ask: one question after the other, in a thread of its own."""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pqjax.answers import likeliest
from pqjax.engine import Session
from pqjax.errors import DataError, PeerGone, SessionEnded
from pqjax.planner import Plan
from pqjax.questions import Integers, Picture, fitted, in_batches
from pqjax.web.problem import Problem
from pqjax.wire.trace import PHASES, Trace

MOST_WAITING = 16
MOST_INFERENCES = 100  # for one request


class Asker:
    """Asks a server, and connects to it anew where the last session is over."""

    def __init__(self, connect: Callable[[], Session], most_waiting: int = MOST_WAITING):
        """Connects, so that what is wrong with that is known at once.

        Args:
          connect: begins a session.
          most_waiting: questions, the one under way included; further ones are refused.

        Raises:
          WireError, HandshakeError: as `connect`.
        """
        self._connect, self._most = connect, most_waiting
        self._session: Session | None = connect()
        self.plan: Plan = self._session.plan
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "pqjax-asker")
        self._lock, self._waiting = threading.Lock(), 0

    @property
    def waiting(self) -> int:
        """Questions that have no answer yet."""
        return self._waiting

    def ask(
        self, question: Picture | Integers, top: int
    ) -> concurrent.futures.Future[dict[str, Any]]:
        """The answers, when they are there, with the `top` likeliest classes of each.

        Raises:
          Problem: too many wait.
        """
        with self._lock:
            if self._waiting >= self._most:
                raise Problem(
                    503, "Busy", f"{self._waiting} questions wait already", f"at most {self._most}",
                    "one more", "ask again later",
                )  # fmt: skip
            self._waiting += 1
        future = self._thread.submit(self._answers, question, top)
        future.add_done_callback(self._over)
        return future

    def _over(self, _: object) -> None:
        with self._lock:
            self._waiting -= 1

    def _answers(self, question: Picture | Integers, top: int) -> dict[str, Any]:
        rested = self._session is not None
        try:
            return self._asked(self._open(), question, top)
        except PeerGone as error:
            # What became of a session while nobody asked is no failure of this question.
            spent = isinstance(error, SessionEnded) and error.reason == "spent"
            if spent or not rested:
                raise
            return self._asked(self._open(), question, top)

    def _open(self) -> Session:
        if self._session is None:
            self._session = self._connect()
            self.plan = self._session.plan
        return self._session

    def _asked(self, session: Session, question: Picture | Integers, top: int) -> dict[str, Any]:
        made, begin = session.plan, time.perf_counter()
        inputs, done = self._fitted(made, question)
        answers, before = [], len(session.trace.entries)
        try:
            for x in in_batches(made, inputs):
                y = session.infer(x).output
                answers += list(y[None] if made.batch == 1 else y)
        except BaseException:
            self._session = None  # over, whatever it was
            raise
        spent = Trace(session.trace.entries[before:])
        return {
            "answers": [
                {"classes": likeliest(made.source, y, made.classes, top), "output": y.tolist()}
                for y in answers
            ],
            "done": done,
            "protocol": made.protocol,
            "bytes": {
                phase: dict(zip(("sent", "received"), spent.bytes(phase), strict=True))
                for phase in PHASES
            },
            "seconds": {phase: round(spent.seconds(phase), 4) for phase in PHASES}
            | {"total": round(time.perf_counter() - begin, 4)},
        }

    def _fitted(self, made: Plan, question: Picture | Integers) -> tuple[np.ndarray, str]:
        out = made.source.input.out
        try:
            inputs, done = fitted(made.source, question, made.shorter)
            if len(inputs) > MOST_INFERENCES * made.batch:
                raise DataError(
                    f"{len(inputs)} inputs: at most {MOST_INFERENCES} inferences of {made.batch} each "
                    "are made for one request"
                )
            in_batches(made, inputs)
        except DataError as error:
            expected = f"integers of shape {list(out.shape)} in {out.low}..{out.high}"
            if len(out.shape) == 3 and out.shape[2] in (1, 3) and out.bits == 8:
                expected += ", or a picture"
            got = "a picture"
            if isinstance(question, Integers):
                got = f"{question.values.dtype} of shape {list(question.values.shape)}"
            text = "send what the network takes: GET /model says what that is"
            raise Problem(400, type(error).__name__, str(error), expected, got, text) from error
        return inputs, done

    def close(self) -> None:
        """Says goodbye if nothing is under way; leaves what is."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if not self._waiting and self._session is not None:
            self._session.close()
