"""One server of a fleet, as a Ray actor: a front and its workers, on its node's own address.

It lets in whom its directory has sent: a session begins with a ticket that was issued here, and a
ticket holds a seat until it is used or too old. Nothing that clients send passes through Ray.
"""

import functools
import os
import threading
import time
from typing import Any

from pqjax.errors import PqjaxError
from pqjax.fleet.deployment import Deployment
from pqjax.fleet.ray import DIRECTORY, NAMESPACE, ray
from pqjax.fleet.tickets import Tickets
from pqjax.service.front import Front
from pqjax.watching import Log
from pqjax.wire.address import format_address

State = dict[str, Any]
_PERMIT_S, _PAUSE_S = 8.0, 0.2  # a worker waits a little longer


class Replica:
    """A replica; its methods are the actor's, and return at once."""

    def __init__(self, deployment: Deployment, host: str = ""):
        """Listens at the node's address, or at another; what goes wrong is told by `state`."""
        self._seats = deployment.scale.seats
        self._tickets = Tickets()
        self._lock = threading.Lock()
        self._said, self._failed = 0, ""
        self._front: Front | None = None
        try:
            host = host or ray().util.get_node_ip_address()
            self._front = Front(
                deployment.offer, format_address(host, 0), workers=deployment.cores,
                tls=deployment.tls, insecure_plaintext=deployment.insecure_plaintext,
                limits=deployment.limits, tickets=self._tickets.take, drain_s=deployment.drain_s,
                permits=_free if deployment.answers is None else _permitted,
                record=Log(functools.partial(print, flush=True), "json"),  # Ray keeps it
            )  # fmt: skip
        except PqjaxError as error:
            self._failed = str(error)
            return
        self._thread = threading.Thread(target=self._run, args=(self._front,), daemon=True)
        self._thread.start()

    def _run(self, front: Front) -> None:
        try:
            front.run()
        except PqjaxError as error:
            self._failed = str(error)

    def issue(self, owner: str) -> tuple[bytes | None, State]:
        """A ticket for an owner, if there is a seat, and the state after that."""
        with self._lock:
            state = self._state()
            if not state["open"] or sum(state["owners"].values()) >= self._seats:
                return None, state
            ticket = self._tickets.issue(owner)
            return ticket, self._state()

    def state(self) -> State:
        """How it is, as plain data.

        open: clients are let in; over: it has ended; failed: why it cannot serve, or empty; owners: how
        many seats each has, by sessions and tickets; said: which state of this replica it is, the newer
        the larger.
        """
        with self._lock:
            return self._state()

    def _state(self) -> State:
        self._said += 1
        front = self._front
        if front is None:
            return {"open": False, "over": True, "failed": self._failed, "owners": {},
                    "said": self._said, "address": "", "pid": os.getpid(), "workers": []}  # fmt: skip
        # Tickets first: one that is used meanwhile is counted twice, not lost.
        owners = self._tickets.owners
        owners += front.owners
        return {
            "open": front.open, "over": not self._thread.is_alive(), "failed": self._failed,
            "owners": dict(owners), "said": self._said, "address": front.address,
            "pid": os.getpid(), "workers": front.state["workers"],
        }  # fmt: skip

    def drain(self) -> None:
        """Lets nobody in any more, and ends with the last session."""
        if self._front is not None:
            self._front.stop()


def _free(owner: str, count: int) -> bool:
    return True


def _permitted(owner: str, count: int) -> bool:
    """Asks the directory for answers, which counts those of all replicas; no, if it says nothing."""
    until = time.monotonic() + _PERMIT_S
    while (left := until - time.monotonic()) > 0:
        try:
            directory = ray().get_actor(DIRECTORY, namespace=NAMESPACE)
            return bool(ray().get(directory.permit.remote(owner, count), timeout=left))
        except (ValueError, ray().exceptions.RayError):  # another takes its place
            time.sleep(_PAUSE_S)
    return False
