"""Where a fleet's clients ask for a server: a Ray actor that keeps the replicas there are.

It sends a client to the replica with most room and has that one make the ticket, starts replicas where
clients wait and ends those that are idle, and replaces dead ones. It passes on nothing of a session:
when it dies, sessions go on, and what Ray starts in its place finds the replicas by their names.
"""

import dataclasses
import os
import threading
import time
import traceback
import uuid
from collections import Counter
from typing import Any

from pqjax.engine.desk import Answers
from pqjax.errors import shown
from pqjax.fleet.deployment import Deployment
from pqjax.fleet.ray import NAMESPACE, ray
from pqjax.fleet.replica import Replica, State
from pqjax.fleet.scaling import missing, surplus

MOST_WAITING = 64
_PREFIX = "pqjax-replica-"
_LOOK_S = 0.25  # between two looks at the replicas
_ISSUE_S = 5.0  # a replica makes a ticket in this time
_HUNG_S = 30.0  # one that says nothing for so long is ended
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # after replicas that could not serve

Answer = dict[str, Any]


@dataclasses.dataclass(eq=False)
class _Known:
    """A replica as the directory knows it.

    Attributes:
      handle: the actor.
      state: what it said last; None: nothing yet.
      asked: the answer on its way.
      heard: when it spoke last.
      busy: when it had a session or ticket last, or could have none.
      asking: for whom it makes tickets now.
      draining: it was told to end.
    """

    handle: Any
    state: State | None = None
    asked: Any = None
    heard: float = dataclasses.field(default_factory=time.monotonic)
    busy: float = dataclasses.field(default_factory=time.monotonic)
    asking: Counter[str] = dataclasses.field(default_factory=Counter)
    draining: bool = False

    def tell(self, state: State) -> None:
        """Takes a state in, unless a newer one came before."""
        self.heard, was_ready = time.monotonic(), self.ready
        if self.state is None or state["said"] > self.state["said"]:
            self.state = state
        if self.owners or not was_ready:
            self.busy = self.heard

    @property
    def ready(self) -> bool:
        """Whether it takes clients."""
        return self.state is not None and self.state["open"] and not self.draining

    @property
    def owners(self) -> Counter[str]:
        """Seats that are taken, or about to be."""
        return Counter(self.state["owners"] if self.state else {}) + self.asking


