"""What one node costs by itself, as passes and the choice of variants compare it."""

from __future__ import annotations

import dataclasses
import functools

from pqjax.graph.ir import Conv, Dense, Graph, Input, Narrow, Node, TensorType
from pqjax.graph.rewrite import Price
from pqjax.ot.setup import fill_stocks_cost
from pqjax.planner.cost import StepCost, linear_cost, node_cost
from pqjax.planner.presets import Preset
from pqjax.protocols.linear_ot import FULL
from pqjax.wire.link import Link


@functools.lru_cache(maxsize=8)
def pricing(preset: Preset, link: Link | None) -> Price:
    """What a node costs under a preset: bits, or seconds on a link; linear layers at their best.

    Formats alone decide, so nodes that differ in name only are priced once. What is kept is little: a
    stranger's plans have links and formats of their own.
    """

    @functools.lru_cache(maxsize=1 << 12)
    def of(node: Node, *sources: TensorType) -> float:
        graph = by_itself(node, *sources)
        named, variant = graph.output, None
        if isinstance(named, (Conv, Dense)):
            if preset.variants == FULL and graph.source(named).bits < named.out.bits:
                return 0.0  # not lowered yet: the extension of its operand will come
            variant = cheapest(graph, named, preset, link)
        return priced(node_cost(graph, named, preset, variant), preset, link)

    def price(graph: Graph, node: Node) -> float:
        return of(node.unnamed, *graph.types(node))

    return price


def by_itself(node: Node, *sources: TensorType) -> Graph:
    """A graph whose last node is this one, reading tensors of these formats."""
    read: list[Node] = [Input("x0", (), source) for source in sources[:1]]
    # A graph has one input; what makes the other tensors is not looked at.
    read += [Narrow(f"x{i}", ("x0",), source) for i, source in enumerate(sources) if i]
    return Graph((*read, dataclasses.replace(node, sources=tuple(each.name for each in read))))


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
