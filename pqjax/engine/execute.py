"""Running a plan: the same steps at both parties, layer by layer, in two phases.

`prepare` does all that needs no input: random OTs and, where the plan says so, linear layers on a share
that the client draws for their input ahead of time. `infer` spends one preparation. How a node is run
is its rule's business (`pqjax.layers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, UInt

from pqjax.errors import OutOfCorrelations
from pqjax.graph.ir import TensorType
from pqjax.layers import rule_of
from pqjax.planner.plan import REVEAL_LAYER, STOCK_LAYER, Plan
from pqjax.protocols.party import Party
from pqjax.ring import Ring

Progress = Callable[[str, int, int], None]  # phase and layer, layers done, layers in all
Loaded = Mapping[str, object]  # the server's weights of every layer, as `load` made them


class Preparation:
    """All that one inference uses up. Each piece can be taken once; then it is gone."""

    def __init__(self) -> None:
        self._ready: dict[str, object] = {}

    def put(self, name: str, ready: object) -> None:
        """Stores what a layer did ahead of time."""
        self._ready[name] = ready

    def take(self, name: str) -> object:
        """Hands out what a layer did, for good."""
        if name not in self._ready:
            raise OutOfCorrelations(f"{name}: its preparation was used already or never made")
        return self._ready.pop(name)


def load(plan: Plan, weights: Mapping[str, np.ndarray]) -> Loaded:
    """The model's parameters as its layers use them: made once, shared by all sessions."""
    made = {s.node.name: rule_of(s.node).load(s.task, weights) for s in plan.steps}
    return {name: loaded for name, loaded in made.items() if loaded is not None}


def prepare(
    party: Party, plan: Plan, loaded: Loaded, progress: Progress | None = None
) -> Preparation:
    """The offline phase, both parties at once: fills the store and runs linear layers ahead.

    Args:
      party: this party.
      plan: what both agreed on.
      loaded: the model at rank 0, nothing at rank 1.
      progress: told of every layer.
    """
    made, steps = Preparation(), len(plan.steps)
    with party.messenger.layer("offline", STOCK_LAYER):
        _tell(progress, f"offline/{STOCK_LAYER}", 0, steps)
        party.fill(plan.rots)
    for i, step in enumerate(plan.steps):
        _tell(progress, f"offline/{step.node.name}", i, steps)
        with party.messenger.layer("offline", step.node.name):
            own = loaded.get(step.node.name)
            rule = rule_of(step.node)
            made.put(step.node.name, rule.prepare(party, plan.setting, step.task, own))
    _tell(progress, "offline", steps, steps)
    return made


def infer(
    party: Party,
    plan: Plan,
    loaded: Loaded,
    preparation: Preparation,
    x: Int[np.ndarray, "..."] | None,
    progress: Progress | None = None,
) -> Int[np.ndarray, "..."] | None:
    """The online phase, both parties at once.

    Args:
      party: this party.
      plan: what both agreed on.
      loaded: the model at rank 0, nothing at rank 1.
      preparation: this party's half of an unused preparation.
      x: the input at rank 1, None at rank 0.
      progress: told of every layer.

    Returns:
      The network's answer as integers at rank 1, None at rank 0.
    """
    values: dict[str, np.ndarray] = {}
    last_use = {source: i for i, step in enumerate(plan.steps) for source in step.node.sources}
    mine = loaded if x is None else {plan.graph.input.name: x}
    steps = len(plan.steps)
    for i, step in enumerate(plan.steps):
        name, sources = step.node.name, step.node.sources
        _tell(progress, f"online/{name}", i, steps)
        with party.messenger.layer("online", name):
            ready, own = preparation.take(name), mine.get(name)
            shares = [values[source] for source in sources]
            run = rule_of(step.node).run
            values[name] = run(party, plan.setting, step.task, own, ready, *shares)
        for source in dict.fromkeys(sources):
            if last_use[source] == i:
                del values[source]
    _tell(progress, "online", steps, steps)
    with party.messenger.layer("online", REVEAL_LAYER):
        return _reveal(party, plan.graph.output.out, values[plan.graph.output.name])


def _tell(progress: Progress | None, where: str, done: int, steps: int) -> None:
    if progress is not None:
        progress(where, done, steps)


def _reveal(
    party: Party, out: TensorType, share: UInt[np.ndarray, "..."]
) -> Int[np.ndarray, "..."] | None:
    ring = Ring(out.bits)
    if party.rank == 0:
        party.messenger.send_elements(share, ring)
        return None
    other = party.messenger.receive_elements(out.n, ring).reshape(out.shape)
    y = ring.add(share, other)
    return ring.signed(y) if out.signed else y.astype(np.int64)
