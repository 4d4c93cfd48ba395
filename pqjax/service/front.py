"""The front of a server with worker processes: listens, hands connections on, keeps the limits.

It reads nothing of what clients say: TLS, greeting and session are a worker's, which asks back who may
come in (`FrontDesk`). A connection goes to the worker that has fewest; sessions of different workers
share no interpreter, and a worker that dies takes its own sessions with it and no others.

A worker belongs to a generation: one reading of the models. `reload` starts another, and the last one
goes on until its sessions are over.
"""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pqjax import errors
from pqjax.engine.desk import Limits, LimitsDesk
from pqjax.engine.process import resident_bytes
from pqjax.engine.server import DRAIN_S
from pqjax.errors import InputError, PqjaxError, WireError
from pqjax.service.offer import Offer
from pqjax.service.talk import Talk
from pqjax.service.worker import ADDRESS_BYTES
from pqjax.watching.records import Sink
from pqjax.wire.listener import Listener
from pqjax.wire.tls import Tls

_TRIES = 3  # of workers that die before they are ready, one after the other
_LATE_S = 2.0  # after a worker's own time is over
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0  # between two such


@dataclasses.dataclass(eq=False)
class _Worker:
    """One process.

    Attributes:
      number: of this front's, from 1.
      generation: which reading of the models it serves.
      connections: handed to it, and not over.
      guests: who has been let in.
      ready: it has read the models.
      base_bytes: resident when it was ready.
      sessions: as it told of them last.
    """

    number: int
    generation: int
    process: subprocess.Popen
    hand: socket.socket
    talk: Talk
    connections: int = 0
    guests: set[int] = dataclasses.field(default_factory=set)
    ready: bool = False
    base_bytes: int = 0
    sessions: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def resident_bytes(self) -> int:
        """What it takes of memory now."""
        return resident_bytes(self.process.pid)


