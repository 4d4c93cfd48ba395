"""One picture's inference, from the upload to the answer, as the page is told of it."""

import io
import pathlib
import time
from typing import Any

import numpy as np

from pqjax.answers import likeliest
from pqjax.engine import Session, connect
from pqjax.errors import DataError
from pqjax.graph import Graph
from pqjax.questions import Picture, fitted
from pqjax.web.noise import as_png, entropy
from pqjax.web.outlook import Outlook
from pqjax.web.problem import Problem
from pqjax.web.served import Served
from pqjax.web.tap import Tap
from pqjax.web.way import Way
from pqjax.wire.trace import PHASES, Trace

_TOP = 10
_DYING_S = 1.0  # what breaks first, when a server's process dies, is the connection


class Inquiry:
    """A picture that is asked about.

    Attributes:
      number: of all that were asked in this start, from 1.
      done: whether there is an answer, or none will come.
    """

    def __init__(self, number: int, name: str, graph: Graph, picture: Picture, shorter: int | None):
        """Fits the picture to the network.

        Raises:
          DataError: the network takes no pictures.
        """
        batch, self._fitted = fitted(graph, picture, shorter)
        self.number, self._name, self._x, self._graph = number, name, batch[0], graph
        self._stage, self._preset = "waiting", ""
        self._way: Way | None = None
        self._session: Session | None = None
        self._tap: Tap | None = None
        self._trace, self._server_trace = Trace(), []
        self._wire, self._sample = (0, 0), b""
        self._began, self._seconds = 0.0, 0.0
        self._classes: list[dict[str, Any]] = []
        self._problem: Problem | None = None
        self._exact: bool | None = None

    @property
    def done(self) -> bool:
        """Whether it is over, with an answer or without."""
        return self._stage in ("done", "failed")

    def run(self, served: Served, outlook: Outlook, hints: pathlib.Path) -> None:
        """Asks the server; whatever goes wrong is told by `state`."""
        self._preset, self._way = outlook.told["name"], Way(outlook)
        self._stage, self._began = "connecting", time.monotonic()
        try:
            if gone := served.gone():
                raise gone
            with Tap(served.address) as self._tap:
                self._ask(self._tap.address, hints)
            self._server_trace = served.trace()
            self._stage = "done"
        except BaseException as error:
            gone = served.gone(_DYING_S)
            problem = Problem.of(gone or error)
            if gone:
                problem.remedy = "choose a preset: that starts another server"
            self.fail(problem)
        finally:
            self._seconds = time.monotonic() - self._began
            self._look()
            self._session = self._tap = None

    def fail(self, problem: Problem) -> None:
        """No answer will come."""
        self._problem, self._stage = problem, "failed"

    def _ask(self, address: str, hints: pathlib.Path) -> None:
        with connect(address, hints=hints, progress=self._way) as self._session:
            self._stage = "running"
            made = self._session.plan
            y = self._session.infer(self._x).output
            self._seconds = time.monotonic() - self._began
            self._classes = likeliest(made.source, y, made.classes, _TOP)
        self._exact = not made.differences(self._session.trace, 1)

    def _look(self) -> None:
        """Keeps what has gone over the wire so far."""
        tap, session = self._tap, self._session
        if tap is not None:
            self._wire, self._sample = (tap.sent, tap.received), tap.sample
        if session is not None:
            self._trace = session.trace

    @property
    def state(self) -> dict[str, Any]:
        """For JSON."""
        self._look()
        way, over = self._way, self.done
        seconds = self._seconds if over else time.monotonic() - self._began
        return {
            "number": self.number,
            "name": self._name,
            "fitted": self._fitted,
            "preset": self._preset,
            "stage": self._stage,
            "phase": way.phase if way and not over else "",
            "layer": way.layer if way and not over else "",
            "fraction": 1.0 if self._stage == "done" else round(way.fraction, 4) if way else 0.0,
            "left": None if way is None or over else round(way.left_s),
            "seconds": 0.0 if way is None else round(seconds, 1 if over else 0),
            "bytes": {
                phase: dict(zip(("sent", "received"), self._trace.bytes(phase), strict=True))
                for phase in PHASES
            },
            "wire": dict(zip(("sent", "received"), self._wire, strict=True)),
            "entropy": entropy(self._sample),
            "classes": self._classes,
            "exact": self._exact,
            "error": None if self._problem is None else self._problem.tree["error"],
        }

    @property
    def noise(self) -> bytes:
        """PNG of the last bytes that the server got."""
        self._look()
        return as_png(self._sample)

    @property
    def picture(self) -> bytes:
        """PNG of what the network is asked about: it stays in this process."""
        return picture_png(self._graph, self._x)

    @property
    def timeline(self) -> dict[str, list[list[Any]]]:
        """Both parties' layers: phase, layer, begin, seconds and, of these, seconds it waited."""
        return {"client": _spans(self._trace.to_json()), "server": _spans(self._server_trace)}


def picture_png(graph: Graph, x: np.ndarray) -> bytes:
    """A picture of a network's input.

    Raises:
      DataError: the input is none.
    """
    from PIL import Image

    out = graph.input.out
    if len(out.shape) != 3 or out.shape[2] not in (1, 3):
        raise DataError(f"a picture expected, got an input of shape {out.shape}")
    pixels = (x + (128 if out.signed else 0)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if out.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _spans(entries: list[dict[str, Any]]) -> list[list[Any]]:
    found = []
    for e in entries:
        if e["inference"] is not None:
            waited = e["wait_seconds"] + e["send_seconds"]
            row = [e["phase"], e["layer"], *(round(e[k], 4) for k in ("begin", "seconds"))]
            found.append([*row, round(min(waited, e["seconds"]), 4)])
    return found
