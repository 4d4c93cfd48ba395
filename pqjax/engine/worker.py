"""The server's half of one session: it does what the client asks, until the client says goodbye."""

from collections import deque

from pqjax.engine.commands import (
    GOODBYE,
    INFER,
    INSTALL,
    KEEP,
    MOST_PREPARED,
    PREPARE,
    SET_UP,
    disown,
    hear,
)
from pqjax.engine.execute import Preparation, infer, prepare
from pqjax.engine.half import may_be_kept
from pqjax.engine.installing import announce_hints, send_hints
from pqjax.engine.model import ServedModel
from pqjax.engine.spending import begin, keep_at_server, spend_at_server
from pqjax.engine.visit import Visit
from pqjax.errors import Drift, SessionEnded, Spent
from pqjax.protocols.party import Party
from pqjax.wire.interface import Wire
from pqjax.wire.trace import Trace
from pqjax.wire.word import Word


def serve_session(wire: Wire, model: ServedModel, visit: Visit, offers: bool = False) -> Trace:
    """Serves one client that has been greeted, from the base OTs on or what it `offers` to spend.

    The client then waits for the wire to close; that is left to the caller.

    Raises:
      Drift: the client asks for what there is not.
      Spent: it asks for more answers than it may have.
      WireError: it is gone, silent, idle for too long or talks nonsense; or the visit was ended.
    """
    spent = (wire, model.plan, model.identity, visit.store, MOST_PREPARED, visit.note)
    prepared = deque(spend_at_server(*spent) if offers else ())
    with visit.phase("setup"):
        party, trace = begin(wire, 0, model.plan, prepared)
    try:
        _obey(party, model, visit, prepared)
        trace.turn_to(None)
    except SessionEnded as error:
        if error.reason != Word.DONE.name.lower():
            raise
        disown(trace)  # it prepared ahead, and has no more questions
    return trace


def _obey(party: Party, model: ServedModel, visit: Visit, prepared: deque[Preparation]) -> None:
    """Every command up to the goodbye; so many preparations are there already."""
    plan, own, store = model.plan, model.own, visit.store
    trace = party.messenger.trace
    inferences, kept, set_up = 0, None, not prepared
    installed = model.hints is None
    if set_up and model.hints is not None:
        announce_hints(party, model.hints)
    while True:
        visit.rest(len(prepared))
        code, place = hear(party, visit.idle_s)
        visit.work()
        trace.alive_bytes = party.messenger.wire.alive_bytes
        if code == GOODBYE:
            return
        if code == SET_UP and not set_up:
            trace.turn_to(trace.stored)
            with visit.phase("setup"):
                party.set_up()
            if model.hints is not None:
                announce_hints(party, model.hints)
            set_up = True
        elif code == INSTALL and set_up and not installed and place < len(plan.hinted):
            assert model.hints is not None
            trace.turn_to(trace.stored)
            with visit.phase("install"):
                send_hints(party, plan, model.hints, place, visit.progress)
            installed = True
        elif code == PREPARE and set_up and len(prepared) < MOST_PREPARED:
            trace.turn_to(inferences + len(prepared))
            with visit.phase("offline"):
                prepared.append(prepare(party, plan, own, visit.progress))
        elif code == KEEP and prepared and prepared[0].ends is None and may_be_kept(plan):
            trace.turn_to(None)
            mine = (store, visit.owner, kept, prepared.popleft(), visit.note)
            kept = keep_at_server(party, plan, model.identity, *mine)
            inferences += 1
        elif code == INFER and prepared:
            if not visit.permit(plan.batch):
                raise Spent("this client has had all answers that it may have in a day")
            trace.turn_to(inferences)
            with visit.phase("online", plan.batch):
                infer(party, plan, own, prepared.popleft(), None, visit.progress)
            inferences += 1
        else:
            raise Drift(
                f"the client asked for phase {code} with {len(prepared)} preparations in store"
            )
