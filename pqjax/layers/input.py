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
        bits = task.elements * task.node.out.bits
        return StepCost(online=message(1, bits)) if at.masked_input else StepCost()

    def run(self, party: Party, at: Setting, task: Task, own: Any, ready: Any, *x: Share) -> Share:
        """Shares of the client's integers, `own` at rank 1."""
        ring, n, shape = Ring(task.node.out.bits), task.elements, task.shape
        if not at.masked_input:
            return np.zeros(shape, ring.dtype) if party.rank == 0 else ring.reduce(own)
        if party.rank == 0:
            return party.messenger.receive_elements(n, ring).reshape(shape)
        mask = party.randomness.elements(n, ring).reshape(shape)
        theirs, mine = ring.share(ring.reduce(own), mask)
        party.messenger.send_elements(theirs, ring)
        return mine


INPUT = InputRule()
