"""What `pqjax demo` has behind its page: a network, a server's process, and pictures to ask about.

One thread does everything in turn: makes the network, starts the server, asks it, changes the preset.
Requests leave work for it, and read `state`.
"""

import collections
import pathlib
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pqjax.engine.process import cache_folder
from pqjax.errors import DataError, PqjaxError
from pqjax.graph import Graph, load_model
from pqjax.planner.report import format_of
from pqjax.questions import Picture
from pqjax.web.inquiry import Inquiry
from pqjax.web.network import committed, made
from pqjax.web.outlook import SHOWN, Outlook, foreseen
from pqjax.web.problem import Problem
from pqjax.web.served import Served

_KEPT = 8  # pictures, the latest
_MOST_WAITING = 4


class Demo:
    """The demo's state, and the thread that changes it. Use as a context manager."""

    def __init__(self, model: pathlib.Path | None, preset: str, quick: bool = False):
        """Starts at once, and is ready later: see `state`.

        Args:
          model: a network file; None for the one to show, or a small one if `quick`.
          preset: of `SHOWN`, the first to run.
          quick: do without a network that has to be made first.
        """
        self._model, self._quick, self._chosen = model, quick, preset
        self._folder = tempfile.TemporaryDirectory(prefix="pqjax-demo-")
        self._graph: Graph | None = None
        self._meta: dict[str, Any] = {}
        self._served: Served | None = None
        self._outlooks: dict[str, Outlook | Problem] = {}
        self._inquiries: collections.deque[Inquiry] = collections.deque(maxlen=_KEPT)
        self._count, self._lock = 0, threading.Lock()
        self._stage, self._text, self._part = "making", "the network", (0, 0)
        self._note, self._since = "", time.monotonic()
        self._problem: Problem | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="pqjax-demo", daemon=True)
        self._thread.start()

    # What requests may do.

    def ask(self, picture: Picture) -> Inquiry:
        """Asks about a picture, when those before it are done.

        Raises:
          Problem: the demo is not ready, too many wait, or the network takes no pictures.
        """
        with self._lock:
            graph = self._graph
            if graph is None or not self._outlooks:
                raise Problem(
                    503, "NotReady", "the network is not there yet", "a demo that is ready",
                    f"one that is {self._stage} {self._text}", "wait: the page says when it is",
                )  # fmt: skip
            waiting = sum(not each.done for each in self._inquiries)
            if waiting >= _MOST_WAITING:
                raise Problem(
                    503, "Busy", f"{waiting} pictures wait already", f"at most {_MOST_WAITING}",
                    "one more", "wait for an answer",
                )  # fmt: skip
            try:
                inquiry = Inquiry(
                    self._count + 1, picture.path, graph, picture, self._meta.get("shorter")
                )
            except DataError as error:
                raise Problem(
                    400, "DataError", str(error), f"what fits {list(graph.input.out.shape)}",
                    "a picture", "start the demo with a network that takes pictures",
                ) from error  # fmt: skip
            self._count += 1
            self._inquiries.append(inquiry)
        self._jobs.put(lambda: self._inquire(inquiry))
        return inquiry

    def choose(self, preset: str) -> None:
        """Runs another preset from now on: its server starts when what waits is done.

        Raises:
          Problem: there is no such preset, or it cannot run the network.
        """
        if preset not in SHOWN:
            known = ", ".join(SHOWN)
            raise Problem(
                400, "PlanError", "unknown preset", f"one of {known}", preset[:60], "choose one"
            )
        outlook = self._outlooks.get(preset)
        if isinstance(outlook, Problem):
            raise outlook
        self._jobs.put(lambda: self._start(preset))

    def inquiry(self, number: int) -> Inquiry:
        """One of the latest.

        Raises:
          Problem: it is none.
        """
        with self._lock:
            for each in self._inquiries:
                if each.number == number:
                    return each
        raise Problem(
            404, "NotFound", "there is no such picture any more", f"one of the last {_KEPT}",
            f"number {number}", "ask again about it",
        )  # fmt: skip

    def steps(self, preset: str) -> Sequence[Mapping[str, Any]]:
        """What every layer is predicted to cost.

        Raises:
          Problem: nobody has planned it.
        """
        outlook = self._outlooks.get(preset)
        if isinstance(outlook, Outlook):
            return outlook.steps
        known = ", ".join(name for name in SHOWN if name in self._outlooks) or "none yet"
        problem = Problem(
            404, "NotFound", "there is no plan", f"one of {known}", preset[:60], "choose another"
        )
        raise outlook or problem

    @property
    def state(self) -> dict[str, Any]:
        """For JSON: what the page shows."""
        with self._lock:
            inquiries = [each.state for each in self._inquiries]
        presets = []
        for name in SHOWN:
            outlook = self._outlooks.get(name)
            told = outlook.told if isinstance(outlook, Outlook) else {"name": name}
            error = outlook.tree["error"] if isinstance(outlook, Problem) else None
            presets.append({**told, "error": error})
        return {
            "stage": self._stage,
            "doing": self._text,
            "part": self._part,
            "since": round(time.monotonic() - self._since),
            "note": self._note,
            "error": None if self._problem is None else self._problem.tree["error"],
            "network": self._network(),
            "presets": presets,
            "chosen": self._chosen,
            "inquiries": inquiries,
        }

    def _network(self) -> dict[str, Any] | None:
        if self._graph is None or self._model is None:
            return None
        out = self._graph.input.out
        return {
            "name": str(self._meta.get("network", self._model.stem)),
            "input": list(out.shape),
            "format": format_of(out),
            "layers": sum(1 for _ in self._graph),
            "classes": len(self._meta.get("classes") or ()),
        }

    # What the thread does.

    def _work(self) -> None:
        self._jobs.put(self._begin)
        while job := self._jobs.get():
            try:
                job()
            except BaseException as error:
                self._problem = Problem.of(error)
                self._enter("failed", "")

    def _enter(self, stage: str, text: str) -> None:
        self._stage, self._text, self._part, self._since = stage, text, (0, 0), time.monotonic()

    def _begin(self) -> None:
        if self._model is None:
            self._model = self._found()
        self._enter("planning", self._model.stem)
        graph, _, self._meta = load_model(self._model)  # the client keeps no weights
        with self._lock:
            self._graph = graph
        self._start(self._chosen)
        threading.Thread(target=self._look_around, name="pqjax-plans", daemon=True).start()

    def _found(self) -> pathlib.Path:
        if not self._quick:
            try:
                return made(self._tell)
            except DataError as error:
                self._note = f"a small network instead of EfficientNet-Lite0: {error}"
        return committed()

    def _tell(self, what: str, done: int, steps: int) -> None:
        self._text, self._part = what, (done, steps)

    def _look_around(self) -> None:
        for preset in SHOWN:
            self._look_out(preset)

    def _look_out(self, preset: str) -> None:
        if preset not in self._outlooks:
            assert self._model is not None
            try:
                self._outlooks[preset] = foreseen(self._model, preset)
            except PqjaxError as error:
                self._outlooks[preset] = Problem.of(error)

    def _start(self, preset: str) -> None:
        """Starts a preset's server in the place of the one there is."""
        self._end_server()
        self._problem, self._chosen = None, preset
        assert self._model is not None
        self._enter("starting", preset)
        folder = pathlib.Path(self._folder.name)
        self._served = Served(self._model, preset, folder)
        self._look_out(preset)  # meanwhile
        outlook = self._outlooks[preset]
        try:
            if isinstance(outlook, Problem):
                raise outlook
            self._served.wait()
        except BaseException:
            self._end_server()
            raise
        self._enter("ready", preset)

    def _end_server(self) -> None:
        served, self._served = self._served, None
        if served is not None:
            served.close()

    def _inquire(self, inquiry: Inquiry) -> None:
        outlook = self._outlooks[self._chosen]
        if self._served is None or isinstance(outlook, Problem):
            inquiry.fail(self._problem or Problem(503, "NotReady", "there is no server"))
        else:
            inquiry.run(self._served, outlook, cache_folder() / "demo" / "hints")

    def close(self) -> None:
        """Ends the server's process, and leaves what is under way."""
        self._jobs.put(None)
        self._end_server()
        if self._stage != "making":
            self._thread.join(5)
        self._folder.cleanup()

    def __enter__(self) -> "Demo":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
