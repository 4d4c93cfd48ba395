"""A worker process: serves the connections that its front hands it, and asks it who may come in.

    python -m pqjax.service.worker HAND TALK

are descriptors of two sockets: over the first come connections, one descriptor each, over the second
lines of JSON both ways (`pqjax.service.talk`). The first line says what to serve. It is over when the
front is, whatever became of that.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any

from pqjax.engine.catalogue import Catalogue
from pqjax.engine.events import Events
from pqjax.engine.process import settle
from pqjax.engine.rates import kept_rates
from pqjax.engine.server import Server
from pqjax.engine.store import Limits, Store
from pqjax.errors import DataError, PqjaxError, WireError
from pqjax.schema import read
from pqjax.service.offer import Offer
from pqjax.service.talk import Talk
from pqjax.watching.records import Records
from pqjax.wire.handshake import Objection
from pqjax.wire.readiness import READ, poll
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.tls import Tls

ADDRESS_BYTES = 64  # a client's address as it is handed on, padded
_ANSWER_S = 10.0
_STATE_S = 1.0


class HandedOn:
    """The door through which a front's connections come."""

    def __init__(self, sock: socket.socket, address: str, context: ssl.SSLContext | None):
        self.address, self.context = address, context
        self._sock, (self._waker, self._wakee) = sock, socket.socketpair()
        self._closed = False

    def accept(
        self, timeout: float | int | None = None, shed: Callable[[], object] | None = None
    ) -> tuple[socket.socket, str]:
        """The next connection and who dialled, as `Listener.accept`."""
        while not self._closed:
            poll({self._sock: READ, self._wakee: READ})
            if self._closed:
                break
            try:
                name, handed, _, _ = socket.recv_fds(self._sock, ADDRESS_BYTES, 1)
            except OSError as error:
                if shed is not None:
                    shed()  # no descriptor is left: the connection is lost, others are not
                raise WireError(f"the front hands nothing on any more: {error}") from error
            if not name:
                break
            if handed:
                return socket.socket(fileno=handed[0]), name.rstrip(b"\0").decode()
        raise WireError("the front hands nothing on any more")

    def close(self) -> None:
        """Wakes an `accept` under way."""
        self._closed = True
        self._waker.close()


class FrontDesk:
    """The front's desk, asked over the line."""

    def __init__(self, talk: Talk):
        self._talk, self._ids = talk, itertools.count()
        self._asked: set[int] = set()
        self._answers: dict[int, Any] = {}
        self._waiting = threading.Condition()
        self._guests: dict[Hashable, int] = {}

    def enter(
        self, guest: Hashable, owner: str, takes: int, ticket: bytes = b"", background: bool = False
    ) -> Objection | None:
        """As `Desk`; busy if the front says nothing."""
        number = next(self._ids)
        self._guests[guest] = number
        told = {"guest": number, "owner": owner, "takes": takes, "ticket": ticket.hex()}
        answer = self._ask("enter", background=background, **told)
        if answer is None:
            return Objection.BUSY
        return None if answer == 0 else Objection(answer)

    def leave(self, guest: Hashable, *, served: bool) -> None:
        """As `Desk`."""
        number = self._guests.pop(guest, None)
        if number is not None:
            self._talk.say(do="leave", guest=number, served=served)

    def permit(self, owner: str, count: int) -> bool:
        """As `Desk`; no if the front says nothing."""
        return bool(self._ask("permit", owner=owner, count=count))

    def close_after(self, sessions: int | None) -> None:
        """The front counts."""

    @property
    def over(self) -> bool:
        """The front says when."""
        return False

    def give_way(self, go: Callable[[], None]) -> None:
        """The front says when."""

    def answered(self, number: int, answer: Any) -> None:
        """What the front says to a question."""
        with self._waiting:
            if number in self._asked:  # nobody waits for one that comes too late
                self._answers[number] = answer
                self._waiting.notify_all()

    def _ask(self, what: str, **about: Any) -> Any:
        number = next(self._ids)
        with self._waiting:
            self._asked.add(number)
        self._talk.say(do=what, id=number, **about)
        with self._waiting:
            self._waiting.wait_for(lambda: number in self._answers, _ANSWER_S)
            self._asked.discard(number)
            return self._answers.pop(number, None)


def serve(hand: socket.socket, talk: Talk) -> int:
    """Reads what to serve, and does, until told to stop."""
    lines = talk.hear()
    told = next(lines, None)
    if told is None:
        return 1
    try:
        catalogue = _catalogue(told)
        options = dict(told["server"])
        tls = None if told["tls"] is None else Tls(**told["tls"])
        context = None if tls is None else tls.context(server=True)
        if told["store"] is not None:
            folder, limits = told["store"]
            options["store"] = Store(folder, Limits(*limits))
        desk, door = FrontDesk(talk), HandedOn(hand, told["address"], context)
        events: Events = Records(
            lambda record: talk.say(do="event", record=record), layers=told["layers"]
        )
        server = Server(
            catalogue, None, told["address"], desk=desk, door=door, events=events, **options
        )
    except PqjaxError as error:
        talk.say(do="failed", kind=type(error).__name__, text=str(error))
        return 1
    talk.say(do="ready")

    def hear() -> None:
        for line in lines:
            if line["do"] == "answer":
                desk.answered(line["id"], line["answer"])
            elif line["do"] == "stop":
                server.stop()
            elif line["do"] == "give way":
                server.give_way()
            elif line["do"] == "close":
                server.close()
        server.close()  # the front is gone

    def tell() -> None:
        told: list = []
        while not over.wait(_STATE_S):
            now = server.state
            if now or told:
                talk.say(do="state", sessions=now)
            told = now

    over = threading.Event()
    for run in (hear, tell):
        threading.Thread(target=run, name="pqjax-front", daemon=True).start()
    try:
        server.run()
    finally:
        over.set()
    return 0


def _catalogue(told: dict[str, Any]) -> Catalogue:
    """The models, by plans that the generation's first worker made, or made here for the others."""
    offer, folder = read(Offer, told["offer"]), pathlib.Path(told["documents"])
    files = [folder / f"{at}.plan" for at in range(len(offer.models))]
    documents = [file.read_bytes() for file in files] if files[-1].exists() else None
    try:
        rates = kept_rates() or NOMINAL
    except DataError:
        rates = NOMINAL
    made = offer.catalogue(rates, documents)
    if documents is None:
        for file, model in zip(files, made.models.values(), strict=True):
            file.write_bytes(model.plan.document)
    return made


def main() -> int:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the front's
    settle()
    hand, talk = (socket.socket(fileno=int(text)) for text in sys.argv[1:3])
    code = serve(hand, Talk(talk))
    sys.stdout.flush()
    os._exit(code)  # a thread in compiled code would hold up every other way out


if __name__ == "__main__":
    sys.exit(main())
