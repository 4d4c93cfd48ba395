"""A client's session as its server sees it: whose it is, what it does, and how it is ended early."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pqjax.engine.execute import Progress
from pqjax.engine.store import Store
from pqjax.wire.interface import Wire
from pqjax.wire.word import Word

IDLE_S = 1800.0


class Visit:
    """One session. Its own thread says what it does; others may ask, and end it.

    Attributes:
      client: the client's address.
      model: what it is served, as text (`Title`).
      background: it gives way to others.
      owner: whose what is kept for it is.
      idle_s: a client may ask for nothing for so long.
      store: where preparations are kept for it, if anywhere; and note: told what becomes of them.
      permit: asked for so many answers before it gets them.
      told: of every phase that is over: its name, seconds, and how many answers it gave.
    """

    def __init__(
        self,
        wire: Wire,
        client: str = "this process",
        owner: str = "this process",
        idle_s: float = IDLE_S,
        progress: Progress | None = None,
        store: Store | None = None,
        note: Callable[[str], None] = lambda text: None,
        permit: Callable[[int], bool] = lambda count: True,
        model: str = "model",
        background: bool = False,
    ):
        self.client, self.owner, self.idle_s = client, owner, idle_s
        self.store, self.note, self.permit = store, note, permit
        self.model, self.background = model, background
        self.told: Callable[[str, float, int], None] = lambda phase, seconds, count: None
        self._wire, self._progress, self._began = wire, progress, time.monotonic()
        self._lock = threading.RLock()  # a signal handler may ask meanwhile
        self._does, self._since = "sets up oblivious transfer", time.monotonic()
        self._resting = self._finishing = self._ended = False
        self._last = Word.CLOSING
        self._prepared = 0

    def progress(self, where: str, done: int, steps: int) -> None:
        """A layer begins or, with all done, a phase ends: as `Progress`."""
        with self._lock:
            self._does = f"{where}, {done} of {steps} layers done"
        if self._progress is not None:
            self._progress(where, done, steps)

    def rest(self, prepared: int) -> None:
        """The client may ask for something or not; so many preparations are in store for it."""
        with self._lock:
            self._resting, self._prepared, self._since = True, prepared, time.monotonic()
            self._does = f"idle, preparations in store: {prepared}"
            self._part_if_done()

    def work(self) -> None:
        """The client has asked for something."""
        with self._lock:
            self._resting, self._since = False, time.monotonic()

    def finish(self, word: Word = Word.CLOSING) -> None:
        """Ends the session as soon as nothing is half done: no command, no preparation in store."""
        with self._lock:
            self._finishing, self._last = True, word
            self._part_if_done()

    def end(self, word: Word = Word.CLOSING) -> None:
        """Ends the session at once."""
        self._ended = True
        self._wire.leave(word)

    @property
    def busy(self) -> bool:
        """Whether something in it is half done."""
        with self._lock:
            return not self._ended and (not self._resting or self._prepared > 0)

    def _part_if_done(self) -> None:
        if self._finishing and self._resting and not self._prepared:
            self.end(self._last)

    @contextlib.contextmanager
    def phase(self, name: str, count: int = 0) -> Iterator[None]:
        """What is timed, and told of when it is over, if nothing is raised."""
        begin = time.perf_counter()
        yield
        self.told(name, time.perf_counter() - begin, count)

    @property
    def state(self) -> dict[str, Any]:
        """What it is at, for JSON; nothing secret."""
        sent, received = self._wire.sent_bytes, self._wire.received_bytes
        with self._lock:
            return {
                "client": self.client, "owner": self.owner, "model": self.model, "doing": self.doing,
                "seconds": round(time.monotonic() - self._began, 1), "prepared": self._prepared,
                "sent_bytes": sent, "received_bytes": received,
            }  # fmt: skip

    @property
    def doing(self) -> str:
        """What it does now, and for how long it has been at this command or at rest."""
        with self._lock:
            return f"{self._does}, for {time.monotonic() - self._since:.0f} s"
