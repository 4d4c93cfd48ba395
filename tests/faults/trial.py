"""One trial after the other: a client and a server, a proxy between them, and how each of them ends."""

import contextlib
import datetime
import json
import pathlib
import queue
import subprocess
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import evidence
import numpy as np
from networks import ENCRYPTED
from proxy import CLIENT, SERVER, Act, Place, Proxy, Seen
from serving import GRAPH, HEARING, WEIGHTS, Ends, X, answers, served_process, serving

import pqjax
from pqjax.errors import PqjaxError
from pqjax.planner import plan
from pqjax.planner.plan import BEGIN_LAYER, STOCK_LAYER
from pqjax.wire.lobby import GREETING_S
from pqjax.wire.trace import Trace

PLAN = plan(GRAPH, ENCRYPTED, inferences=1)  # with hints, silent OTs and circuits
RIGHT = pqjax.reference(GRAPH, WEIGHTS, X)
DEADLINE_S, IDLE_S = 2.0, 3.0  # of servers here
SLACK_S = 2.0  # after a deadline
PATIENT_S = 60.0
_UNTYPED = "internal error in this session"  # what a server makes of an error of no type

# `pqjax serve` for which small layers are encrypted, too, and which tells of every refusal.
SERVED = """import sys
sys.path.insert(0, "tests")
import networks
from pqjax.planner import PRESETS
from pqjax.watching.logs import Refusals
PRESETS["encrypted"], Refusals.most = networks.ENCRYPTED, 10**9
"""


class End(NamedTuple):
    """How one side ended.

    Attributes:
      what: the type of its error, "untyped ...", "done" of a server, or "right answer" or "wrong
        answer" of a client.
      reason: the error's, in one word, if it has one.
      text: the error's.
      at: when, by the calendar's clock.
    """

    what: str
    reason: str = ""
    text: str = ""
    at: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.what} ({self.reason})" if self.reason else self.what


def end_of(error: BaseException, at: float | None = None) -> End:
    """As an error says it."""
    at = time.time() if at is None else at
    if not isinstance(error, PqjaxError):
        return End(
            f"untyped {type(error).__name__}", "", "".join(traceback.format_exception(error)), at
        )
    reason, text = getattr(error, "reason", ""), str(error)
    return End("untyped" if _UNTYPED in text else type(error).__name__, reason, text, at)


def ask(address: str, deadline_s: float = PATIENT_S, **options: Any) -> End:
    """A client, from connecting to its answer and goodbye."""
    try:
        with pqjax.connect(address, deadline_s=deadline_s, **options) as session:
            session.install()
            session.prepare()
            y = session.infer(X).output
    except Exception as error:
        return end_of(error)
    return End("right answer" if np.array_equal(y, RIGHT) else "wrong answer", at=time.time())


class InThread:
    """A server in a thread of this process.

    Attributes:
      address: where it listens.
    """

    def __init__(self, address: str, ends: queue.Queue):
        self.address, self._ends = address, ends

    def ended(self, within_s: float) -> End | None:
        """How the next connection ends; None if none does in time."""
        try:
            found, at = self._ends.get(timeout=within_s)
        except queue.Empty:
            return None
        return End("done", at=at) if isinstance(found, Trace) else end_of(found, at)


class Stamped(queue.Queue):
    """Knows when what it holds came."""

    def put(self, item, block=True, timeout=None):
        super().put((item, time.time()), block, timeout)


@contextlib.contextmanager
def in_thread(**options: Any) -> Iterator[InThread]:
    """A server in a thread, with the deadlines of servers here."""
    ends = Stamped()
    options = {"deadline_s": DEADLINE_S, "idle_s": IDLE_S, "plan": PLAN} | options
    with serving(events=Ends(ends), **options) as (address, _):
        yield InThread(address, ends)


