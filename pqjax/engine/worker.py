"""The server's half of one session: it does what the client asks, until the client says goodbye."""

from __future__ import annotations

from collections import deque

from pqjax.engine.commands import GOODBYE, INFER, MOST_PREPARED, PREPARE, hear
from pqjax.engine.execute import Preparation, Progress, infer, prepare
from pqjax.engine.model import ServedModel
from pqjax.errors import Drift
from pqjax.protocols.party import make_party
from pqjax.wire.interface import Wire
from pqjax.wire.trace import Trace


def serve_session(wire: Wire, model: ServedModel, progress: Progress | None = None) -> Trace:
    """Serves one client that has been greeted, from the base OTs on.

    The client then waits for the wire to close; that is left to the caller.

    Raises:
      Drift: the client asks for what there is not.
      WireError: it is gone, silent or talks nonsense.
    """
    plan, layers = model.plan, model.layers
    party = make_party(wire, 0, plan.preset.source, tuning=plan.preset.tuning)
    trace = party.messenger.trace
    prepared: deque[Preparation] = deque()
    inferences = 0
    while True:
        code = hear(party)
        if code == GOODBYE:
            trace.turn_to(None)
            return trace
        if code == PREPARE and len(prepared) < MOST_PREPARED:
            trace.turn_to(inferences + len(prepared))
            prepared.append(prepare(party, plan, layers, progress))
        elif code == INFER and prepared:
            trace.turn_to(inferences)
            infer(party, plan, layers, prepared.popleft(), None, progress)
            inferences += 1
        else:
            raise Drift(
                f"the client asked for phase {code} with {len(prepared)} preparations in store"
            )
