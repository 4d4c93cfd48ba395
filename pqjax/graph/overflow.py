"""Which tensors may overflow: hold a value that is defined in its ring only.

An accumulator of measured width ("empirical") may leave its format on inputs nobody measured; then it
holds the low bits of its sum, some value of the format. Steps that stay in its ring (a residual's
addition, a pool, a rounding) may wrap around as well. A step that chooses a format ends it: what it
makes of any value of its source's format is exact, so interval arithmetic from the whole format is
sound behind it. That a tensor may overflow follows from the graph; nobody declares it.
"""

from __future__ import annotations

import numpy as np

from pqjax.graph.ir import (
    Add,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    MaxPool,
    Narrow,
    Node,
    Pad,
    Relu,
    Requantize,
    Subsample,
    Truncate,
    TruncateReduce,
    rounding_half,
)

SAME_RING = (Relu, AvgPool, MaxPool, Flatten, Add, Subsample, Pad)  # compute in their source's ring


def stays_in_ring(graph: Graph, node: Node) -> bool:
    """Whether a node's tensor is in its source's ring; so is one that is only read anew."""
    if isinstance(node, Narrow):
        source = graph.source(node)
        return source.bits == node.out.bits and source.signed and node.out.signed
    return isinstance(node, SAME_RING)


def overflowing(graph: Graph) -> frozenset[str]:
    """Names of all tensors that may overflow."""
    found: set[str] = set()
    for node in graph:
        if isinstance(node, (Conv, Dense)):
            if node.widths == "empirical":
                found.add(node.name)
        elif not found.isdisjoint(node.sources) and stays_in_ring(graph, node):
            found.add(node.name)
    return frozenset(found)


def may_overflow(graph: Graph, name: str) -> bool:
    """Whether one tensor may; looks no further than the steps that chose its ring."""
    seen, ahead = {name}, [name]
    while ahead:
        node = graph[ahead.pop()]
        if isinstance(node, (Conv, Dense)):
            if node.widths == "empirical":
                return True
        elif stays_in_ring(graph, node):
            ahead += [source for source in node.sources if source not in seen]
            seen.update(node.sources)
    return False


def wrap_rates(graph: Graph, values: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of values that leave the range at each Requantize, from `every_value`'s tensors.

    Counted are values that do not fit the result's format, and values that may overflow and do by the
    rounding addition (so do those of a Truncate or TruncateReduce, which are named only then).
    """
    rates = {}
    loose = overflowing(graph)
    for node in graph:
        if not isinstance(node, (Requantize, Truncate, TruncateReduce)):
            continue
        source = graph.source(node)
        whole = isinstance(node, Requantize)
        shift = source.scale - node.out.scale if whole else node.shift
        x = values[node.sources[0]].astype(np.int64)
        half = rounding_half(shift, node.rounding)
        lost = np.zeros(x.shape, bool)
        if half and node.sources[0] in loose:
            lost = x > source.high - half
        if whole:
            low, high = node.out.low, node.out.high
            if shift < 0:  # compared before the shift, which might not fit 64 bits
                lost = (x < -(-low >> -shift)) | (x > high >> -shift)
            else:
                # (x + half) >> shift without the sum: the carry is 1 where x's low part reaches half.
                up = ((x & ((1 << shift) - 1)) >= half) & (half > 0)
                y = (x >> shift) + up
                lost = lost | (y < low) | (y > high)
        if whole or lost.any():
            rates[node.name] = float(lost.mean())
    return rates
