"""How the client's input becomes shared."""

from typing import Any

import numpy as np

from pqjax.layers.rule import Rule, Setting, Share, StepCost, Task
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import message


class InputRule(Rule):
    """The client's input: shared by a message, or the client's share as it is."""

    def cost(self, at: Setting, task: Task) -> StepCost:
        """A masked input is one message."""
        out = task.node.out
        return StepCost(online=message(1, out.n * out.bits)) if at.masked_input else StepCost()

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """Shares of the client's integers, `own` at rank 1."""
        out = task.node.out
        ring = Ring(out.bits)
        if not at.masked_input:
            return np.zeros(out.shape, ring.dtype) if party.rank == 0 else ring.reduce(own)
        if party.rank == 0:
            return party.messenger.receive_elements(out.n, ring).reshape(out.shape)
        mask = party.randomness.elements(out.n, ring).reshape(out.shape)
        theirs, mine = ring.share(ring.reduce(own), mask)
        party.messenger.send_elements(theirs, ring)
        return mine


INPUT = InputRule()
