"""Which tensors may overflow: hold a value that is defined in its ring only.

An accumulator of measured width ("empirical") may leave its format on inputs nobody measured; then it
holds the low bits of its sum, some value of the format. What is done with it before a shift or a clamp
(a residual's addition, a pool, the rounding addition of the shift) may wrap around as well. A shift and
a clamp end it: to them every value of their source's format is as good as any other, so that interval
arithmetic from the whole format is sound behind them; so it is behind a product, which has a width of
its own. That a tensor may overflow follows from the graph; nobody declares it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from pqjax.graph.ir import Graph, Requantize, Truncate, TruncateReduce
from pqjax.graph.tensor import rounding_half


def overflowing(graph: Graph) -> frozenset[str]:
    """Names of all tensors that may overflow."""
    found: set[str] = set()
    for node in graph:
        if node.overflows or (node.hands_on and not found.isdisjoint(node.sources)):
            found.add(node.name)
    return frozenset(found)


def may_overflow(graph: Graph, name: str) -> bool:
    """Whether one tensor may; looks no further than the steps that end it, and never twice."""
    known, ahead = graph.memo.setdefault(may_overflow, {}), [name]
    while ahead:
        node = graph[ahead[-1]]
        sources = node.sources if node.hands_on and node.name not in known else ()
        unknown = [source for source in sources if source not in known]
        if not unknown:
            found = node.overflows or any(known[source] for source in sources)
            known.setdefault(node.name, found)
            ahead.pop()
        ahead += unknown
    return known[name]


def wrap_rates(graph: Graph, values: Mapping[str, Int[np.ndarray, "..."]]) -> dict[str, float]:
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
