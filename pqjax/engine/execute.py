"""Running a plan: the same steps at both parties, layer by layer, in two phases.

`prepare` does all that needs no input: random OTs and, where the plan says so, linear layers on a share
that the client draws for their input ahead of time. `infer` spends one preparation. How a node is run
is its rule's business (`pqjax.layers`).
"""

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, UInt, UInt8

from pqjax.errors import OutOfCorrelations
from pqjax.graph.ir import TensorType
from pqjax.he import Version
from pqjax.layers import rule_of
from pqjax.linear.keys import exchange_keys
from pqjax.ot.source import OtReceiver, OtSender
from pqjax.planner.plan import KEYS_LAYER, REVEAL_LAYER, STOCK_LAYER, Plan
from pqjax.protocols.party import Party
from pqjax.ring import Ring

Progress = Callable[[str, int, int], None]  # phase and layer, layers done, layers in all


@dataclasses.dataclass(frozen=True, repr=False)  # the model
class Own:
    """What one party alone has of a model, made once and used in all inferences.

    Attributes:
      layers: by layer, the server's weights as `load` made them, or the client's hints.
      seed: of the model's public polynomials, where any layer uses them.
    """

    layers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: bytes = b""


Ends = tuple[OtSender, OtReceiver]


class Preparation:
    """All that one inference uses up. Each piece can be taken once; then it is gone.

    Attributes:
      ends: this party's, where the OTs to be drawn were set aside; else it draws on the session's.
    """

    def __init__(self) -> None:
        self._ready: dict[str, object] = {}
        self.ends: Ends | None = None

    def put(self, name: str, ready: object) -> None:
        """Stores what a layer did ahead of time."""
        self._ready[name] = ready

    def take(self, name: str) -> object:
        """Hands out what a layer did, for good."""
        if name not in self._ready:
            raise OutOfCorrelations(f"{name}: its preparation was used already or never made")
        return self._ready.pop(name)

    def take_all(self) -> dict[str, object]:
        """Hands out what all layers did, for good."""
        ready, self._ready = self._ready, {}
        return ready


def load(plan: Plan, weights: Mapping[str, np.ndarray], version: Version) -> Own:
    """The model's parameters as its layers use them: made once, shared by all sessions."""
    made = {s.node.name: rule_of(s.node).load(s.task, weights, version) for s in plan.steps}
    layers = {name: loaded for name, loaded in made.items() if loaded is not None}
    return Own(types.MappingProxyType(layers), version.seed)


def make_hints(
    plan: Plan, own: Own, version: Version, progress: Progress | None = None
) -> Iterator[UInt8[np.ndarray, " bytes"]]:
    """The hints of `plan.hinted`, in that order, of what `load` made with this version."""
    for i, step in enumerate(plan.hinted):
        name = step.node.name
        _tell(progress, f"install/{name}", i, len(plan.hinted))
        yield rule_of(step.node).hint(step.task, own.layers[name], version)
    _tell(progress, "install", len(plan.hinted), len(plan.hinted))


def prepare(party: Party, plan: Plan, own: Own, progress: Progress | None = None) -> Preparation:
    """The offline phase, both parties at once: fills the store and runs linear layers ahead.

    `own` is what this party alone has; `progress` is told of every layer.
    """
    made, steps, keys = Preparation(), len(plan.steps), None
    with party.messenger.layer("offline", STOCK_LAYER):
        _tell(progress, f"offline/{STOCK_LAYER}", 0, steps)
        party.fill(plan.orders[0], plan.streamed)
    if plan.secrets.count:
        with party.messenger.layer("offline", KEYS_LAYER):
            keys = exchange_keys(party, own.seed, plan.secrets)
    for i, step in enumerate(plan.steps):
        _tell(progress, f"offline/{step.node.name}", i, steps)
        with party.messenger.layer("offline", step.node.name):
            mine = own.layers.get(step.node.name)
            rule = rule_of(step.node)
            made.put(step.node.name, rule.prepare(party, plan.setting, step.task, mine, keys))
    _tell(progress, "offline", steps, steps)
    return made


def infer(
    party: Party,
    plan: Plan,
    own: Own,
    preparation: Preparation,
    x: Int[np.ndarray, "..."] | None,
    progress: Progress | None = None,
) -> Int[np.ndarray, "..."] | None:
    """The online phase, both parties at once: at rank 1 the network's answer, at rank 0 None.

    `own` and `progress` as for `prepare`; `preparation` is this party's half of an unused one; `x` is
    the input at rank 1, or a batch of as many as planned (n, ...), None at rank 0.
    """
    values: dict[str, np.ndarray] = {}
    last_use = {source: i for i, step in enumerate(plan.steps) for source in step.node.sources}
    layers = own.layers if x is None else {**own.layers, plan.graph.input.name: x}
    steps = len(plan.steps)
    if preparation.ends is not None:
        sender, receiver = preparation.ends
        party = dataclasses.replace(party, sender=sender, receiver=receiver)
    if plan.streamed:
        with party.messenger.layer("online", STOCK_LAYER):
            party.fill(plan.orders[1], plan.streamed)
    for i, step in enumerate(plan.steps):
        name, sources = step.node.name, step.node.sources
        _tell(progress, f"online/{name}", i, steps)
        with party.messenger.layer("online", name):
            ready, mine = preparation.take(name), layers.get(name)
            shares = [values[source] for source in sources]
            run = rule_of(step.node).run
            values[name] = run(party, plan.setting, step.task, mine, ready, *shares)
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
    other = party.messenger.receive_elements(share.size, ring).reshape(share.shape)
    y = ring.add(share, other)
    return ring.signed(y) if out.signed else y.astype(np.int64)