class Front:
    """A server in several processes; used as `Server` is.

    Attributes:
      address: "host:port" as bound.
    """

    def __init__(
        self,
        offer: Offer,
        address: str,
        *,
        workers: int = 2,
        tls: Tls | None = None,
        insecure_plaintext: bool = False,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        books: pathlib.Path | None = None,
        tickets: Callable[[bytes, str], bool] | None = None,
        permits: Callable[[str, int], bool] = lambda owner, count: True,
        store: tuple[str, tuple[int, int, float]] | None = None,
        drain_s: float = DRAIN_S,
        record: Sink = lambda record: None,
        layers: bool = False,
        **server: float,
    ):
        """Binds the address and starts the first worker; `run` waits for it.

        Args:
          offer: the models.
          address: "host:port"; port 0 takes a free one.
          workers: processes.
          tls: as of `Server`.
          insecure_plaintext: as of `Server`.
          limits: over all workers.
          books: as of `LimitsDesk`.
          tickets: as of `LimitsDesk`.
          permits: as of `LimitsDesk`.
          store: a folder for clients' preparations, and the fields of its `Limits`.
          drain_s: as of `Server`.
          record: told of all that happens, `pqjax.watching.records`.
          layers: of every layer, too, once its session is over.
          server: further options of the workers' `Server`s: seconds, and how many may wait.
        """
        if workers < 1:
            raise InputError(f"a server has at least 1 worker process, got {workers}")
        self._offers, self._count, self._tls = [offer], workers, tls
        self._store, self._drain_s = store, drain_s
        self._record, self._layers = record, layers
        self._server = {**server, "drain_s": drain_s}
        self._desk = LimitsDesk(limits, books, tickets, self._resident, permits)
        self._desk.give_way(lambda: self._say_all(do="give way"))
        self._listener = Listener(address, tls=tls, insecure_plaintext=insecure_plaintext)
        self.address = self._listener.address
        self._plans = tempfile.TemporaryDirectory(prefix="pqjax-")
        self._change = threading.Condition(threading.RLock())  # signal handlers stop, too
        self._workers: list[_Worker] = []
        self._newest = 0  # generation, by its place in the offers
        self._current = 0  # the one that connections go to; another while the newest is not ready
        self._numbers = self._failures = 0
        self._failed: PqjaxError | None = None
        self._stopping = False
        self._start()

    def run(self, most_sessions: int | None = None) -> None:
        """Serves clients until told to stop, or until so many sessions have begun and ended.

        Raises:
          PqjaxError: what the first worker says of the models; or workers die as they start.
        """
        self._desk.close_after(most_sessions)
        try:
            while True:
                with self._change:
                    self._change.wait_for(lambda: self._ready or self._stopping or self._failed)
                    if self._failed:
                        raise self._failed
                try:
                    sock, client = self._listener.accept()
                except WireError:  # closed
                    break
                self._hand_on(sock, client)
        finally:
            try:
                self.stop()
                self._drain(self._drain_s + _LATE_S)
            finally:
                self.close()
                self._drain(_LATE_S)
                self._end()
                self._plans.cleanup()

    def stop(self) -> None:
        """Lets nobody in; sessions end as soon as nothing in them is half done; returns at once."""
        with self._change:
            self._stopping = True
            self._say_all(do="stop")
            self._change.notify_all()
        self._listener.close()

    def close(self) -> None:
        """Ends all sessions under way; their clients are told, in a second."""
        self.stop()
        self._say_all(do="close")

    def reload(self, offer: Offer | None = None) -> None:
        """Reads the models anew, or others; sessions go on with what they began with.

        Until that is done, and if it cannot be, connections get the models there were.
        """
        with self._change:
            self._offers.append(offer or self._offers[self._current])
            self._newest = len(self._offers) - 1
            self._failures = 0
        self._start()

    @property
    def state(self) -> dict[str, Any]:
        """The sessions there are, each as `Visit.state`, and the workers."""
        with self._change:
            return {
                "sessions": [
                    {**session, "worker": worker.number}
                    for worker in self._workers
                    for session in worker.sessions
                ],
                "workers": [
                    {
                        "number": worker.number, "pid": worker.process.pid, "ready": worker.ready,
                        "generation": worker.generation, "connections": worker.connections,
                        "sessions": len(worker.guests), "resident_bytes": worker.resident_bytes,
                    }
                    for worker in self._workers
                ],
                "models": [title for title, _ in self._offers[self._current].models],
            }  # fmt: skip

    @property
    def owners(self) -> Counter[str]:
        """How many sessions every client has."""
        return self._desk.owners

    @property
    def open(self) -> bool:
        """Whether clients are let in."""
        with self._change:
            return bool(self._ready) and not self._stopping

    @property
    def _ready(self) -> list[_Worker]:
        return [w for w in self._workers if w.ready and w.generation == self._current]

    def _start(self) -> None:
        """Starts what is missing of the newest generation: one alone until its plans are there."""
        with self._change:
            if self._stopping:
                return
            mine = [w for w in self._workers if w.generation == self._newest]
            planned = any(w.ready for w in mine) or (self._folder / "done").exists()
            for _ in range((self._count if planned else 1) - len(mine)):
                self._spawn()

    @property
    def _folder(self) -> pathlib.Path:
        """Where the newest generation keeps its plans."""
        return pathlib.Path(self._plans.name) / str(self._newest)

    def _spawn(self) -> None:
        self._folder.mkdir(exist_ok=True)
        hand, theirs = socket.socketpair()
        talk, line = socket.socketpair()
        with theirs, line:
            process = subprocess.Popen(
                [sys.executable, "-m", "pqjax.service.worker", str(theirs.fileno()), str(line.fileno())],
                pass_fds=(theirs.fileno(), line.fileno()), stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._numbers += 1
        worker = _Worker(self._numbers, self._newest, process, hand, Talk(talk))
        self._workers.append(worker)
        tls = None if self._tls is None else {
            key: str(value) for key, value in dataclasses.asdict(self._tls).items()
        }  # fmt: skip
        worker.talk.say(
            offer=dataclasses.asdict(self._offers[self._newest]), documents=str(self._folder), tls=tls,
            store=self._store, address=self.address, server=self._server, layers=self._layers,
        )  # fmt: skip
        threading.Thread(target=self._attend, args=(worker,), daemon=True).start()

    def _attend(self, worker: _Worker) -> None:
        """All that a worker says, to its end."""
        try:
            for line in worker.talk.hear():
                self._heard(worker, line)
        except PqjaxError as error:
            self._tell(event="worker_failed", worker=worker.number, error=str(error))
            worker.process.kill()
        code = worker.process.wait()
        self._gone(worker, code)

    def _heard(self, worker: _Worker, line: dict[str, Any]) -> None:
        what = line["do"]
        if what == "enter":
            guest = worker.number, line["guest"]
            ticket = bytes.fromhex(line["ticket"])
            how = line["takes"], ticket, line["background"]
            objection = self._desk.enter(guest, line["owner"], *how)
            with self._change:
                if objection is None:
                    worker.guests.add(line["guest"])
            worker.talk.say(do="answer", id=line["id"], answer=int(objection or 0))
        elif what == "permit":
            may = self._desk.permit(line["owner"], line["count"])
            worker.talk.say(do="answer", id=line["id"], answer=may)
        elif what == "leave":
            self._left(worker, line["guest"], line["served"])
        elif what == "event":
            record = line["record"]
            if record["event"] in ("ended", "refused"):
                with self._change:
                    worker.connections -= 1
            self._tell(**record, worker=worker.number)
        elif what == "state":
            with self._change:
                worker.sessions = line["sessions"]
        elif what == "ready":
            self._is_ready(worker)
        elif what == "failed":
            self._refuses(worker, line["kind"], line["text"])

    def _refuses(self, worker: _Worker, kind: str, text: str) -> None:
        """A worker cannot serve the models: then this server ends, or stays with those it has."""
        with self._change:
            if worker.generation > self._current:
                self._newest = self._current
                self._tell(event="reload_failed", text=text)
            elif not self._ready:
                self._failed = getattr(errors, kind, PqjaxError)(text)
                self._change.notify_all()

    def _is_ready(self, worker: _Worker) -> None:
        with self._change:
            worker.ready, worker.base_bytes = True, worker.resident_bytes
            self._failures = 0
            (self._folder / "done").touch()
            if worker.generation > self._current:
                self._current = worker.generation
                for old in self._workers:
                    if old.generation < self._current:
                        self._retire(old)
                self._tell(event="reloaded", worker=worker.number)
            self._change.notify_all()
        self._start()

    def _retire(self, worker: _Worker) -> None:
        """Hands it nothing on any more: it ends when its sessions have ended."""
        try:
            worker.hand.shutdown(socket.SHUT_WR)
        except OSError:  # it is dying
            return

    def _left(self, worker: _Worker, guest: int, served: bool) -> None:
        with self._change:
            worker.guests.discard(guest)
        self._desk.leave((worker.number, guest), served=served)
        if self._desk.over:
            self.stop()

    def _gone(self, worker: _Worker, code: int) -> None:
        """A worker is over: by itself, or it died, with all sessions that it had."""
        with self._change:
            self._workers.remove(worker)
            lost = list(worker.guests)
            wanted = not self._stopping and worker.generation == self._newest
            if wanted and not worker.ready:
                self._failures += 1
                if self._failures >= _TRIES and not self._ready and self._failed is None:
                    self._failed = WireError(
                        f"worker processes die as they start: the last one with code {code}"
                    )
            self._change.notify_all()
        worker.hand.close()
        worker.talk.close()
        for guest in lost:
            self._left(worker, guest, served=True)
        if wanted or lost:
            self._tell(event="worker_died", worker=worker.number, code=code, sessions=len(lost))
        if wanted and self._failed is None:
            if not worker.ready:
                time.sleep(min(_PAUSE_S * 2**self._failures, _LONGEST_PAUSE_S))
            self._start()

    def _say_all(self, **what: Any) -> None:
        with self._change:
            workers = list(self._workers)
        for worker in workers:
            worker.talk.say(**what)

    def _hand_on(self, sock: socket.socket, client: str) -> None:
        """Gives a connection to the worker that has fewest."""
        with sock, self._change:
            for worker in sorted(self._ready, key=lambda each: each.connections):
                try:
                    socket.send_fds(
                        worker.hand, [client.encode().ljust(ADDRESS_BYTES, b"\0")], [sock.fileno()]
                    )
                except OSError:
                    continue  # it is dying
                worker.connections += 1
                return
        # Nobody is there at the moment: who dialled sees the connection close, and may come again.

    def _resident(self) -> int:
        """What sessions have taken, as measured."""
        with self._change:
            return sum(max(0, w.resident_bytes - w.base_bytes) for w in self._workers if w.ready)

    def _drain(self, seconds: float) -> None:
        """Waits for the workers, for so long at most."""
        with self._change:
            self._change.wait_for(lambda: not self._workers, seconds)

    def _end(self) -> None:
        """Ends the workers that are left."""
        with self._change:
            for worker in self._workers:
                worker.process.kill()
        self._drain(_LATE_S)

    def _tell(self, **record: Any) -> None:
        self._record(record)
