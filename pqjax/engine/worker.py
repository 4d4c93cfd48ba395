"""The server's half of one session: it does what the client asks, until the client says goodbye."""

from collections import deque

from pqjax.engine.commands import GOODBYE, INFER, INSTALL, MOST_PREPARED, PREPARE, hear
from pqjax.engine.execute import Preparation, infer, prepare
from pqjax.engine.installing import announce_hints, send_hints
from pqjax.engine.model import ServedModel
from pqjax.engine.visit import Visit
from pqjax.errors import Drift
from pqjax.protocols.party import make_party
from pqjax.wire.interface import Wire
from pqjax.wire.trace import Trace


def serve_session(wire: Wire, model: ServedModel, visit: Visit) -> Trace:
    """Serves one client that has been greeted, from the base OTs on.

    The client then waits for the wire to close; that is left to the caller.

    Raises:
      Drift: the client asks for what there is not.
      WireError: it is gone, silent, idle for too long or talks nonsense; or the visit was ended.
    """
    plan, own = model.plan, model.own
    party = make_party(wire, 0, plan.preset.source, tuning=plan.preset.tuning)
    trace = party.messenger.trace
    prepared: deque[Preparation] = deque()
    inferences = 0
    if model.hints is not None:
        announce_hints(party, model.hints)
    installed = model.hints is None
    while True:
        visit.rest(len(prepared))
        code, place = hear(party, visit.idle_s)
        visit.work()
        trace.alive_bytes = wire.alive_bytes
        if code == GOODBYE:
            trace.turn_to(None)
            return trace
        if code == INSTALL and not installed and place < len(plan.hinted):
            assert model.hints is not None
            trace.turn_to(inferences)
            send_hints(party, plan, model.hints, place, visit.progress)
            installed = True
        elif code == PREPARE and len(prepared) < MOST_PREPARED:
            trace.turn_to(inferences + len(prepared))
            prepared.append(prepare(party, plan, own, visit.progress))
        elif code == INFER and prepared:
            trace.turn_to(inferences)
            infer(party, plan, own, prepared.popleft(), None, visit.progress)
            inferences += 1
        else:
            raise Drift(
                f"the client asked for phase {code} with {len(prepared)} preparations in store"
            )
