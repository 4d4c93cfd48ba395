"""What each layer costs, exactly, by phase; the mirror image of `pqjax.engine.execute`."""

from __future__ import annotations

import dataclasses

from pqjax.errors import PlanError
from pqjax.graph.ir import (
    ArgMax,
    Clamp,
    Conv,
    Dense,
    Extend,
    Graph,
    Input,
    MaxPool,
    Node,
    Relu,
    Requantize,
    Truncate,
    TruncateReduce,
)
from pqjax.graph.lower import lower, with_headroom
from pqjax.graph.passes import own_input
from pqjax.linear import Choice, Job, LinearMap, Method, ahead_cost, method_of, on_shares_cost
from pqjax.planner.presets import Preset
from pqjax.protocols.clamp import clamp_cost
from pqjax.protocols.nonlinear import arg_max_cost, max_tree_cost, relu_cost
from pqjax.protocols.resize import extend_cost, truncate_cost, truncate_reduce_cost
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, message, total

TILE = 1 << 17  # elements of a tensor that run together: what bounds memory in a large layer
_TILED = (Relu, Extend, Truncate, TruncateReduce, Clamp, MaxPool)


def tiles(node: Node) -> list[int]:
    """How many elements of its result a step works on at a time; one entry where it is not cut."""
    n = node.out.n
    if not isinstance(node, _TILED) or n <= TILE:
        return [n]
    return [TILE] * (n // TILE) + [n % TILE] * (n % TILE > 0)


def tile_cost(graph: Graph, node: Node, preset: Preset, n: int) -> Cost:
    """What n elements of an element-wise step (windows, of a max pool) send."""
    source = dataclasses.replace(graph.source(node), shape=(n,))
    out = dataclasses.replace(node.out, shape=(n,))
    small = Graph((Input("x", (), source), dataclasses.replace(node, sources=("x",), out=out)))
    return _whole_cost(small, small.output, preset)


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One layer's cost: work before the input is known, and after."""

    offline: Cost = NOTHING
    online: Cost = NOTHING

    @property
    def bits(self) -> int:
        """Payload bits of both phases; stored random OTs are counted where they are made."""
        return self.offline.bits + self.online.bits


def job_of(graph: Graph, node: Conv | Dense) -> Job:
    """What a linear layer multiplies, without its bias."""
    source = graph.source(node)
    if isinstance(node, Conv):
        *image, inputs = source.shape
        shape = (image[0], image[1]), node.kernel, node.stride, node.padding
        linear_map = LinearMap(*shape, (1, 1), node.groups, inputs, node.out.shape[2])
    else:
        linear_map = LinearMap.pointwise((1, 1), source.shape[0], node.out.shape[0])
    if linear_map.groups > 1 and not linear_map.reading:
        raise PlanError(f"{node.name}: its outputs read nothing but padding")
    return Job(linear_map, node.weight_bits, source, node.out.bits)


def method_for(job: Job, preset: Preset, variant: str) -> Method:
    """How a preset multiplies: by patches where there is one group, else by pixels."""
    form = "pixels" if job.map.groups > 1 else "patches"
    return method_of(Choice("ot", variant, form, "ahead" if preset.ahead else "shared"))


def linear_cost(graph: Graph, node: Conv | Dense, preset: Preset, variant: str) -> StepCost:
    """A linear layer in one variant: on the shared operand, or ahead on a share drawn for it."""
    job = job_of(graph, node)
    method = method_for(job, preset, variant)
    why = method.fits(job, preset.ahead and own_input(graph, node))
    if why is not None:
        raise PlanError(f"{node.name}: variant {variant!r} {why}")
    if preset.ahead:
        return StepCost(*ahead_cost(preset.scheme, method, job))
    return StepCost(online=on_shares_cost(preset.scheme, method, job, preset.forms))


def node_cost(graph: Graph, node: Node, preset: Preset, variant: str | None = None) -> StepCost:
    """What a node sends; `variant` for linear layers, else the one of fewest bits."""
    if isinstance(node, Input):
        return StepCost(online=NOTHING if preset.ahead else message(1, node.out.n * node.out.bits))
    if isinstance(node, (Conv, Dense)):
        assert variant is not None
        return linear_cost(graph, node, preset, variant)
    parts = tiles(node)
    if len(parts) == 1:
        return StepCost(online=_whole_cost(graph, node, preset))
    costs = {n: tile_cost(graph, node, preset, n) for n in dict.fromkeys(parts)}
    return StepCost(online=total([costs[n] for n in parts]))


def _whole_cost(graph: Graph, node: Node, preset: Preset) -> Cost:
    """What a node without weights sends if it runs in one piece."""
    scheme, forms = preset.scheme, preset.forms
    source = graph.source(node)
    n, bits = source.n, source.bits
    cost = NOTHING
    if isinstance(node, Requantize):
        small = Graph((Input(node.sources[0], (), source), *lower(node, source)))
        return total([_whole_cost(small, n, preset) for n in small.nodes[1:]])
    if isinstance(node, Relu):
        cost = relu_cost(scheme, n, bits, forms)
    elif isinstance(node, Extend):
        cost = extend_cost(scheme, n, bits, node.out.bits, source.signed, source.nonnegative, forms)
    elif isinstance(node, Truncate):
        cost = truncate_cost(scheme, n, bits, node.shift, source.signed, source.nonnegative, forms)
    elif isinstance(node, TruncateReduce):
        cost = truncate_reduce_cost(scheme, n, bits, node.shift, node.out.bits)
    elif isinstance(node, Clamp):
        out = Ring(node.out.bits)
        cost = clamp_cost(scheme, n, bits, node.low, out, source.nonnegative, forms)
    elif isinstance(node, (MaxPool, ArgMax)) and not (node.headroom or source.nonnegative):
        small = Graph((Input(node.sources[0], (), source), *with_headroom(node, source)))
        return total([_whole_cost(small, n, preset) for n in small.nodes[1:]])
    elif isinstance(node, MaxPool):
        k = node.window[0] * node.window[1]
        cost = max_tree_cost(scheme, k, node.out.n, bits, forms)
    elif isinstance(node, ArgMax):
        cost = arg_max_cost(scheme, n, bits, node.out.bits, forms)
    return cost  # nothing where it is local
