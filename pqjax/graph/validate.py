"""Does a graph make sense, can every width in it hold the values that reach it, do its protocols hold?

Every protocol states beside it what it needs (its `..._unfit`); the walk over the graph asks it for
every node that runs it, on the graph as written and on the one that passes made of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pqjax.errors import GraphError, listed
from pqjax.graph.intervals import Interval, Intervals, fail, reach, width_for
from pqjax.graph.ir import (
    ArgMax,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Node,
    Pad,
    Subsample,
    Weights,
)

__all__ = ["Interval", "reach", "validate", "width_for"]


def _pooled(node: MaxPool | AvgPool, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3 or shape[0] < node.window[0] or shape[1] < node.window[1]:
        raise fail(node, f"a window of {node.window} does not fit an input of shape {shape}")
    return (
        (shape[0] - node.window[0]) // node.stride[0] + 1,
        (shape[1] - node.window[1]) // node.stride[1] + 1,
        shape[2],
    )


def _shape(graph: Graph, node: Node) -> tuple[int, ...]:
    source = graph.source(node)
    if isinstance(node, Conv):
        if len(source.shape) != 3:
            raise fail(node, f"needs an (H, W, C) input, got shape {source.shape}")
        c, k = source.shape[2], node.out.shape[-1]
        if c % node.groups or k % node.groups:
            raise fail(node, f"{node.groups} groups do not divide {c} and {k} channels")
        sides = [
            (source.shape[i] + sum(node.padding[i]) - node.kernel[i]) // node.stride[i] + 1
            for i in (0, 1)
        ]
        return (*sides, k)
    if isinstance(node, Dense):
        if len(source.shape) != 1:
            raise fail(node, f"needs a flat input, got shape {source.shape}; flatten first")
        return node.out.shape[:1]
    if isinstance(node, (MaxPool, AvgPool)):
        return _pooled(node, source.shape)
    if isinstance(node, Flatten):
        return (source.n,)
    if isinstance(node, ArgMax):
        if len(source.shape) != 1:
            raise fail(node, f"needs a flat input, got shape {source.shape}; flatten first")
        return (1,)
    if isinstance(node, (Subsample, Pad)):
        if len(source.shape) != 3:
            raise fail(node, f"needs an (H, W, C) input, got shape {source.shape}")
        if isinstance(node, Pad):
            return tuple(d + sum(m) for d, m in zip(source.shape, node.margins, strict=True))
        h, w, c = source.shape
        return (-(-h // node.stride[0]), -(-w // node.stride[1]), c)
    return source.shape


def _check_format(node: Node) -> None:
    """What ties fields together; the bounds of each are held when a `Graph` is made."""
    out = node.out
    if out.bits == 64 and not out.signed:
        raise fail(node, "unsigned formats have at most 63 bits: answers are 64-bit integers")
    if out.nonnegative and not out.signed:
        raise fail(node, "nonnegative is a fact about signed formats; this one is unsigned")
    sides = {Conv: 3, Dense: 1}.get(type(node))
    if sides is not None and len(out.shape) != sides:
        raise fail(node, f"makes a tensor of {sides} sides, but declares {out.shape}")


def validate(
    graph: Graph, weights: Weights | None = None, given: Mapping[str, Interval] | None = None
) -> dict[str, Interval]:
    """Checks a graph, with its weights if given; the interval every node's values lie in.

    Args:
      graph: as written, or as passes made it.
      weights: its parameters, where they are at hand.
      given: of a graph that passes made, what was found on the graph as written: where its input and
        its accumulators lie, whose formats a pass may have widened.

    Raises:
      GraphError: names the node, what is wrong, and the width it needs.
    """
    for node in graph:
        _check_format(node)
        if not isinstance(node, Input):
            shape = _shape(graph, node)
            if node.out.shape != shape:
                raise fail(node, f"makes a tensor of shape {shape}, but declares {node.out.shape}")
    if weights is not None:
        _check_weights(graph, weights)
    walk = Intervals(graph, weights, given or {})
    for node in graph:
        walk.add(node)
    return walk.known


def _check_weights(graph: Graph, weights: Weights) -> None:
    wanted = graph.parameters()
    if set(wanted) != set(weights):
        missing, extra = sorted(set(wanted) - set(weights)), sorted(set(weights) - set(wanted))
        raise GraphError(
            f"weights do not match the graph: missing {listed(missing) or 'none'}, not in it "
            f"{listed(extra) or 'none'}"
        )
    for name, (shape, bits) in wanted.items():
        value = np.asarray(weights[name])
        if value.shape != shape or value.dtype.kind not in "iu":
            raise GraphError(
                f"{name}: integers of shape {shape} expected, got {value.dtype} of {value.shape}"
            )
        need = width_for(int(value.min()), int(value.max()))
        if need > bits:
            raise GraphError(f"{name}: values take {need} bits, the graph says {bits}")
