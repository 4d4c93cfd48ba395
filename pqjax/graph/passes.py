"""Graph -> Graph rewrites. Each keeps `reference` bit for bit and states what it assumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pqjax.graph.ir import (
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    MaxPool,
    Node,
    Relu,
    Requantize,
)

Price = Callable[[Graph, Node], float]  # what a node costs in a graph, in bits or seconds
Pass = Callable[[Graph, Price], Graph]


def absorb_relu(graph: Graph, price: Price) -> Graph:
    """Drops a ReLU whose only reader clamps at zero anyway, where that is cheaper.

        relu -> requantize (saturate to a range from 0)   =>   requantize (saturate)

    Rounding keeps the order of values and maps 0 to 0, so clamping the rounded value at 0 is the
    same as rounding the clamped one. Assumes nothing about the sign of the source. Before: a
    comparison and a MUX at the accumulator's width; after: one more comparison at the short width,
    which is dearer only where the shift is short.
    """
    readers: dict[str, list[Node]] = {}
    for node in graph:
        for source in node.sources:
            readers.setdefault(source, []).append(node)
    dropped: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph:
        if isinstance(node, Relu):
            users = readers.get(node.name, [])
            if (
                len(users) == 1
                and _clamps_at_zero(users[0])
                and _saves(graph, node, users[0], price)
            ):
                dropped[node.name] = node.sources[0]
                continue
        sources = tuple(dropped.get(source, source) for source in node.sources)
        kept.append(dataclasses.replace(node, sources=sources))
    return Graph(tuple(kept))


def _saves(graph: Graph, relu: Relu, reader: Node, price: Price) -> bool:
    direct = dataclasses.replace(reader, sources=relu.sources)
    nodes = tuple(direct if node is reader else node for node in graph)
    return price(Graph(nodes), direct) < price(graph, relu) + price(graph, reader)


def _clamps_at_zero(node: Node) -> bool:
    return isinstance(node, Requantize) and node.rule == "saturate" and node.out.low == 0


def worst_case_widths(graph: Graph, price: Price) -> Graph:
    """Widens every accumulator to l_w + l_x + ceil(log2 K), as the published protocols do.

        conv (weight-aware 12 bits) -> relu   =>   conv (worst case 16 bits) -> relu

    Values do not change, only the rings they live in. What reads an accumulator without fitting it
    into a format of its own (ReLU, pooling, flatten) is widened with it, by as many bits more as
    its windows need. Assumes widths that hold their values. Costs more: it is here for comparison.
    """
    del price
    wide: dict[str, int] = {}
    nodes: list[Node] = []
    for node in graph:
        out = node.out
        if isinstance(node, (Conv, Dense)):
            source = graph.source(node)
            terms = source.n if isinstance(node, Dense) else (
                node.kernel[0] * node.kernel[1] * source.shape[2] // node.groups
            )  # fmt: skip
            room = _pool_bits(graph, node.name)
            bits = node.weight_bits + source.bits + (terms - 1).bit_length() + room
            wide[node.name] = max(out.bits, bits)
        elif isinstance(node, (Relu, AvgPool, MaxPool, Flatten)) and node.sources[0] in wide:
            wide[node.name] = max(out.bits, wide[node.sources[0]])
        bits = wide.get(node.name, out.bits)
        nodes.append(dataclasses.replace(node, out=dataclasses.replace(out, bits=bits)))
    return Graph(tuple(nodes))


def _pool_bits(graph: Graph, name: str) -> int:
    """Bits that an average pool behind this accumulator (and its ReLU) adds."""
    for node in graph:
        if node.sources and node.sources[0] == name:
            if isinstance(node, Relu):
                return _pool_bits(graph, node.name)
            if isinstance(node, AvgPool):
                area = node.window[0] * node.window[1] * node.multiplier
                return (area - 1).bit_length()
    return 0
