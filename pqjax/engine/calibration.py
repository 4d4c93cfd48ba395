"""What a unit of work takes this machine: found by running networks and asking what explains the time.

Two processes on loopback run a sample network by several protocols, as a server and a client do. Of
every layer the trace tells how long each party computed, and the plan how much of which unit that was.
The rates are those of least relative error, none negative, and the nominal ones where nothing tells.

    python -m pqjax.engine.calibration   the server's process
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pqjax.engine.client import connect
from pqjax.engine.events import Events
from pqjax.engine.process import settle
from pqjax.engine.sample import sample_network
from pqjax.engine.server import Server
from pqjax.engine.visit import Visit
from pqjax.errors import PqjaxError, WireError
from pqjax.ot.silent import Silent
from pqjax.ot.stocked import SoftSpoken
from pqjax.planner.choose import plan
from pqjax.planner.plan import BEGIN_LAYER, STOCK_LAYER, Plan
from pqjax.planner.presets import find_preset
from pqjax.wire.timeline import NOMINAL, Timeline
from pqjax.wire.trace import Entry, Trace
from pqjax.wire.work import UNITS, Rates, Sent, walk

INFERENCES = 4
_SESSIONS = (1, INFERENCES)  # of every plan; the first compiles, rounds of OTs too
_FLOOR_S = 1e-3  # times are compared relative to themselves and so much more
_TRUST = 0.05  # in the nominal rates, beside a measured time's 1
_SWEEPS, _ROUNDS = 300, 8
_USUAL = 0.1  # by what part a time may be missed and count in full


class Observed(NamedTuple):
    """What one party did in a layer, and in what time."""

    amounts: tuple[float, ...]  # by unit
    seconds: float


class Session(NamedTuple):
    """A plan that was run, and both parties' traces of it, by rank."""

    plan: Plan
    traces: tuple[Trace, Trace]


def plans() -> list[Plan]:
    """Plans that between them take every unit."""
    graph, _ = sample_network()
    made = []
    for name, source in (
        ("pqjax", Silent(("b12", "b11"))),
        ("pqjax", Silent(("b13", "b10"))),
        ("pqjax-ot", SoftSpoken(4)),
        ("privquant", None),
    ):
        preset = find_preset(name)
        preset = preset if source is None else dataclasses.replace(preset, source=source)
        made.append(plan(graph, preset))
    return made


def calibrate() -> Rates:
    """This machine's rates, measured anew; takes half a minute and both parties' cores.

    Raises:
      WireError: the server's process ended early.
    """
    sessions = run_sessions(plans())
    rates = fitted([x for session in sessions for x in observed(session)])
    return dataclasses.replace(rates, turn_s=turn_seconds(sessions, rates), source="measured")


def run_sessions(made: Sequence[Plan]) -> list[Session]:
    """Runs each plan of the sample network in two processes, this one the client."""
    graph, _ = sample_network()
    x = np.arange(graph.input.out.n).reshape(graph.input.out.shape) % (1 << graph.input.out.bits)
    command, pipe = [sys.executable, "-m", __spec__.name], subprocess.PIPE
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": path}
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    assert server.stdin is not None and server.stdout is not None
    traces = []
    try:
        for each in made:
            address = server.stdout.readline().strip()
            if not address:
                raise WireError("the server's process ended before it listened")
            for count in _SESSIONS:
                with connect(address, plan=each) as session:
                    for _ in range(count):
                        session.infer(x)
                theirs = [Entry(**entry) for entry in json.loads(server.stdout.readline())]
            traces.append((Trace(theirs), session.trace))
    finally:
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()
    return [Session(*each) for each in zip(made, traces, strict=True)]


def _serve() -> None:
    """The server's half of `run_sessions`: an address, then the trace, of every plan."""
    settle()
    _, weights = sample_network()
    for each in plans():
        server = Server(each, weights, "127.0.0.1:0", events=_Teller())
        print(server.address, flush=True)
        server.run(len(_SESSIONS))


class _Teller(Events):
    """Prints the traces of sessions."""

    def ended(self, visit: Visit, trace: Trace | None, error: PqjaxError | None) -> None:
        """As `Events`."""
        if trace is None:
            raise WireError(f"no trace: {error}")
        print(json.dumps(trace.to_json()), flush=True)


def observed(session: Session) -> Iterator[Observed]:
    """What either party did in every layer but those that wait for a command, at its quickest."""
    for rank, trace in enumerate(session.traces):
        quickest: dict[tuple, float] = {}
        for i in range(INFERENCES):
            lines = session.plan.schedule(i)
            for line, entry in zip(lines, trace.of(i).entries, strict=True):
                if line.layer == BEGIN_LAYER or (not i and line.layer != STOCK_LAYER):
                    continue
                amounts, computing = _amounts(line.cost, rank), _computing(entry)
                key = line.phase, line.layer, amounts
                quickest[key] = min(computing, quickest.get(key, computing))
        for (*_, amounts), computing in quickest.items():
            yield Observed(amounts, computing)


def _computing(entry: Entry) -> float:
    return entry.seconds - entry.wait_seconds - entry.send_seconds


def _amounts(cost, rank: int) -> tuple[float, ...]:
    done = {unit: each[rank] for unit, each in cost.work.items()}
    done["bits"] = cost.bits
    sent = [(leaf, n) for leaf, n in walk(cost.part) if isinstance(leaf, Sent)]
    done["messages"] = sum(sum(b is not None for b in leaf.bits) * n for leaf, n in sent)
    return tuple(float(done.get(unit, 0)) for unit in UNITS)


def fitted(seen: Sequence[Observed]) -> Rates:
    """The rates that explain the times best."""
    nominal = np.array(NOMINAL.seconds)
    amounts = np.array([x.amounts for x in seen]).reshape(-1, len(UNITS)) * nominal
    times = np.array([x.seconds for x in seen])
    scale = 1 / (times + _FLOOR_S)
    trust = _TRUST * len(seen) ** 0.5 * np.eye(len(UNITS))
    found = np.ones(len(UNITS))
    for _ in range(_ROUNDS):  # a time that something else took counts less with every round
        missed = np.abs(times - amounts @ found) * scale
        each = scale / np.sqrt(np.maximum(missed, _USUAL))
        left = np.concatenate([amounts * each[:, None], trust])
        found = _nonnegative(left, np.concatenate([times * each, trust.sum(0)]))
    found *= nominal
    return Rates(tuple(map(float, found)), NOMINAL.turn_s)


def _nonnegative(
    a: Float[np.ndarray, "n m"], b: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " m"]:
    """The x >= 0 of least |a x - b|, coordinate by coordinate."""
    square, aim = a.T @ a, a.T @ b
    x = np.ones(len(aim))
    for _ in range(_SWEEPS):
        for i in range(len(x)):
            x[i] = max(0.0, x[i] + (aim[i] - square[i] @ x) / square[i, i])
    return x


def turn_seconds(sessions: Sequence[Session], rates: Rates) -> float:
    """What a flow takes beside work: of layers of many, by the client's clock."""
    line = Timeline(None, dataclasses.replace(rates, turn_s=0.0))
    found = []
    for each in sessions:
        for x, entry in zip(each.plan.schedule(1), each.traces[1].of(1).entries, strict=True):
            if x.cost.flows >= 4:
                found.append((entry.seconds - line.seconds(x.cost)) / x.cost.flows)
    return max(0.0, statistics.median(found))


if __name__ == "__main__":
    _serve()
