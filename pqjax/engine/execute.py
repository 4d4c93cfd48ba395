"""Running a plan: the same steps at both parties, layer by layer, in two phases.

`prepare` does all that needs no input: random OTs and, where the plan says so, every linear layer on
a share r that the client draws for the layer's input ahead of time. `infer` spends one preparation.
The mirror image of `pqjax.planner.cost`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pqjax.errors import OutOfCorrelations
from pqjax.graph.ir import (
    Add,
    ArgMax,
    AvgPool,
    Clamp,
    Conv,
    Dense,
    Extend,
    Flatten,
    Input,
    MaxPool,
    Narrow,
    Node,
    Pad,
    Relu,
    ScaleUp,
    Subsample,
    TensorType,
    Truncate,
    TruncateReduce,
    Weights,
    rounding_half,
)
from pqjax.graph.passes import own_input
from pqjax.linear import Encoded, Job, Method, ahead, on_shares
from pqjax.ot.setup import fill_stocks
from pqjax.planner.cost import job_of, method_for, tile_cost, tiles
from pqjax.planner.plan import (
    BEGIN_LAYER,
    COMMAND_BITS,
    REVEAL_LAYER,
    STOCK_LAYER,
    Plan,
    Step,
)
from pqjax.protocols.clamp import clamp
from pqjax.protocols.nonlinear import arg_max, average_pool, max_tree, relu, window_view
from pqjax.protocols.party import Party
from pqjax.protocols.resize import Forms, extend, truncate, truncate_reduce
from pqjax.ring import Ring
from pqjax.wire.cost import Cost

Progress = Callable[[str, int, int], None]  # phase and layer, layers done, layers in all


class Preparation:
    """All that one inference uses up. Each piece can be taken once; then it is gone."""

    def __init__(self) -> None:
        self._ready: dict[str, ahead.Ready] = {}

    def put(self, name: str, ready: ahead.Ready) -> None:
        """Stores a layer's ahead-of-time result."""
        self._ready[name] = ready

    def take(self, name: str) -> ahead.Ready:
        """Hands out a layer's result, for good."""
        if name not in self._ready:
            raise OutOfCorrelations(f"{name}: its preparation was used already or never made")
        return self._ready.pop(name)


def command(party: Party, phase: str, code: int) -> int:
    """The client names the phase that begins; both return the code."""
    with party.messenger.layer(phase, BEGIN_LAYER):
        if party.rank == 1:
            party.messenger.send(np.array([code], np.uint8), COMMAND_BITS)
            return code
        return int(party.messenger.receive(COMMAND_BITS)[0])


def prepare(
    party: Party, plan: Plan, weights: Weights | None, progress: Progress | None = None
) -> Preparation:
    """The offline phase, both parties at once: fills the store and runs linear layers ahead."""
    made = Preparation()
    steps = len(plan.steps)
    with party.messenger.layer("offline", STOCK_LAYER):
        _tell(progress, f"offline/{STOCK_LAYER}", 0, steps)
        fill_stocks(party.messenger, party.sender, party.receiver, plan.rots)
    for i, step in enumerate(plan.steps):
        _tell(progress, f"offline/{step.node.name}", i, steps)
        with party.messenger.layer("offline", step.node.name):
            if step.variant and plan.preset.ahead:
                made.put(step.node.name, _multiply_ahead(party, plan, step, weights))
    _tell(progress, "offline", steps, steps)
    return made


