"""What a client may ask for: install, prepare, keep, infer, goodbye; each begins a phase.

Base OTs come first, unasked; only if asked for, where stored preparations are there to be spent.

Nothing else is ever negotiated; sizes and order of all frames follow from the plan. Preparations are
used up in the order in which they were made, so the n-th is the n-th inference's on both sides.
"""

import numpy as np

from pqjax.planner.plan import BEGIN_LAYER, COMMAND_BITS, PLACE_BITS
from pqjax.protocols.party import Party
from pqjax.wire.trace import Trace

GOODBYE, PREPARE, INFER, INSTALL, SET_UP, KEEP = range(6)
_PHASES = {
    PREPARE: "offline",
    INSTALL: "install",
    SET_UP: "setup",
    KEEP: "offline",
}  # of the others: online
MOST_PREPARED = 8  # preparations a client may have in store; each takes memory on both sides


def ask(party: Party, code: int, inference: int | None, place: int | None = None) -> None:
    """Rank 1 names what begins, and enters it and what follows under this inference.

    1. rank 1 -> rank 0   the code.   `COMMAND_BITS` bits
    2. rank 1 -> rank 0   of an installation: the first layer whose hint it lacks.   `PLACE_BITS` bits
    """
    with party.messenger.layer(_PHASES.get(code, "online"), BEGIN_LAYER):
        party.messenger.send(np.array([code], np.uint8), COMMAND_BITS)
        if place is not None:
            party.messenger.send(np.array([place], "<u2").view(np.uint8), PLACE_BITS)
    party.messenger.trace.turn_to(inference)


def hear(party: Party, idle_s: float | None = None) -> tuple[int, int]:
    """Rank 0 waits for what rank 1 names, and a place, see `ask`; the phase is known once it is read.

    With `idle_s` rank 1 may take so long, and only has to live, see `Wire.expect`.
    """
    messenger = party.messenger
    with messenger.layer("online", BEGIN_LAYER):
        code = int(messenger.receive(COMMAND_BITS, idle_s)[0])
        messenger.trace.entries[-1].phase = _PHASES.get(code, "online")
        if code != INSTALL:
            return code, 0
        return code, int(messenger.receive(PLACE_BITS).view("<u2")[0])


def disown(trace: Trace) -> None:
    """What the last command began was not finished, and is for nobody: it is in no inference's books."""
    begun = max(
        (e.number for e in trace.entries if e.layer == BEGIN_LAYER), default=len(trace.entries)
    )
    for entry in trace.entries[begun:]:
        entry.inference = None
