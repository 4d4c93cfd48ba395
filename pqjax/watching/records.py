"""What happens at a server as plain data: one flow of records, to logs, metrics and spans alike.

A record is JSON: its `event`, its `time` (Unix, seconds), and

    began      session, client, owner, model
    done       those, and phase, seconds, at, count, and the session so far: sent_bytes,
               received_bytes, inferences, answers
    layers     those of `began`, and layers: some of the session's, each
               [phase, layer, seconds, at, sent_bytes, received_bytes]
    ended      as `done`, of the session; error, or null; phases: seconds and bytes by phase, if it is
    refused    client, error
    noted      client, text
    stopping   drain_s, sessions: client and doing of each

`at` counts seconds from the session's beginning to where the phase or layer ends. An error is its type,
its reason in one word if it has one, and its text. Every process numbers its sessions from 1. The front
of several worker processes hands on what they tell with `worker`, their number, and adds events of its
own: `worker_died` (code, sessions) is one.

What others chose is here printable and cut, and no record holds a secret.
"""

import dataclasses
import itertools
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pqjax.engine.events import Events
from pqjax.engine.visit import Visit
from pqjax.errors import PeerGone, PqjaxError
from pqjax.wire.trace import PHASES, Trace

Record = dict[str, Any]
Sink = Callable[[Record], None]
Key = tuple[int | None, int]
MOST_TEXT = 500  # characters
_MOST_LAYERS = 1000  # in one record, which may have to cross to another process in one piece
_SO_FAR = ("sent_bytes", "received_bytes", "inferences", "answers")


@dataclasses.dataclass
class _Begun:
    """A session that has not ended.

    Attributes:
      number: of this process's sessions.
      date, clock: when it began, by the calendar's and by the performance counter.
      inferences, answers: so far.
    """

    number: int
    date: float = dataclasses.field(default_factory=time.time)
    clock: float = dataclasses.field(default_factory=time.perf_counter)
    inferences: int = 0
    answers: int = 0


class Records(Events):
    """Makes a record of every event, for a sink; `layers`: of every layer, too, once it is over."""

    def __init__(self, sink: Sink, layers: bool = False):
        self._sink, self._layers = sink, layers
        self._begun: dict[Visit, _Begun] = {}
        self._numbers = itertools.count(1)

    def began(self, visit: Visit) -> None:
        """As `Events`."""
        begun = self._begun[visit] = _Begun(next(self._numbers))
        self._tell("began", visit, begun)

    def done(self, visit: Visit, phase: str, seconds: float, count: int) -> None:
        """As `Events`."""
        begun = self._begun[visit]
        at = time.perf_counter() - begun.clock
        begun.answers += count
        begun.inferences += phase == "online"
        about = {"phase": phase, "seconds": seconds, "at": at, "count": count}
        self._tell("done", visit, begun, **about, **_so_far(visit, begun))

    def ended(self, visit: Visit, trace: Trace | None, error: PqjaxError | None) -> None:
        """As `Events`; of a session that came too late to begin, too."""
        begun = self._begun.pop(visit, None) or _Begun(next(self._numbers))
        at = time.perf_counter() - begun.clock
        about: Record = {"seconds": at, "at": at, **_so_far(visit, begun)}
        about["error"] = None if error is None else fault(error)
        if trace is not None:
            about["phases"] = {phase: _sums(trace, phase) for phase in PHASES}
            if self._layers:
                layers = _layers(trace, begun)
                for first in range(0, len(layers), _MOST_LAYERS):
                    some = layers[first : first + _MOST_LAYERS]
                    self._tell("layers", visit, begun, layers=some)
        self._tell("ended", visit, begun, **about)

    def refused(self, client: str, error: PqjaxError) -> None:
        """As `Events`."""
        self._sink(event("refused", client=client, error=fault(error)))

    def noted(self, client: str, text: str) -> None:
        """As `Events`."""
        self._sink(event("noted", client=client, text=printable(text)))

    def stopping(self, visits: Sequence[Visit], drain_s: float) -> None:
        """As `Events`."""
        sessions = [{"client": visit.client, "doing": printable(visit.doing)} for visit in visits]
        self._sink(event("stopping", drain_s=drain_s, sessions=sessions))

    def _tell(self, what: str, visit: Visit, begun: _Begun, **about: Any) -> None:
        now = begun.date + time.perf_counter() - begun.clock  # ordered, whatever the calendar does
        who = {"client": visit.client, "owner": visit.owner, "model": visit.model}
        self._sink({"event": what, "time": now, "session": begun.number, **who, **about})


