"""A server and many clients: `make exp-service`.

A crowd of clients at once, from threads and from worker processes; sessions one after the other, and
what memory does meanwhile; a worker killed again and again; how long a start takes. All clients are
processes of their own, on the same machine, and every answer is checked.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from experiments.command import parser, run
from experiments.inference import CHECKPOINTS
from experiments.processes import descendants
from experiments.record import table
from pqjax import load_model, reference, save_model
from pqjax.engine.process import settle
from pqjax.engine.sample import sample_network
from pqjax.errors import WireError
from pqjax.graph import Graph, Weights

NETWORK = "minionn_w2a4_long"
INFERENCES = 3  # of every client of a crowd
_KILL_S = 20.0
_EVERY = 50  # sessions between two looks at memory
_CLIENT_PROCESSES = 2
_ROOT = pathlib.Path(__file__).parents[1]
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(_ROOT)}


@dataclasses.dataclass
class Served:
    """A server process.

    Attributes:
      address: where it listens.
      process: itself; with workers, the front.
      start_s: from its start until it listened.
    """

    address: str
    process: subprocess.Popen
    start_s: float

    def workers(self) -> list[int]:
        """Process numbers of its workers, or its own."""
        mine = [
            pid for pid in descendants(self.process.pid) if "pqjax.service.worker" in _words(pid)
        ]
        return mine or [self.process.pid]

    def resident(self) -> int:
        """Bytes, of all its processes."""
        pids = {self.process.pid, *self.workers()}
        return sum(_resident(pid) for pid in pids)


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    return 0


@contextlib.contextmanager
def served(model: pathlib.Path, hints: pathlib.Path, *words: str) -> Iterator[Served]:
    """`pqjax serve`, ready for clients."""
    command = [sys.executable, "-m", "pqjax.cli", "serve", str(model), "--hints", str(hints)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--clients", "64", "--inferences", "100", *words],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_ENVIRONMENT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise WireError("the server did not start")
        address = line.removeprefix("listening on ")
        yield Served(address, process, time.perf_counter() - begin)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.communicate()


class Questions:
    """A network, a question, and its answer, in files for client processes."""

    def __init__(self, folder: pathlib.Path, name: str, graph: Graph, weights: Weights):
        self.model, self.file = folder / f"{name}.npz", folder / f"{name}-asked.npz"
        self.hints, self.kept = folder / "hints", folder / "kept"
        save_model(self.model, graph, weights)
        out = graph.input.out
        x = np.arange(out.n).reshape(out.shape) % (out.high - out.low + 1) + out.low
        np.savez(self.file, x=x, wanted=reference(graph, weights, x))

    def asking(self, address: str, clients: int, **options: float) -> subprocess.Popen:
        """A process with so many clients; see `experiments.crowd`."""
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.crowd", address, str(self.file), "--hints",
             str(self.kept), "--clients", str(clients), *words],
            stdout=subprocess.PIPE, text=True, cwd=_ROOT, env=_ENVIRONMENT,
        )  # fmt: skip

    def ask(self, address: str, clients: int, processes: int = 1, **options: float) -> list[dict]:
        """So many clients at once, from several processes, to their end."""
        shares = [clients // processes + (at < clients % processes) for at in range(processes)]
        running = [self.asking(address, share, **options) for share in shares if share]
        found = []
        for process in running:
            out, _ = process.communicate()
            if process.returncode:
                raise WireError("a process of clients failed")
            found += json.loads(out)
        return found


def crowd(questions: Questions, clients: int, words: list[str], name: str) -> dict:
    """So many clients at once, three inferences each; the first is left out of the seconds."""
    with served(questions.model, questions.hints, *words) as server:
        questions.ask(server.address, 1, inferences=1)  # compiled, installed, all workers ready
        time.sleep(2.0)
        processes = min(_CLIENT_PROCESSES, clients)
        begin = time.perf_counter()
        found = questions.ask(server.address, clients, processes, inferences=INFERENCES)
        took = time.perf_counter() - begin
        peak = server.resident()
    later = sorted(s for each in found for s in each["each_s"][1:])
    return {
        "server": name, "clients": clients,
        "answers": sum(len(each["each_s"]) for each in found),
        "wrong": sum(each["wrong"] for each in found),
        "errors": [each["error"] for each in found if each["error"]],
        "p50_s": float(np.quantile(later, 0.5)), "p95_s": float(np.quantile(later, 0.95)),
        "span_s": _span(found), "whole_s": took, "resident_bytes": peak, "start_s": server.start_s,
    }  # fmt: skip


def _span(found: list[dict]) -> float:
    """How long the slowest client took for all that it did."""
    return max(each["connect_s"] + sum(each["each_s"]) for each in found)


def sessions(questions: Questions, count: int, words: list[str], name: str) -> dict:
    """Sessions one after the other, and what the server takes of memory after some of them."""
    with served(questions.model, questions.hints, *words) as server:
        questions.ask(server.address, 1, inferences=1)
        resident, wrong, errors = [], 0, []
        for _ in range(0, count, _EVERY):
            for each in questions.ask(server.address, 1, turns=_EVERY):
                wrong += each["wrong"]
                errors += [each["error"]] if each["error"] else []
            resident.append(server.resident())
    return {
        "server": name, "sessions": count, "wrong": wrong, "errors": errors,
        "resident_bytes": resident,
    }  # fmt: skip


def storm(questions: Questions, seconds: float, workers: int) -> dict:
    """A worker is killed every 20 s while clients come and go: who suffers?"""
    words = ["--workers", str(workers)]
    with served(questions.model, questions.hints, *words) as server:
        questions.ask(server.address, 1, inferences=1)
        time.sleep(3.0)
        options = {"inferences": INFERENCES, "seconds": seconds}
        asking = questions.asking(server.address, 2 * workers, **options)
        killed = 0
        end = time.monotonic() + seconds
        while time.monotonic() + _KILL_S < end:
            time.sleep(_KILL_S)
            alive = server.workers()
            if len(alive) == workers:  # the last one killed has been replaced
                os.kill(alive[killed % workers], signal.SIGKILL)
                killed += 1
        found = json.loads(asking.communicate()[0])
    if not killed and seconds > 2 * _KILL_S:
        raise WireError("no worker was killed: that was no storm")
    failed = [each["error"] for each in found if each["error"]]
    return {
        "workers": workers, "seconds": seconds, "killed": killed, "sessions": len(found),
        "failed": len(failed), "errors": sorted(set(failed)), "at_once": 2 * workers,
        "wrong": sum(each["wrong"] for each in found),
    }  # fmt: skip


def compute(args: argparse.Namespace) -> dict:
    """Everything."""
    settle()
    graph, weights, _ = load_model(CHECKPOINTS / f"{NETWORK}.npz")
    runs: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        asked = Questions(place, "minionn", graph, weights)
        small = Questions(place, "small", *sample_network())
        servers = {"threads": [], "1 worker": ["--workers", "1"], "2 workers": ["--workers", "2"]}
        for name, words in servers.items():
            for clients in (1, args.clients):
                _say(f"{clients} clients, {name} ...")
                runs.append(crowd(asked, clients, words, name))
        ordered = {}
        for name in ("threads", "2 workers"):
            _say(f"{args.sessions} sessions, {name} ...")
            ordered[name] = sessions(small, args.sessions, servers[name], name)
        _say(f"a worker killed every {_KILL_S:g} s ...")
        storms = storm(asked, args.storm, 2)
    config = {"network": NETWORK, "seed": None, "inferences": INFERENCES}
    return {"config": config, "runs": runs, "sessions": ordered, "storm": storms}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(tree: dict) -> str:
    """Tables of all."""
    rows = [
        {
            "server": row["server"], "clients": row["clients"], "answers": row["answers"],
            "wrong": row["wrong"], "failed": len(row["errors"]), "p50 s": row["p50_s"],
            "p95 s": row["p95_s"], "answers a second": row["answers"] / row["span_s"],
            "server GB": row["resident_bytes"] / 1e9, "start s": row["start_s"],
        }
        for row in tree["runs"]
    ]  # fmt: skip
    flat = [
        {
            "server": name, "sessions": each["sessions"], "wrong": each["wrong"],
            "failed": len(each["errors"]),
            **{f"MB after {n}": each["resident_bytes"][at] / 1e6 for n, at in _looks(each)},
            "MB per 100 sessions": _slope(each) / 1e6,
        }
        for name, each in tree["sessions"].items()
    ]  # fmt: skip
    told, failed = tree["storm"], ", ".join(tree["storm"]["errors"]) or "no error"
    return (
        f"# Many clients\n\nNetwork {tree['config']['network']}, by `pqjax`, loopback, server and "
        "clients on one machine. Seconds are those of an inference, offline and online phase, of all "
        "but every client's first.\n\n"
        + table(rows)
        + "\n\nSessions one after the other, of a small network, a connection and an inference each; "
        "memory resident of all the server's processes, the slope over the second half.\n\n"
        + table(flat)
        + f"\n\nFor {told['seconds']:g} s {told['at_once']} clients came again and again to a server "
        f"with {told['workers']} workers, of which one was killed every {_KILL_S:g} s: {told['killed']} "
        f"times. Of {told['sessions']} sessions {told['failed']} failed, with {failed}; "
        f"{told['wrong']} answers were wrong.\n"
    )


def _looks(each: dict) -> list[tuple[int, int]]:
    n = len(each["resident_bytes"])
    return [((at + 1) * _EVERY, at) for at in (0, n // 2, n - 1)]


def _slope(each: dict) -> float:
    """Bytes in a hundred sessions, over the second half."""
    half = each["resident_bytes"][len(each["resident_bytes"]) // 2 :]
    if len(half) < 2:
        return 0.0
    return float(np.polyfit(np.arange(len(half)) * _EVERY, half, 1)[0]) * 100


def main(arguments: list[str] | None = None) -> int:
    """Runs everything and writes `results/service.json` and `.md`."""
    options = parser("exp-service", __doc__)
    options.add_argument("--clients", type=int, default=16, help="at once")
    options.add_argument("--sessions", type=int, default=1000, help="one after the other")
    options.add_argument("--storm", type=float, default=300.0, help="seconds")
    return run(options, compute, report, arguments)


if __name__ == "__main__":
    sys.exit(main())
