"""Three strategies for the width l of a layer's accumulator, HEQuant's: what each gives and costs.

worst case     l_w + l_x + ceil(log2 K), for any weights and operands of their widths
by weights     what the actual weights can reach on any operand; the width becomes public
by pictures    the largest sum on some pictures, and a bit more: others may overflow
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Integer

from pqjax.graph import Conv, Dense, Graph, every_value
from pqjax.graph.tensor import width_for
from pqjax.he import HEQUANT, two_way
from pqjax.layers import Task
from pqjax.layers.linear import job_of
from pqjax.linear.by_rlwe import bound

MARGIN_BITS = 1


def widths_by_strategy(
    graph: Graph,
    weights: Mapping[str, Int[np.ndarray, "*s"]],
    seen: Integer[np.ndarray, "n ..."],
    unseen: Integer[np.ndarray, "m ..."],
) -> list[dict]:
    """One row a strategy: widths by layer, bits of all linear layers by HEQuant, sums that overflow.

    Args:
      graph: the network.
      weights: its parameters.
      seen: inputs that the third strategy measures.
      unseen: inputs on which overflows are counted.
    """
    layers = [node for node in graph if isinstance(node, (Conv, Dense))]
    measured = every_value(graph, weights, seen)
    found: dict[str, dict[str, int]] = {}
    for node in layers:
        x, w = graph.source(node), weights[f"{node.name}/weight"].astype(np.int64)
        bias, terms = weights[f"{node.name}/bias"].astype(np.int64), node.terms(x)
        flat = w.reshape(-1, w.shape[-1])
        above, below = flat.clip(0).sum(0), -flat.clip(max=0).sum(0)
        high = int((above * x.high - below * x.low + bias).max())
        low = int((above * x.low - below * x.high + bias).min())
        sums = measured[node.name]
        found[node.name] = {
            "worst case": node.weight_bits + x.bits + (terms - 1).bit_length(),
            "by weights": width_for(low, high),
            "by pictures": width_for(int(sums.min()), int(sums.max())) + MARGIN_BITS,
        }
    others = every_value(graph, weights, unseen)
    return [_row(strategy, graph, found, others) for strategy in next(iter(found.values()))]


def _row(
    strategy: str,
    graph: Graph,
    found: Mapping[str, Mapping[str, int]],
    values: Mapping[str, np.ndarray],
) -> dict:
    bits, overflows, sums = 0, 0, 0
    for name, by in found.items():
        node, wide = graph[name], by[strategy]
        job = job_of(Task(node, (graph.source(node),)))
        at = two_way(job.map, wide, bound(job), HEQUANT)
        bits += at.sent_cost + at.reply_cost
        y, half = values[name], 1 << wide - 1
        overflows, sums = overflows + int(((y < -half) | (y >= half)).sum()), sums + y.size
    widths = {name: by[strategy] for name, by in found.items()}
    counts = {"overflows": overflows, "sums": sums}
    return {"strategy": strategy, "widths": widths, "linear_bits": bits, **counts}