class Sinks:
    """Hands records to sinks, in order; what one raises keeps no other from hearing.

    A worker process that dies tells nothing of its sessions' ends: these follow its death from here.
    """

    def __init__(self, *sinks: Sink):
        self._sinks, self._begun = sinks, dict[Key, Record]()
        self._lock = threading.Lock()

    def __call__(self, record: Record) -> None:
        """Hands it on; what has no time happens now."""
        record = {"time": time.time(), **record}
        lost: list[Record] = []
        with self._lock:
            if record["event"] == "began":
                self._begun[key(record)] = dict.fromkeys(_SO_FAR, 0) | record
            elif record["event"] == "done":
                so_far = {name: record[name] for name in _SO_FAR}
                self._begun[key(record)] |= so_far
            elif record["event"] == "ended":
                self._begun.pop(key(record), None)
            elif record["event"] == "worker_died":
                theirs = [each for each in self._begun if each[0] == record["worker"]]
                lost = [self._begun.pop(each) for each in theirs]
        self._tell(record)
        for began in lost:
            error = fault(PeerGone("the worker process that served this session has died"))
            seconds = max(0.0, record["time"] - began["time"])
            about = {"time": record["time"], "seconds": seconds, "at": seconds, "error": error}
            self._tell(began | {"event": "ended"} | about)

    def _tell(self, record: Record) -> None:
        for sink in self._sinks:
            try:
                sink(record)
            except Exception:  # noqa: BLE001  a sink's fault is the sink's
                traceback.print_exc()


def event(what: str, **about: Any) -> Record:
    """A record of what happens now, and to no session."""
    return {"event": what, "time": time.time(), **about}


def key(record: Mapping[str, Any]) -> Key:
    """What tells a record's session from all others."""
    return record.get("worker"), record["session"]


def fault(error: PqjaxError) -> dict[str, str]:
    """An error as records have it."""
    reason = getattr(error, "reason", "")
    return {"type": type(error).__name__, "reason": reason, "text": printable(str(error))}


def printable(text: str, most: int = MOST_TEXT) -> str:
    """Text that cannot steer a terminal or break a line, cut where it is long."""
    told = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: most + 1])
    return told if len(told) <= most else f"{told[:most]}..."


def short(owner: str) -> str:
    """An owner as people are shown it: of a certificate's digest 12 digits."""
    kind, space, digest = owner.partition(" ")
    return f"{kind} {digest[:12]}" if space else owner


def _so_far(visit: Visit, begun: _Begun) -> Record:
    state = visit.state
    sums = {name: state[name] for name in ("sent_bytes", "received_bytes")}
    return sums | {"inferences": begun.inferences, "answers": begun.answers}


def _sums(trace: Trace, phase: str) -> Record:
    sent, received = trace.bytes(phase)
    return {"seconds": trace.seconds(phase), "sent_bytes": sent, "received_bytes": received}


def _layers(trace: Trace, begun: _Begun) -> list[list[Any]]:
    ahead = trace.origin - begun.clock
    return [
        [e.phase, e.layer, e.seconds, ahead + e.begin + e.seconds,
         e.sent_bytes, e.received_bytes]
        for e in trace.entries
    ]  # fmt: skip