class InProcess:
    """`pqjax serve` in a process of its own.

    Attributes:
      address: where it listens.
      process: it.
      model: its file; the folder it is in has all its files.
    """

    def __init__(self, address: str, process: subprocess.Popen, log: pathlib.Path):
        self.address, self.process, self._log, self._at = address, process, log, 0
        self._records: list[dict] = []
        self.model = log.parent / "net.npz"

    def ended(self, within_s: float) -> End | None:
        """As `InThread`."""
        told = self.told(within_s, "ended", "refused")
        if told is None:
            return None
        at = datetime.datetime.fromisoformat(told["time"]).timestamp()
        error = told["error"]
        if error is None:
            return End("done", at=at)
        what = "untyped" if _UNTYPED in error["text"] else error["type"]
        return End(what, error["reason"], error["text"], at)

    def told(self, within_s: float, *events: str) -> dict | None:
        """The next record of one of these events; None if it does not come in time."""
        until = time.monotonic() + within_s
        while True:
            self._read()
            while self._records:
                told = self._records.pop(0)
                if told["event"] in events:
                    return told
            if time.monotonic() > until:
                return None
            time.sleep(0.01)

    def _read(self) -> None:
        with self._log.open("rb") as file:
            file.seek(self._at)
            came = file.read()
        whole = came[: came.rfind(b"\n") + 1]
        self._at += len(whole)
        self._records += [json.loads(line) for line in whole.splitlines() if line[:1] == b"{"]


@contextlib.contextmanager
def in_process(folder: pathlib.Path, *words: Any, before: str = "") -> Iterator[InProcess]:
    """`pqjax serve` with a log, short deadlines, and `before` run in it first.

    Its model, hints and log are in the folder.
    """
    log = folder / "log"
    words = ("--deadline", DEADLINE_S, "--idle", IDLE_S, "--inferences", 1, *words)
    words += ("--protocol", "encrypted", "--log", "json", "--hints", folder / "hints")
    with log.open("wb") as to:
        program = before + SERVED + HEARING
        with served_process(folder, *words, program=program, stderr=to) as (address, process):
            yield InProcess(address, process, log)


Server = InThread | InProcess


class Trial(NamedTuple):
    """What came of one: both ends, when the fault was, and the frames that went on before and after."""

    client: End
    server: End | None
    acted_at: float | None
    seen: tuple[Seen, ...]

    @property
    def seconds(self) -> float:
        """From the fault to the later of both ends."""
        assert self.acted_at is not None
        ends = [self.client, *([self.server] if self.server else [])]
        return max(0.0, *(end.at - self.acted_at for end in ends))


def through(
    server: Server, acts: Mapping[Place, Act], within_s: float = 10.0, **options: Any
) -> Trial:
    """A client that asks through a proxy which acts."""
    framed, met = options.pop("framed", True), options.pop("met", None)
    while server.ended(0.0):  # what came too late for the trial before
        pass
    with Proxy(server.address, acts, framed=framed, met=met) as proxy:
        client = ask(proxy.address, **options)
        served = server.ended(within_s)
    return Trial(client, served, proxy.acted_at, tuple(proxy.seen))


def still_serves(server: Server, **options: Any) -> None:
    """A good client gets the right answer, and the server says that all was well."""
    answers(server.address, deadline_s=PATIENT_S, **options)
    end = server.ended(10.0)
    assert end is not None and end.what == "done", end


class Known(NamedTuple):
    """A frame of a good session: where it is, to what it belongs, how many bytes it carries."""

    place: Place
    phase: str
    layer: str
    nbytes: int

    @property
    def label(self) -> str:
        who = "server" if self.place.sender == SERVER else "client"
        lane = f", lane {self.place.lane}" if self.place.lane else ""
        return f"{self.phase}/{self.layer}: the {who}'s frame {self.place.step}{lane}"