def infer(
    party: Party,
    plan: Plan,
    weights: Weights | None,
    preparation: Preparation,
    x: np.ndarray | None,
    progress: Progress | None = None,
) -> np.ndarray | None:
    """The online phase, both parties at once.

    Args:
      party: this party.
      plan: what both agreed on.
      weights: the model at rank 0, None at rank 1.
      preparation: this party's half of an unused preparation.
      x: the input at rank 1, None at rank 0.
      progress: told of every layer.

    Returns:
      The network's answer as integers at rank 1, None at rank 0.
    """
    values: dict[str, np.ndarray] = {}
    last_use = {source: i for i, step in enumerate(plan.steps) for source in step.node.sources}
    steps = len(plan.steps)
    for i, step in enumerate(plan.steps):
        _tell(progress, f"online/{step.node.name}", i, steps)
        with party.messenger.layer("online", step.node.name):
            values[step.node.name] = _run(party, plan, step, values, weights, preparation, x)
        for source in dict.fromkeys(step.node.sources):
            if last_use[source] == i:
                del values[source]
    _tell(progress, "online", steps, steps)
    with party.messenger.layer("online", REVEAL_LAYER):
        return _reveal(party, plan.graph.output.out, values[plan.graph.output.name])


def _tell(progress: Progress | None, where: str, done: int, steps: int) -> None:
    if progress is not None:
        progress(where, done, steps)


def _reveal(party: Party, out: TensorType, share: np.ndarray) -> np.ndarray | None:
    ring = Ring(out.bits)
    if party.rank == 0:
        party.messenger.send_elements(share, ring)
        return None
    other = party.messenger.receive_elements(out.n, ring).reshape(out.shape)
    y = ring.add(share, other)
    return ring.signed(y) if out.signed else y.astype(np.int64)


def _method(plan: Plan, step: Step) -> tuple[Method, Job]:
    node = step.node
    assert isinstance(node, (Conv, Dense)) and step.variant is not None
    job = job_of(plan.graph, node)
    return method_for(job, plan.preset, step.variant), job


def _encoded(method: Method, job: Job, name: str, weights: Weights | None) -> Encoded:
    assert weights is not None
    return method.encode(job, np.asarray(weights[f"{name}/weight"]))


def _multiply_ahead(party: Party, plan: Plan, step: Step, weights: Weights | None) -> ahead.Ready:
    method, job = _method(plan, step)
    if plan.streamed:
        _make_ots(party, method.cost(party.scheme, job))
    if party.rank == 1:
        return ahead.prepare_ask(party, method, job)
    return ahead.prepare_serve(party, method, job, _encoded(method, job, step.node.name, weights))


def _linear(
    party: Party, plan: Plan, step: Step, x: np.ndarray, weights, preparation: Preparation
) -> np.ndarray:
    (method, job), node, forms = _method(plan, step), step.node, plan.preset.forms
    x, ring = x.reshape(job.map.in_shape), Ring(job.bits)
    if plan.preset.ahead:
        # The client holds its own input in the clear; any other operand was extended before.
        if job.x.signed and own_input(plan.graph, node):
            x = Ring(job.x.bits).signed(x)
        x, ready = ring.reduce(x), preparation.take(node.name)
        if party.rank == 1:
            return ahead.ask(party, job, x, ready).reshape(node.out.shape)
        y = ahead.serve(party, job, _encoded(method, job, node.name, weights), x, ready)
    elif party.rank == 1:
        return on_shares.ask(party, method, job, x, forms).reshape(node.out.shape)
    else:
        encoded = _encoded(method, job, node.name, weights)
        y = on_shares.serve(party, method, job, encoded, x, forms)
    y = ring.add(y, ring.reduce(np.asarray(weights[f"{node.name}/bias"])))
    return y.reshape(node.out.shape)


def _share_input(party: Party, plan: Plan, out: TensorType, x: np.ndarray | None) -> np.ndarray:
    ring = Ring(out.bits)
    if plan.preset.ahead:  # the first layer's own masking shares it; until then it is the client's
        return ring.reduce(x) if party.rank == 1 else np.zeros(out.shape, ring.dtype)
    if party.rank == 0:
        return party.messenger.receive_elements(out.n, ring).reshape(out.shape)
    mask = party.randomness.elements(out.n, ring).reshape(out.shape)
    theirs, mine = ring.share(ring.reduce(x), mask)
    party.messenger.send_elements(theirs, ring)
    return mine


