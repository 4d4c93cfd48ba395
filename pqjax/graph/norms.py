"""How large the filters of a network's layers are: what may be said of them to make ciphertexts short.

Errors of encrypted layers grow with the Euclidean norm of filters. Where a graph declares nothing, room
is left for any weights of their width, several times as much as real ones take.
"""

import dataclasses

import numpy as np
from jaxtyping import Integer

from pqjax.graph.ir import Graph, Linear, Weights


def square_bits(weight: Integer[np.ndarray, "*s K"]) -> int:
    """The least n such that no filter's squares sum to more than 2^n."""
    flat = weight.reshape(-1, weight.shape[-1])
    most = max(abs(int(flat.min())), abs(int(flat.max())))
    wide = 2 * most.bit_length() + len(flat).bit_length() > 63  # then sums of Python integers
    squares = (flat.astype(object if wide else np.int64) ** 2).sum(0)
    return max(0, int(squares.max()) - 1).bit_length()


def with_norms(graph: Graph, weights: Weights) -> Graph:
    """The graph, with every layer declaring how large its filters are: to half a bit of the norm.

    Everybody who sees the graph, every client among them, then knows that much of the weights.
    """
    nodes = (
        dataclasses.replace(n, square_bits=square_bits(np.asarray(weights[f"{n.name}/weight"])))
        if isinstance(n, Linear)
        else n
        for n in graph
    )
    return Graph(tuple(nodes))
