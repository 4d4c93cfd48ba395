"""What a client may ask for after the base OTs: prepare, infer, goodbye; each begins a phase.

Nothing else is ever negotiated; sizes and order of all frames follow from the plan. Preparations are
used up in the order in which they were made, so the n-th is the n-th inference's on both sides.
"""

import numpy as np

from pqjax.planner.plan import BEGIN_LAYER, COMMAND_BITS
from pqjax.protocols.party import Party

GOODBYE, PREPARE, INFER = 0, 1, 2
MOST_PREPARED = 8  # preparations a client may have in store; each takes memory on both sides


def ask(party: Party, code: int, inference: int | None) -> None:
    """Rank 1 names what begins, and enters it and what follows under this inference.

    1. rank 1 -> rank 0   the code.   `COMMAND_BITS` bits
    """
    with party.messenger.layer("offline" if code == PREPARE else "online", BEGIN_LAYER):
        party.messenger.send(np.array([code], np.uint8), COMMAND_BITS)
    party.messenger.trace.turn_to(inference)


def hear(party: Party, idle_s: float | None = None) -> int:
    """Rank 0 waits for what rank 1 names, see `ask`; the phase is known only once it is read.

    With `idle_s` rank 1 may take so long, and only has to live, see `Wire.expect`.
    """
    messenger = party.messenger
    with messenger.layer("online", BEGIN_LAYER):
        code = int(messenger.receive(COMMAND_BITS, idle_s)[0])
        if code == PREPARE:
            messenger.trace.entries[-1].phase = "offline"
    return code