def known_frames(seen: tuple[Seen, ...], traces: tuple[Trace, Trace]) -> list[Known]:
    """The frames of a good session, by both sides' traces, in the order in which they went by.

    Before the layers' is the greeting, which no trace has; frames beside the protocol's lane are of the
    random OTs that are made meanwhile.
    """
    labels: dict[Place, tuple[str, str]] = {}
    for sender in (SERVER, CLIENT):
        places = [place for place, _ in seen if place.sender == sender]
        beside = [place for place in places if place.lane]
        labels |= dict.fromkeys(beside, ("offline", STOCK_LAYER))
        own: list[tuple[str, str]] = []
        for entry in traces[sender].entries:
            stock = (entry.phase, entry.layer) == ("offline", STOCK_LAYER)
            label = (
                ("goodbye", BEGIN_LAYER) if entry.inference is None else (entry.phase, entry.layer)
            )
            own += [label] * (entry.messages - (len(beside) if stock else 0))
        main = sorted(place for place in places if not place.lane)
        greeting = len(main) - len(own)
        own = [("greeting", "greeting")] * greeting + own
        labels |= dict(zip(main, own, strict=True))
    return [Known(place, *labels[place], len(piece) - 16) for place, piece in seen]


def good_session() -> list[Known]:
    """The frames of one, between a client and a server of this process; all is compiled then."""
    ends: queue.Queue = queue.Queue()
    with serving(plan=PLAN, deadline_s=PATIENT_S, events=Ends(ends)) as (address, _):
        with Proxy(address) as proxy:
            with pqjax.connect(proxy.address, deadline_s=PATIENT_S) as session:
                session.install()
                session.prepare()
                np.testing.assert_array_equal(session.infer(X).output, RIGHT)
            served = ends.get(timeout=30)
        seen = tuple(proxy.seen)
    assert isinstance(served, Trace), served
    return known_frames(seen, (served, session.trace))


def groups(frames: list[Known]) -> dict[str, list[Known]]:
    """The frames by where they are: the greeting, what is set up and installed, phases, layers."""
    found: dict[str, list[Known]] = {}
    for known in frames:
        found.setdefault(f"{known.phase}/{known.layer}", []).append(known)
    return found


def limit_of(known: Known, living: int) -> float:
    """How long a living side waits at the most where the other one falls silent at a frame."""
    if living == SERVER and known.phase == "greeting":
        return GREETING_S
    return IDLE_S if living == SERVER and known.layer == BEGIN_LAYER else DEADLINE_S


def judged(
    group: str, case: str, trial: Trial, client: set[str], server: set[str], limit_s: float = 0.0
) -> list[str]:
    """What is wrong with a trial: no typed error, another than expected, or too late. A row of evidence.

    Args:
      group: what was done.
      case: and where.
      trial: what came of it.
      client: how the client may end, and the server.
      limit_s: the deadline that ends it, if any.
    """
    wrong = []
    told = trial.server or End("nothing in time")
    for side, end, expected in (("client", trial.client, client), ("server", told, server)):
        if end.name not in expected:
            wrong.append(
                f"{side}: {end.name}, expected {' or '.join(sorted(expected))}: {end.text}"
            )
    if trial.acted_at is None:
        wrong.append("the fault never happened")
        seconds = 0.0
    else:
        seconds = trial.seconds
        if seconds > limit_s + SLACK_S:
            wrong.append(f"after {seconds:.1f} s, expected at most {limit_s:g} + {SLACK_S:g} s")
    note(group, case, wrong, trial.client.name, told.name, seconds, limit_s)
    return [f"{group}, {case}: {each}" for each in wrong]


def note(
    group: str,
    case: str,
    wrong: list[str],
    client: str,
    server: str,
    seconds: float,
    limit_s: float,
) -> None:
    """The row of evidence."""
    outcome = "failed" if wrong else "survived"
    about = {"group": group, "client": client, "server": server}
    evidence.record("faults", case, outcome, **about, seconds=round(seconds, 2), limit_s=limit_s)


@contextlib.contextmanager
def case(group: str, name: str, client: str = "", server: str = "") -> Iterator[None]:
    """Records a case whose assertions are in the block; `client` and `server`: how they are to end.

    Its seconds are the block's, good clients' included.
    """
    began, wrong = time.monotonic(), ["it raised"]
    try:
        yield
        wrong = []
    finally:
        note(group, name, wrong, client, server, time.monotonic() - began, 0.0)
