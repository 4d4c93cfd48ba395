"""What happens at a server as plain data, so that it can cross from a worker process to its front."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pqjax.engine.events import Events
from pqjax.engine.visit import Visit
from pqjax.errors import PqjaxError
from pqjax.planner.plan import REVEAL_LAYER
from pqjax.wire.trace import Trace

Record = dict[str, Any]


class Recording(Events):
    """Hands every event on as a record."""

    def __init__(self, record: Callable[[Record], None]):
        self._record = record

    def began(self, visit: Visit) -> None:
        """As `Events`."""
        self._tell("began", **_who(visit))

    def done(self, visit: Visit, phase: str, seconds: float, count: int) -> None:
        """As `Events`."""
        self._tell("done", **_who(visit), phase=phase, seconds=seconds, count=count)

    def ended(self, visit: Visit, trace: Trace | None, error: PqjaxError | None) -> None:
        """As `Events`."""
        told: Record = {"error": None if error is None else _fault(error)}
        if trace is not None:
            sent, received = trace.bytes()
            answers = sum(entry.layer == REVEAL_LAYER for entry in trace.entries)
            told |= {"sent_bytes": sent, "received_bytes": received, "answers": answers}
        self._tell("ended", **_who(visit), **told)

    def refused(self, client: str, error: PqjaxError) -> None:
        """As `Events`."""
        self._tell("refused", client=client, error=_fault(error))

    def noted(self, client: str, text: str) -> None:
        """As `Events`."""
        self._tell("noted", client=client, text=text)

    def stopping(self, visits: Sequence[Visit], drain_s: float) -> None:
        """As `Events`."""
        at_work = [{"client": visit.client, "doing": visit.doing} for visit in visits]
        self._tell("stopping", sessions=at_work, drain_s=drain_s)

    def _tell(self, event: str, **about: Any) -> None:
        self._record({"event": event, "time": time.time(), **about})


def _who(visit: Visit) -> Record:
    return {"client": visit.client, "owner": visit.owner, "model": visit.model}


def _fault(error: PqjaxError) -> Record:
    return {"type": type(error).__name__, "text": str(error)}