def _tiled(
    party: Party, plan: Plan, node: Node, x: np.ndarray, source: TensorType, forms: Forms
) -> np.ndarray:
    """An element-wise step, cut along the last axis so that its memory does not grow with the image."""
    done, at = [], 0
    for n in tiles(node):
        if plan.streamed:
            _make_ots(party, tile_cost(plan.graph, node, plan.preset, n))
        part = x[..., at : at + n]
        at += n
        if isinstance(node, Relu):
            done.append(relu(party, part, source.bits, forms))
        elif isinstance(node, MaxPool):
            done.append(max_tree(party, part, source.bits, forms))
        else:
            assert isinstance(node, (Extend, Truncate, TruncateReduce, Clamp))
            done.append(_resized(party, node, part, source, forms))
    return done[0] if len(done) == 1 else np.concatenate(done)


def _make_ots(party: Party, cost: Cost) -> None:
    """Makes the random OTs that what follows will draw."""
    fill_stocks(party.messenger, party.sender, party.receiver, cost.rots)


def _resized(
    party: Party,
    node: Extend | Truncate | TruncateReduce | Clamp,
    x: np.ndarray,
    source: TensorType,
    forms: Forms,
) -> np.ndarray:
    """A requantization's step that needs the wire, on flat shares."""
    bits, signed, nonnegative = source.bits, source.signed, source.nonnegative
    if isinstance(node, Extend):
        return extend(party, x, bits, node.out.bits, signed, nonnegative, forms)
    if isinstance(node, Clamp):
        out = Ring(node.out.bits)
        return clamp(party, x, bits, node.low, node.high, out, nonnegative, forms)
    if party.rank == 0:
        x = Ring(bits).add(x, Ring(bits).reduce(rounding_half(node.shift, node.rounding)))
    if isinstance(node, TruncateReduce):
        return truncate_reduce(party, x, bits, node.shift, node.out.bits)
    return truncate(party, x, bits, node.shift, signed, nonnegative, forms)


def _run(
    party: Party,
    plan: Plan,
    step: Step,
    values: dict[str, np.ndarray],
    weights: Weights | None,
    preparation: Preparation,
    x: np.ndarray | None,
) -> np.ndarray:
    node: Node = step.node
    if isinstance(node, Input):
        return _share_input(party, plan, node.out, x)
    share, source, forms = values[node.sources[0]], plan.graph.source(node), plan.preset.forms
    flat = share.reshape(-1)
    if isinstance(node, (Conv, Dense)):
        return _linear(party, plan, step, share, weights, preparation)
    if isinstance(node, (Relu, Extend, Truncate, TruncateReduce, Clamp)):
        return _tiled(party, plan, node, flat, source, forms).reshape(node.out.shape)
    if isinstance(node, Narrow):
        return Ring(node.out.bits).reduce(share)
    if isinstance(node, ScaleUp):
        ring = Ring(node.out.bits)
        return ring.shift_left(share.astype(ring.dtype), node.shift)
    if isinstance(node, Subsample):
        return share[:: node.stride[0], :: node.stride[1]]
    if isinstance(node, Pad):
        return np.pad(share, node.margins)
    if isinstance(node, Add):
        return Ring(node.out.bits).add(share, values[node.sources[1]])
    if isinstance(node, AvgPool):
        ring = Ring(node.out.bits)
        return average_pool(share, ring, node.window, node.stride, node.multiplier)
    if isinstance(node, Flatten):
        return flat
    assert isinstance(node, (MaxPool, ArgMax)) and node.headroom
    if isinstance(node, ArgMax):
        if plan.streamed:
            _make_ots(party, tile_cost(plan.graph, node, plan.preset, source.n))
        return arg_max(party, flat, source.bits, node.out.bits, forms)
    windows = window_view(share, node.window, node.stride)
    flat = windows.reshape(len(windows), -1)
    return _tiled(party, plan, node, flat, source, forms).reshape(node.out.shape)
