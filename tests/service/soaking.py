"""What the soak tests do to a real server, `pqjax serve`: clients of all sorts, and its operator."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
from peers import HELLO, RECORD, reset, silent
from serving import GRAPH, HEARING, ROOT, WEIGHTS
from slopes import descendants, takes

import pqjax
from pqjax.errors import WireError
from pqjax.watching import look

DEADLINE_S = 30.0
OTHER = {name: np.where(w > 0, w - 1, w) for name, w in WEIGHTS.items()}  # weights of the same plan
_OUT = GRAPH.input.out


@dataclasses.dataclass
class Served:
    """A server process; with workers, the front.

    Attributes:
      address: where clients dial.
      process: itself.
      folder: with its files: net.npz, log.txt.
      watched: where it tells its state (`look`).
    """

    address: str
    process: subprocess.Popen
    folder: pathlib.Path
    watched: str

    @property
    def takes(self):
        """What the process itself takes."""
        return takes(self.process.pid)

    def ready_workers(self):
        """Process numbers of the workers that serve."""
        return [each["pid"] for each in look(self.watched).get("workers", ()) if each["ready"]]

    def settled(self, workers):
        """Waits until nobody has a session, there are so many workers, and no other process is left."""

        def quiet():
            sessions, ready = look(self.watched)["sessions"], self.ready_workers()
            return not sessions and len(ready) == workers == len(descendants(self.process.pid))

        until(quiet)
        last = -1
        while (now := self.takes.threads) != last:  # that of the last look, too, is over
            last = now
            time.sleep(0.1)

    def offers(self, weights):
        """Puts other weights into its network's file, and has it read them."""
        part = self.folder / "part.npz"
        pqjax.save_model(part, GRAPH, weights)
        part.replace(self.folder / "net.npz")
        self.process.send_signal(signal.SIGHUP)

    def log(self):
        """What it has said so far."""
        return (self.folder / "log.txt").read_text()


@contextlib.contextmanager
def served(folder, *words):
    """`pqjax serve` of the small network, its log in a file, ready for clients."""
    folder.mkdir(exist_ok=True)
    pqjax.save_model(folder / "net.npz", GRAPH, WEIGHTS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        watched = f"127.0.0.1:{free.getsockname()[1]}"
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", HEARING, "serve", str(folder / "net.npz"), "--listen", "127.0.0.1:0",
             "--hints", str(folder / "hints"), "--clients", "32", "--metrics", watched,
             *map(str, words)],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=log,
            text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "log.txt").read_text()
        yield Served(line.split()[-1], process, folder, watched)
    finally:
        for pid in (process.pid, *descendants(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def until(condition, seconds=120.0):
    """Waits for it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def question(seed):
    """An input of its own for every seed."""
    return np.random.default_rng(seed).integers(_OUT.low, _OUT.high + 1, _OUT.shape)


def right(x, *weights):
    """The answers that are right, by some weights."""
    return [np.asarray(pqjax.reference(GRAPH, each, x)) for each in weights or (WEIGHTS,)]


def ask(address, seed, *weights, inferences=1):
    """One session, with questions of its own; how many answers were wrong."""
    wrong = 0
    with pqjax.connect(address, deadline_s=DEADLINE_S) as session:
        for turn in range(inferences):
            x = question(1000 * seed + turn)
            y = session.infer(x).output
            wrong += not any(np.array_equal(y, each) for each in right(x, *weights))
    return wrong


class _Leaves(Exception):
    """A client has had enough."""


def leave(address, draw):
    """A client that goes in the middle of a layer: told or untold, before, in or after preparing."""
    layers, abrupt = itertools.count(), draw.random() < 0.5
    last = draw.randrange(2 * len(GRAPH.nodes))
    session = None

    def progress(where, done, steps):
        if next(layers) >= last:
            if abrupt and session is not None:
                session._party.messenger.wire.abort()
            raise _Leaves

    with contextlib.suppress(_Leaves, WireError):
        session = pqjax.connect(address, deadline_s=DEADLINE_S, progress=progress)
        with session:
            session.infer(question(0))


def talk_nonsense(address, draw):
    """A connection that is no client's."""
    kinds = (
        lambda: draw.randbytes(draw.randrange(1, 4096)),
        lambda: HELLO[: draw.randrange(len(HELLO))],
        lambda: HELLO + draw.randbytes(64),
        lambda: bytes(b ^ (draw.random() < 0.05) for b in HELLO),
        lambda: RECORD,
        lambda: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        lambda: b"",
    )
    if draw.random() < 0.2:
        return reset(address)
    with contextlib.suppress(OSError), silent(address) as sock:
        sock.sendall(draw.choice(kinds)())
        sock.settimeout(draw.uniform(0.01, 0.5))
        sock.recv(1 << 12)


class Crowd:
    """Threads that each do one thing again and again, in turns between which all can be made to wait.

    Attributes:
      counts: turns that were done, by name.
      failures: by name, what turns raised that they may not; and wrong answers.
      lost: by the errors' names, what turns raised that they may.
    """

    def __init__(self):
        self.counts, self.failures, self.lost = {}, [], {}
        self._gate, self._over = threading.Event(), threading.Event()
        self._lock, self._busy = threading.Condition(), 0
        self._threads = []
        self._gate.set()

    def begin(self, name, turn, may=(), every_s=(0.0, 0.0), seed=0):
        """Does `turn(draw)` until the end; what it returns is a count of wrong answers, or nothing.

        Args:
          name: of what is counted.
          turn: told of randomness of its own.
          may: errors that it may raise.
          every_s: how long it waits before each turn, from and to.
          seed: of its randomness.
        """
        draw = random.Random(f"{name} {seed}")
        thread = threading.Thread(
            target=self._repeat, args=(name, turn, may, every_s, draw), name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _repeat(self, name, turn, may, every_s, draw):
        while not self._over.wait(draw.uniform(*every_s)):
            self._gate.wait()
            with self._lock:
                if not self._gate.is_set():
                    continue
                self._busy += 1
            try:
                wrong = turn(draw)
                with self._lock:
                    self.counts[name] = self.counts.get(name, 0) + 1
                    if wrong:
                        self.failures.append(f"{name}: {wrong} wrong answers")
            except may as error:
                with self._lock:
                    kind = type(error).__name__
                    self.lost[kind] = self.lost.get(kind, 0) + 1
            except BaseException as error:
                with self._lock:
                    self.failures.append(f"{name}: {type(error).__name__}: {error}")
                time.sleep(0.2)
            finally:
                with self._lock:
                    self._busy -= 1
                    self._lock.notify_all()

    @contextlib.contextmanager
    def waiting(self):
        """Nobody is in the middle of a turn meanwhile."""
        self._gate.clear()
        try:
            with self._lock:
                assert self._lock.wait_for(lambda: not self._busy, 4 * DEADLINE_S), (
                    "a turn does not end"
                )
            yield
        finally:
            self._gate.set()

    def end(self):
        """After the turns under way."""
        self._over.set()
        self._gate.set()
        for thread in self._threads:
            thread.join(4 * DEADLINE_S)
            assert not thread.is_alive(), thread.name