class Directory:
    """A fleet's directory; its methods are the actor's."""

    def __init__(self, deployment: Deployment):
        """Finds the replicas there are, and begins to look after them."""
        self._deployment, self._scale = deployment, deployment.scale
        self._ray = ray()
        self._change = threading.Condition()
        self._replicas: dict[str, _Known] = {}
        self._waiting = self._failures = 0
        self._failed, self._not_before = "", 0.0
        self._ending = self._proven = False
        self._answers = Answers(deployment.books)
        for each in self._ray.util.list_named_actors(all_namespaces=True):
            if each["namespace"] == NAMESPACE and each["name"].startswith(_PREFIX):
                handle = self._ray.get_actor(each["name"], namespace=NAMESPACE)
                self._replicas[each["name"]] = _Known(handle)
        threading.Thread(target=self._watch, name="pqjax-fleet", daemon=True).start()

    def session(self, model: str | None, owner: str, certified: bool, wait_s: float) -> Answer:
        """A seat for a client: address, ticket (hexadecimal) and model; or why there is none.

        A client without a seat waits for one, for so long, while replicas are started.

        Args:
          model: NAME or NAME@VERSION; None: the first one.
          owner: whom the ticket is for, as a server will see it.
          certified: whether that is a certificate.
          wait_s: how long the client waits, seconds.
        """
        if model is not None and model not in self._deployment.titles:
            return _refused("unknown model", f"the fleet has no model {shown(model)}")
        if self._deployment.tls is not None and not certified:
            return _refused(
                "no certificate", "the fleet takes clients with certificates: name yours (--tls)"
            )
        until = time.monotonic() + wait_s
        while True:
            with self._change:
                refused = self._objection(owner)
                if refused is not None:
                    return refused
                name = self._roomiest()
                if name is None:
                    left = until - time.monotonic()
                    if left <= 0 or self._waiting >= MOST_WAITING:
                        return self._full()
                    self._waiting += 1
                    try:
                        self._change.wait(left)
                    finally:
                        self._waiting -= 1
                    continue
                known = self._replicas[name]
                known.asking[owner] += 1
            ticket = self._issued(name, known, owner)
            if ticket is not None:
                assert known.state is not None
                return {"address": known.state["address"], "ticket": ticket.hex(), "model": model}

    def permit(self, owner: str, count: int) -> bool:
        """Counts so many answers that a client is about to get; False if that is more than it may."""
        with self._change:
            if self._spent(owner, count):
                return False
            if self._deployment.answers is not None:
                self._answers.add(owner, count)
            return True

    def _spent(self, owner: str, count: int) -> bool:
        most = self._deployment.answers
        return most is not None and self._answers.of(owner) + count > most

    def _objection(self, owner: str) -> Answer | None:
        if self._ending:
            return _refused("busy", "the fleet is closing")
        if self._spent(owner, 1):
            return _refused(
                "spent",
                "this client has made all inferences that the fleet allows it in a day; try again "
                "tomorrow",
            )
        each = self._deployment.each
        if each is not None and sum(r.owners[owner] for r in self._replicas.values()) >= each:
            return _refused(
                "too many sessions",
                "this client has as many sessions with the fleet as it may have at a time: end one, or "
                "try again later",
            )
        return None

    def _full(self) -> Answer:
        ready = sum(known.ready for known in self._replicas.values())
        if not ready:
            return _refused("busy", "no server of the fleet is ready; try again later")
        return _refused("busy", f"the fleet's servers are full ({ready}); try again later")

    def _free(self, known: _Known) -> int:
        return max(0, self._scale.seats - known.owners.total()) if known.ready else 0

    def _roomiest(self) -> str | None:
        free = {name: self._free(known) for name, known in self._replicas.items()}
        name = max(free, key=lambda name: free[name], default=None)
        return name if name is not None and free[name] else None

    def _issued(self, name: str, known: _Known, owner: str) -> bytes | None:
        """Has a replica make a ticket; None if it has no seat, or does not answer."""
        ticket = None
        try:
            ticket, state = self._ray.get(known.handle.issue.remote(owner), timeout=_ISSUE_S)
        except self._ray.exceptions.RayError as error:
            with self._change:
                if isinstance(error, self._ray.exceptions.ActorDiedError):
                    self._drop(name, "died")
                elif known.state is not None:
                    known.state = {**known.state, "open": False}  # until it speaks again
                known.asking -= Counter([owner])
            return None
        with self._change:
            known.asking -= Counter([owner])
            known.tell(state)
        return ticket

    def state(self) -> Answer:
        """The fleet, as plain data: no client is named in it."""
        with self._change:
            return {
                "models": [title for title, _ in self._deployment.offer.models],
                "least": self._scale.least, "most": self._scale.most, "seats": self._scale.seats,
                "waiting": self._waiting, "ready": sum(k.ready for k in self._replicas.values()),
                "failed": self._failed, "pid": os.getpid(),
                "replicas": [
                    {
                        "name": name, "address": known.state["address"] if known.state else "",
                        "pid": known.state["pid"] if known.state else 0,
                        "workers": [w["pid"] for w in known.state["workers"]] if known.state else [],
                        "is": "draining" if known.draining else "ready" if known.ready else "starting",
                        "taken": known.owners.total(),
                    }
                    for name, known in self._replicas.items()
                ],
            }  # fmt: skip

    def end(self) -> None:
        """Lets nobody in any more, and ends all replicas once their sessions are over."""
        with self._change:
            self._ending = True
            self._change.notify_all()

    def _watch(self) -> None:
        while True:
            try:
                self._look()
                with self._change:
                    self._scale_now()
                    self._change.notify_all()
            except Exception:  # noqa: BLE001  whatever it was, clients go on asking
                traceback.print_exc()
                time.sleep(_LOOK_S)

    def _look(self) -> None:
        """Asks all replicas how they are, and hears what they say within a moment."""
        begin = time.monotonic()
        with self._change:
            for known in self._replicas.values():
                if known.asked is None:
                    known.asked = known.handle.state.remote()
            asked = {known.asked: name for name, known in self._replicas.items()}
        if asked:
            done, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_S)
            for answer in done:
                self._heard(asked[answer], answer)
        with self._change:
            for name, known in list(self._replicas.items()):
                if known.state is not None and time.monotonic() - known.heard > _HUNG_S:
                    self._drop(name, f"has said nothing for {_HUNG_S:g} s")
        time.sleep(max(0.0, begin + _LOOK_S - time.monotonic()))

    def _heard(self, name: str, answer: Any) -> None:
        state, lost = None, None
        try:
            state = self._ray.get(answer)
        except self._ray.exceptions.ActorDiedError as error:
            lost = str(error)
        except self._ray.exceptions.RayError:
            pass  # it cannot be reached at the moment
        with self._change:
            known = self._replicas.get(name)
            if known is None:
                return
            known.asked = None
            if lost is not None:
                began = known.state is not None
                self._drop(name, "died" if began else f"could not start: {lost}")
                if not began:
                    self._failure(lost)
            elif state is not None:
                known.tell(state)
                if state["failed"]:
                    self._failure(state["failed"])
                if state["over"]:
                    self._drop(name, state["failed"] or "has ended")
                elif state["open"]:
                    self._failures, self._failed, self._proven = 0, "", True

    def _failure(self, why: str) -> None:
        """A replica cannot serve: the next one is not started at once."""
        self._failed = why
        self._failures += 1
        pause = min(_PAUSE_S * 2**self._failures, _LONGEST_PAUSE_S)
        self._not_before = time.monotonic() + pause

    def _drop(self, name: str, why: str) -> None:
        known = self._replicas.pop(name, None)
        if known is not None:
            print(f"{name} {why}", flush=True)
            self._ray.kill(known.handle)

    def _scale_now(self) -> None:
        now = time.monotonic()
        there = [known for known in self._replicas.values() if not known.draining]
        ready = [known for known in there if known.ready]
        if self._ending:
            ends = [name for name, known in self._replicas.items() if not known.draining]
        else:
            idle = {name: now - known.busy for name, known in self._replicas.items()
                    if known.ready and not known.owners}  # fmt: skip
            ends = surplus(self._scale, idle, len(ready), self._waiting)
        for name in ends:
            self._replicas[name].draining = True
            self._replicas[name].handle.drain.remote()
        if self._ending or now < self._not_before:
            return
        free = sum(map(self._free, ready))
        starting = len(there) - len(ready)
        wanted = missing(self._scale, len(ready), starting, free, self._waiting)
        if not self._proven:  # the first makes for all what is made once, or says why it cannot
            wanted = min(wanted, 1 - len(there))
        for _ in range(wanted):
            self._start()

    def _start(self) -> None:
        name = f"{_PREFIX}{uuid.uuid4().hex[:8]}"
        wants = self._deployment
        actor = self._ray.remote(Replica).options(
            name=name, namespace=NAMESPACE, lifetime="detached", max_restarts=0, max_concurrency=8,
            num_cpus=wants.cores, memory=None if wants.memory_bytes is None else wants.memory_bytes,
        )  # fmt: skip
        print(f"{name} is started", flush=True)
        self._replicas[name] = _Known(actor.remote(wants))


def _refused(reason: str, text: str) -> Answer:
    return {"refused": reason, "error": text}
