"""What one node costs by itself, as passes and the choice of variants compare it."""

from __future__ import annotations

import dataclasses
import functools

from pqjax.graph.ir import Conv, Dense, Graph, Input, Node, TensorType
from pqjax.graph.rewrite import Price
from pqjax.linear import FULL
from pqjax.ot.setup import fill_stocks_cost
from pqjax.planner.cost import StepCost, linear_cost, node_cost
from pqjax.planner.presets import Preset
from pqjax.wire.link import Link


@functools.lru_cache(maxsize=8)
def pricing(preset: Preset, link: Link | None) -> Price:
    """What a node costs under a preset: bits, or seconds on a link; linear layers at their best.

    Formats alone decide, so nodes that differ in name only are priced once. What is kept is little: a
    stranger's plans have links and formats of their own.
    """

    @functools.lru_cache(maxsize=1 << 12)
    def of(node: Node, *sources: TensorType) -> float:
        inputs = [Input(f"x{i}", (), source) for i, source in enumerate(sources[:1])]
        named = dataclasses.replace(node, sources=("x0",) * len(sources))
        graph = Graph((*inputs, named))
        variant = None
        if isinstance(named, (Conv, Dense)):
            if preset.variants == FULL and graph.source(named).bits < named.out.bits:
                return 0.0  # not lowered yet: the extension of its operand will come
            variant = cheapest(graph, named, preset, link)
        return priced(node_cost(graph, named, preset, variant), preset, link)

    def price(graph: Graph, node: Node) -> float:
        types = [graph.source(node, i) for i in range(len(node.sources))]
        return of(node.unnamed, *types)

    return price


def cheapest(graph: Graph, node: Conv | Dense, preset: Preset, link: Link | None) -> str:
    """The preset's variant of least price for a linear layer."""
    return min(
        preset.variants, key=lambda v: priced(linear_cost(graph, node, preset, v), preset, link)
    )


def priced(cost: StepCost, preset: Preset, link: Link | None) -> float:
    """What a layer costs, the making of its stored OTs included: bits, or seconds on a link."""
    both = cost.offline + cost.online
    both += fill_stocks_cost(preset.scheme, both.rots)
    return link.seconds(*both.sent, both.flows) if link else both.bits
